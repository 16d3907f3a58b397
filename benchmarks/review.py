"""python benchmarks/review.py: the server of `review` under load, and a large table opened.

load    so many operators (20), each at two answers a second for a minute, with the next row and its picture fetched
        after every answer, over connections that stay open, from a process of their own. The time of an answer is from
        the first byte sent to the last one received: it is on disk by then. Scans are simulated pages of 200 dpi.
limit   one fsync of a line of the journal's length to a file of the same folder: what no answer can be faster than.
open    a review table of a million rows, CSV and Parquet: seconds from the process's start to the address, those of
        CPUs, its peak memory, and the seconds in which the same table is only read by pyarrow.
enter   with --chromium: from Enter to the frame that shows the next row, one operator, 100 rows.

A table, then one line of JSON.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import resource
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
# from the key that takes a row to the frame in which the next one is shown
WATCH = """window.took = []; let pressed = 0;
document.addEventListener("keydown", (event) => { if (event.key === "Enter") pressed = performance.now(); }, true);
new MutationObserver(() => { const from = pressed;
  if (from) requestAnimationFrame(() => took.push(performance.now() - from)); })
  .observe(document.getElementById("where"), {childList: true, characterData: true, subtree: true}); 0"""
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests"), str(CHECKOUT / "tests" / "jobs" / "keying")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--operators", type=int, default=20)
    add("--rate", type=float, default=2.0, help="answers a second of each (default: %(default)s)")
    add("--seconds", type=float, default=60.0)
    add("--rows", type=int, default=1_000_000, help="of the large table")
    add("--chromium", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        figures = load(args, folder / "load") | opening(args, folder / "open")
        if args.chromium:
            figures |= enter(folder / "enter")
    for key, value in figures.items():
        print(f"{key:28} {value:12.4g}")
    print(json.dumps({key: round(value, 4) for key, value in figures.items()}))


# ---------------------------------------------------------------------------- load


def load(args: argparse.Namespace, folder: Path) -> dict:
    from keyed import serving

    needed = int(1.2 * args.operators * args.rate * args.seconds) + 8 * args.operators
    made = pages(folder, needed)
    with serving(made, "--double", 0.05, log=folder / "log") as running:
        asked = [str(running.port), running.token, str(args.operators), str(args.rate), str(args.seconds)]
        before, began = cpu_seconds(running.process.pid), time.perf_counter()
        command = [sys.executable, __file__, "--client", *asked]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        cores = (cpu_seconds(running.process.pid) - before) / (time.perf_counter() - began)
        assert running.stop() == 0
    found = json.loads(done.stdout) | {"server_cores": cores, "load_of_machine": os.getloadavg()[0]}
    with open(folder / "probe", "wb") as file:
        times = []
        for _ in range(300):
            began = time.perf_counter()
            file.write(b"x" * 260)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return found | {"fsync_p50_ms": 1000 * quantile(times, 0.5), "fsync_p99_ms": 1000 * quantile(times, 0.99)}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pages(folder: Path, rows: int) -> Path:
    """A review table of lines on simulated certificates, ten fields a scan."""
    from keyed import rows_of, table

    from htr.synth.simulate import simulate

    scans = simulate(folder / "scans", 40, 3, severity="light")
    images = sorted({row["image"] for row in rows_of(scans)})
    # a scan has twenty-four fields: rows that follow each other share one
    names = [f"scans/{images[number // 24 % len(images)]}" for number in range(rows)]
    boxes = [f"{180 + 8 * (number % 7)} {180 + 98 * (number % 4)} 1000 90" for number in range(rows)]
    return table(folder, rows, image=names, box=boxes)


def client(port: int, token: str, operators: int, rate: float, seconds: float) -> None:
    """What the operators' pages do, a thread each. Prints the figures."""
    answers: list[float] = []
    pictures: list[float] = []
    failed: list[str] = []
    count = round(rate * seconds)  # answers of each: so many on a busy machine too

    def operate(number: int) -> None:
        rng = random.Random(number)
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

        def ask(path: str, body: dict | None = None) -> tuple[float, bytes]:
            began = time.perf_counter()
            sent = None if body is None else json.dumps(body)
            link.request(
                "GET" if body is None else "POST", f"/{token}/{path}", sent, {"content-type": "application/json"}
            )
            answer = link.getresponse()
            content = answer.read()
            if answer.status != 200:
                failed.append(f"{path.split('/')[0]} {answer.status}")
            return time.perf_counter() - began, content

        tab = json.loads(ask("begin", {"name": f"operator {number}"})[1])["tab"]
        rows = json.loads(ask("next", {"tab": tab, "count": 4})[1])["rows"]
        due = time.monotonic() + rng.random() / rate
        for _ in range(count):
            time.sleep(max(due - time.monotonic(), 0))
            due += 1 / rate
            row = rows.pop(0)
            body = {"tab": tab, "id": secrets.token_hex(16), "row": row["row"], "kind": "text",
                    "text": "insuffisance rénale", "seconds": 0.5, "count": 1}  # fmt: skip
            took, content = ask("answer", body)
            answers.append(took)
            new = json.loads(content)["rows"]
            rows += new
            pictures.extend(ask(f"image/{one['row']}/crop")[0] for one in new)

    began = time.perf_counter()
    threads = [threading.Thread(target=operate, args=(number,)) for number in range(operators)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {
        "answers": len(answers),
        "answers_per_s": len(answers) / (time.perf_counter() - began),
        "failed": len(failed),
    }
    for name, times in (("answer", answers), ("picture", pictures)):
        found |= {f"{name}_p{round(100 * q)}_ms": 1000 * quantile(times, q) for q in (0.5, 0.95, 0.99)}
    print(json.dumps(found | {"answer_max_ms": 1000 * max(answers)}))


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(int(q * len(values)), len(values) - 1)]


