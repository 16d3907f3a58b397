"""What the tests of `review` share: tables of drawn fields, the server as a process of its own, a client."""

import contextlib
import csv
import http.client
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from shards.sample import NOT_YET

CHECKOUT = Path(__file__).parent.parent
CANARY = "Kanarienvogel"  # in every reading: no log may have it


def table(folder: Path, rows: int, name: str = "review.csv", shown: bool = True, **columns: list[str]) -> Path:
    """A review table (or a sample) of so many lines on pages of ten, as transcribe writes it."""
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(rows):
        page = number // 10
        row = {
            "image": f"pages/{page:03d}.png",
            "page": "",
            "certificate": f"c{page}",
            "field": ("Ia", "II")[number % 2],
        }
        row |= {"line": str(number), "box": f"40 {30 + 60 * (number % 10)} 520 44", "polygon": "", "baseline": ""}
        row |= {"text": "", "reject": NOT_YET}
        if shown:
            row |= {"reading": f"{CANARY} {number}", "alternatives": f"choc {number} | grippe {number}",
                    "words": f"[0.99, {0.5 if number % 3 == 0 else 0.97}]",
                    "confidence": f"{0.5 + 0.4 * number / rows:.4f}",
                    "probability": f"{0.9 - 0.6 * number / rows:.4f}"}  # fmt: skip
        found.append(row | {column: values[number] for column, values in columns.items()})
    for page in range(-(-rows // 10)):
        image = np.full((640, 620), 235, np.uint8)
        for line in range(10):
            place = (50, 62 + 60 * line)
            cv2.putText(image, f"champ {10 * page + line}", place, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 40, 2, cv2.LINE_AA)
        cv2.imwrite(str(folder / "pages" / f"{page:03d}.png"), image)
    with open(folder / name, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    return folder / name


def rows_of(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@dataclass
class Running:
    """A server: its process, where it answers, and where its output goes."""

    process: subprocess.Popen
    port: int
    token: str
    log: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.token}/"

    def stop(self, how: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait()


@contextlib.contextmanager
def serving(*words: object, log: Path) -> Iterator[Running]:
    """python -m jobs review …, once it answers; killed at the end if it still runs."""
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "jobs", "review", *map(str, words)]
    with open(log, "ab") as err:
        # tests that a shell runs in the background ignore SIGINT, and so would the server until it has its own handler
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, env=environ, text=True,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip
    try:
        said = ""
        for line in process.stdout:
            said += line
            if "Ctrl-C ends" in line:
                break
        found = re.search(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/", said)
        assert found, f"{said}{log.read_text(encoding='utf-8')}"
        yield Running(process, int(found[1]), found[2], log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def ask(
    running: Running, path: str, body: object = None, *, method: str = "", token: str | None = None,
    raw: bytes | None = None, headers: dict | None = None,
) -> tuple[int, dict, bytes]:  # fmt: skip
    """-> status, headers, body. `body` is sent as JSON, `raw` as it is; `path` follows the token."""
    client = http.client.HTTPConnection("127.0.0.1", running.port)
    sent = json.dumps(body).encode() if body is not None else raw
    kind = {"content-type": "application/json"} if sent is not None else {}
    token = running.token if token is None else token
    try:
        client.request(method or ("POST" if sent is not None else "GET"), f"/{token}/{path}" if token else f"/{path}",
                       body=sent, headers=kind | (headers or {}))  # fmt: skip
        answer = client.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        client.close()


def post(running: Running, path: str, **body: object) -> dict:
    status, _, content = ask(running, path, body)
    assert status in (200, 409), status
    return json.loads(content)


def identity() -> str:
    return secrets.token_hex(16)


def begin(running: Running, name: str = "Anne") -> str:
    return post(running, "begin", name=name)["tab"]


def answer(running: Running, tab: str, row: int, text: str = "", kind: str = "text", **more: object) -> dict:
    return post(
        running,
        "answer",
        **{"tab": tab, "id": identity(), "row": row, "kind": kind, "text": text, "seconds": 2.5} | more,
    )
