"""What a person sees: bars with rates on a terminal, plain lines in a log, neither with --quiet."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import console
from jobs.cli.command_line import VERBS, parse
from jobs.cli.console import Progress

WORK = """
import sys, time
from jobs.cli.console import Progress, be_quiet, log
if "quiet" in sys.argv:
    be_quiet()
with Progress("verify", 3, "shards") as progress:
    for _ in range(3):
        progress.advance(1, "note")
log("verify: 3 shards, 0 faults")
"""


def on_a_terminal(*words: str) -> str:
    """What the program writes to a terminal of 100 columns."""
    main, other = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    done = subprocess.Popen([sys.executable, "-c", WORK, *words], stdout=other, stderr=other, env=environment)
    os.close(other)
    seen = b""
    while True:
        try:
            piece = os.read(main, 4096)
        except OSError:  # the terminal is gone with the program
            break
        if not piece:
            break
        seen += piece
    os.close(main)
    assert done.wait() == 0
    return seen.decode()


def test_a_terminal_sees_a_bar_with_rate_and_time_left():
    seen = on_a_terminal()
    assert "\x1b[" in seen
    seen = re.sub(r"\x1b\[[\d;?]*\w", "", seen)
    assert re.search(r"3/3 shards \d+\.\d/s \d:\d\d:\d\d note", seen)
    assert "verify: 3 shards, 0 faults" in seen


def test_quiet_leaves_the_summary():
    assert on_a_terminal("quiet").strip() == "verify: 3 shards, 0 faults"


def test_a_log_has_plain_lines():
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    assert done.stderr == "verify: 3 shards, 0 faults\n" and not done.stdout


def test_a_name_in_a_message_steers_no_terminal(capsys: pytest.CaptureFixture):
    console.log("error: a\x1b[31mb\x9b2Jc\r\x07 d\u00a0é\tf\n  second line")
    assert capsys.readouterr().err == "error: a?[31mb?2Jc?? d\u00a0é\tf\n  second line\n"


def test_a_log_has_a_line_at_times(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(0, 1000, 11))
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with Progress("align", 4, "shards") as progress:
        progress.advance(2, "note")
    assert capsys.readouterr().err == "align: 2 of 4 shards, 0.1 a second, about 33 seconds left, note\n"


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_takes_quiet(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setitem(console.SHOWN, "progress", True)
    action = {"template": ["check"], "submit": ["train"]}.get(verb, [])
    with pytest.raises(SystemExit):
        parse([verb, *action, "--help"])
    helped = capsys.readouterr().out
    assert ("--quiet" in helped) == (verb != "submit")  # which hands on what it does not know


def test_quiet_is_heard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(console.SHOWN, "progress", True)
    parse(["verify", str(tmp_path), "--quiet"])
    assert console.SHOWN["progress"] is False


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-", ">&-"])
def test_a_log_that_takes_no_line_ends_no_work(tmp_path: Path, stderr: str):
    """A full disk under Slurm's log, or none: no other exit status, no line in stdout, no file in place of stderr."""
    command = f'"$@" {stderr} | cat; exit ${{PIPESTATUS[0]}}'
    verb = [sys.executable, "-m", "jobs", "runs", str(tmp_path)]
    done = subprocess.run(
        ["bash", "-c", command, "bash", *verb],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert ("no experiment" in done.stderr) == (stderr == ">&-")