# ---------------------------------------------------------------------------- a large table


def opening(args: argparse.Namespace, folder: Path) -> dict:
    import pyarrow.csv
    import pyarrow.parquet

    folder.mkdir()
    rows, found = large(args.rows), {}
    pyarrow.csv.write_csv(rows, folder / "review.csv")
    pyarrow.parquet.write_table(rows, folder / "review.parquet")
    del rows
    for kind in ("csv", "parquet"):
        path = folder / f"review.{kind}"
        seconds, cpu, peak = started(path)
        read = {"csv": "pyarrow.csv.read_csv", "parquet": "pyarrow.parquet.read_table"}[kind]
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", f"import pyarrow.csv, pyarrow.parquet; {read}({str(path)!r})"], check=True
        )
        found |= {
            f"open_{kind}_s": seconds,
            f"open_{kind}_cpu_s": cpu,
            f"open_{kind}_mb": peak,
            f"read_{kind}_s": time.perf_counter() - began,
        }
    return found


def large(count: int):
    """A review table of fields, as transcribe writes it: 24 a scan."""
    import numpy as np
    import pyarrow as pa

    from shards.sample import NOT_YET

    rng = np.random.default_rng(0)
    words = [
        "insuffisance",
        "cardiaque",
        "rénale",
        "choc",
        "septique",
        "cancer",
        "du",
        "poumon",
        "métastases",
        "AVC",
        "chute",
    ]
    texts = [" ".join(words[i] for i in row) for row in rng.integers(0, len(words), (50_000, 4)).tolist()]
    scans = [f"scans/{number // 24:06d}.jpg" for number in range(count)]
    columns = {
        "image": scans, "page": [""] * count, "certificate": [name[6:-4] for name in scans],
        "form": ["adult-2018"] * count, "field": [f"F{number % 24}" for number in range(count)],
        "place": [f"{160 + number % 90} {170 + number % 600} 1084 96" for number in range(count)], "text": [""] * count,
        "reject": [NOT_YET] * count, "reading": [f"{texts[i % 50_000]} {i}" for i in range(count)],
        "alternatives": [f"{texts[(i + 7) % 50_000]} | {texts[(i + 11) % 50_000]}" for i in range(count)],
        "words": ["[0.98, 0.71, 0.999, 0.93, 0.8]"] * count,
    }  # fmt: skip
    table = pa.table(columns)
    for name in ("confidence", "probability"):
        table = table.append_column(name, pa.array(rng.random(count).round(4)))
    return table


def started(path: Path) -> tuple[float, float, float]:
    """-> seconds from the start of the process to its address, seconds of CPUs until then, MB of its peak memory."""
    from keyed import serving

    began = time.perf_counter()
    with serving(path, log=path.with_suffix(".log")) as running:
        seconds = time.perf_counter() - began
        cpu = cpu_seconds(running.process.pid)
        status = Path(f"/proc/{running.process.pid}/status").read_text(encoding="utf-8")
        [peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        running.process.kill()
    return seconds, cpu, int(peak) * 1024 / 1e6


# ---------------------------------------------------------------------------- a page


def enter(folder: Path) -> dict:
    from browser import Browser
    from keyed import serving, table
    from test_review_page import SETTLED, begin

    with Browser(folder / "profile") as browser, serving(table(folder, 120), log=folder / "log") as running:
        browser.show(1280)
        begin(browser, running, "Anne")
        browser.run(WATCH)
        for _ in range(100):
            browser.press("Enter")
            browser.run(SETTLED)
        took = browser.run("took")
    return {"enter_p50_ms": quantile(took, 0.5), "enter_p95_ms": quantile(took, 0.95)}


if __name__ == "__main__":
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    if sys.argv[1:2] == ["--client"]:
        client(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6]))
    else:
        main()
