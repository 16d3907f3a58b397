"""review: who may ask, what is refused, and what stands in headers, modes and logs."""

import contextlib
import json
import os
import random
import socket
import stat
from pathlib import Path

import pytest
from keyed import CANARY, answer, ask, begin, identity, serving, table


@pytest.fixture
def running(tmp_path: Path):
    with serving(table(tmp_path, 30), log=tmp_path / "log") as server:
        yield server


def test_only_who_has_the_token_and_comes_from_the_page(running):
    old = "x" * len(running.token)
    for token in ("", old, running.token[:-1], running.token + "x"):
        for path in ("", "figures", "image/0/crop", "review.js"):
            status, headers, content = ask(running, path, token=token)
            assert (status, content) == (403, b"") and headers["cache-control"] == "no-store"
        assert ask(running, "begin", {"name": "Anne"}, token=token)[0] == 403
    own = f"http://127.0.0.1:{running.port}"
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"},
                    {"origin": f"http://127.0.0.1:{running.port + 1}"},
                    {"sec-fetch-site": "cross-site"}, {"host": "evil.example"},
                    {"host": f"evil.example:{running.port}"},
                    {"host": ""}):  # fmt: skip
        assert ask(running, "begin", {"name": "Anne"}, headers=headers)[0] in (400, 403), headers
        assert ask(running, "figures", headers=headers)[0] in (400, 403), headers
    assert ask(running, "begin", {"name": "Anne"}, headers={"origin": own, "sec-fetch-site": "same-origin"})[0] == 200


def free_port() -> int:
    """Below those that the kernel gives to whoever asks for any: nobody takes it while it is wanted twice."""
    for port in random.Random(os.getpid()).sample(range(20_000, 32_000), 200):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


def test_the_token_of_an_earlier_start_is_refused(tmp_path: Path):
    made = table(tmp_path, 3)
    with serving(made, "--port", free_port(), log=tmp_path / "log") as before:
        assert ask(before, "")[0] == 200 and before.stop() == 0
    with serving(made, "--port", before.port, log=tmp_path / "log") as running:
        assert running.port == before.port and ask(running, "", token=before.token)[0] == 403
        assert ask(running, "")[0] == 200


def test_paths_methods_and_bodies(running, tmp_path: Path):
    (tmp_path / "secret.txt").write_text(CANARY)
    for path in ("../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "image/../../secret.txt", "review.html",
                 "server.py",
                 "image/0/crop/..", "image/-1/crop", "image/30/crop", "image/0/none", "image/c0/crop", "//review.js",
                 "review.csv", "..\\secret.txt", "image/0%00/crop"):  # fmt: skip
        status, _, content = ask(running, path)
        assert status in (400, 404) and CANARY.encode() not in content, path
    assert ask(running, "figures", method="PUT")[0] == 405 and ask(running, "begin")[0] == 405
    assert ask(running, "figures", {})[0] == 405
    tab = begin(running)
    good = {"tab": tab, "id": identity(), "row": 0, "kind": "text", "text": "x"}
    for raw in (b"", b"{", b"[]", b"null", b"\xff\xfe", b'"a"', b"[" * 60000, b'{"tab": 1}'):
        assert ask(running, "answer", raw=raw)[0] == 400, raw[:10]
    wrong = ({"row": "0"}, {"row": True}, {"row": 1e300}, {"row": 0.5}, {"kind": 3}, {"text": None}, {"text": ["x"]},
             {"id": "short"},
             {"id": "../../etc/passwd/etc/passwd"}, {"seconds": "1"}, {"tab": None})  # fmt: skip
    for change in wrong:
        assert ask(running, "answer", good | change)[0] == 400, change
    for change in ({"row": -1}, {"row": 30}, {"kind": "none"}, {"tab": "none"}, {"text": "a\x00b"},
                   {"text": "a\u200bb"},
                   {"text": "\ud800"}, {"text": "x" * 10_001}):  # fmt: skip
        assert ask(running, "answer", good | change)[0] == 409, change
    assert ask(running, "answer", raw=b" " * 70_000)[0] == 413
    assert ask(running, "answer", raw=json.dumps(good).encode(), headers={"content-type": "text/plain"})[0] == 415
    assert ask(running, "begin", {"name": ""})[0] == 409 and ask(running, "begin", {"name": "x" * 61})[0] == 409
    assert ask(running, "answer", good)[0] == 200, "the one that is right still is"
    journal = tmp_path / "review.csv.keying" / "journal.jsonl"
    assert len(journal.read_text(encoding="utf-8").splitlines()) == 1


def test_headers_modes_and_logs(tmp_path: Path):
    made = table(tmp_path, 5)
    with serving(made, log=tmp_path / "log") as running:
        for path in ("", "review.js", "figures", "image/0/crop", "image/0/whole", "nothing"):
            _, headers, _ = ask(running, path)
            assert "default-src 'none'" in headers["content-security-policy"] and headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
            assert "set-cookie" not in headers and "server" not in headers
        tab = begin(running, "Prénom-Canari")
        answer(running, tab, 0, f"mort de {CANARY}")
        ask(running, "answer", raw=f'{{"tab": "{CANARY}'.encode())
        os.unlink(tmp_path / "pages" / "000.png")
        assert ask(running, "image/3/crop")[0] in (200, 404)
        folder = tmp_path / "review.csv.keying"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "journal.jsonl").stat().st_mode) == 0o600
        assert running.stop() == 0
    assert stat.S_IMODE((tmp_path / "review-keyed.csv").stat().st_mode) == 0o640
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert CANARY not in log and "Canari" not in log and running.token not in log and "1 of 5 rows done" in log
    figures = (folder / "figures.json").read_text(encoding="utf-8")
    assert CANARY not in figures and "Canari" not in figures


def test_a_fault_is_logged_by_its_place_alone(tmp_path: Path, capsys):
    import asyncio

    from jobs.keying.guard import Guard

    async def broken(scope, receive, send) -> None:
        raise ValueError(CANARY)

    sent = []

    async def send(message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/t/x",
        "raw_path": b"/t/x",
        "headers": [(b"host", b"localhost:1")],
    }
    asyncio.run(Guard(broken, "t")(scope, None, send))
    said = capsys.readouterr()
    assert sent[0]["status"] == 500 and "ValueError at test_review_guard.py" in said.err
    assert CANARY not in said.out + said.err
