"""The list of experiments: every state a run can be in, and nothing that a broken folder could do to it."""

import json
import os
import time

import pytest
from beating import beats_when_watched

from jobs import runs
from jobs.cli.command_line import main
from jobs.launch import slurm_state
from jobs.training import run_lock, run_status
from jobs.training.config import TrainConfig
from jobs.training.run_folder import RunFolder
from jobs.training.run_lock import STALE_AFTER_S
from shards import files

CONFIG = TrainConfig()


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch, tmp_path):
    """No sacct of this machine answers for job ids that the tests invent."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(run_lock, "BEAT_INTERVAL_S", 0.1)  # how long one that seems dead is looked at


def make(folder, job="4711", beat=0.0, **state):
    """A run that is left as it is: its lock stays, with a heartbeat `beat` seconds ago; None releases it."""
    run = RunFolder(folder, CONFIG, {}, job)
    run.note_start({"world": 8})
    run.update({"state": "running", "step": 120, "steps": 20000, "lines_per_s": 1234.5, "dev_cer": 0.0834} | state)
    if beat is None:
        run.lock.path.unlink()
    else:
        os.utime(run.lock.path, (time.time() - beat,) * 2)
    return run


def listed(folder, capsys) -> dict[str, dict]:
    assert main(["runs", str(folder), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(tuple(row) == run_status.FIELDS for row in rows)
    return {row["run"]: row for row in rows}


def evaluate(run, name, cer, age):
    metrics = run.folder / "evaluation" / name / "metrics.json"
    metrics.parent.mkdir(parents=True)
    files.replace(metrics, files.to_json({"split": name, "cer": cer, "lines": 9000}))
    os.utime(metrics, (time.time() - age,) * 2)


def sacct(tmp_path, script):
    """A stand-in for Slurm's sacct, which the tests cannot have everywhere; its call is kept in `asked`."""
    path = tmp_path / "bin" / "sacct"
    path.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\n{script}\n')
    path.chmod(0o755)
    return tmp_path / "asked"


def test_what_a_row_says(tmp_path, capsys):
    run = make(tmp_path / "runs" / "ctc-16")
    evaluate(run, "val", 0.09, age=100)
    evaluate(run, "test", 0.071, age=1)
    row = listed(tmp_path / "runs", capsys)["ctc-16"]
    beat = row.pop("heartbeat")
    assert 0 <= beat < 30
    known = {"model": "ctc", "size": "small", "world": 8, "step": 120, "steps": 20000, "lines_per_s": 1234.5}
    known |= {"dev_cer": 0.0834, "eval_cer": 0.071, "eval_split": "test", "eval_lines": 9000}
    assert row == {"run": "ctc-16", "state": "running", "reason": None, "job": "4711"} | known


@pytest.mark.parametrize(
    ("state", "beat", "shown", "reason"),
    [
        ("starting", 0, "starting", None),
        ("running", 0, "running", None),
        ("running", STALE_AFTER_S + 30, "lost", "no heartbeat"),
        ("starting", STALE_AFTER_S + 30, "lost", "no heartbeat"),
        ("running", None, "lost", "nobody holds its lock.json"),
        ("finished", None, "finished", None),
        ("finished", 0, "finished", None),
    ],
)
def test_states(tmp_path, capsys, state, beat, shown, reason):
    make(tmp_path / "runs" / "a", beat=beat, state=state)
    row = listed(tmp_path / "runs", capsys)["a"]
    assert (row["state"], row["reason"]) == (shown, reason)


@pytest.mark.parametrize("off", [-7200, 7200])
def test_a_run_on_a_node_whose_clock_is_two_hours_off(tmp_path, capsys, monkeypatch, off):
    """On storage that stamps files by the clock of who writes them: who is seen to beat lives, who is not does not."""
    run = make(tmp_path / "runs" / "living", beat=-off, reason="a reason")
    make(tmp_path / "runs" / "dead", job="4712", beat=-off)
    beats_when_watched(monkeypatch, run.lock.path, off)
    rows = listed(tmp_path / "runs", capsys)
    assert [rows["living"][name] for name in ("state", "reason", "heartbeat")] == ["running", "a reason", 0.0]
    assert (rows["dead"]["state"], rows["dead"]["reason"]) == ("lost", "no heartbeat")


def test_ages_are_by_the_clock_of_the_storage(tmp_path, capsys, monkeypatch):
    """The machine that lists the runs may be the one whose clock is off."""
    make(tmp_path / "runs" / "a")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    row = listed(tmp_path / "runs", capsys)["a"]
    assert row["state"] == "running" and row["heartbeat"] < 30


def test_the_dead_of_days_ago_are_not_waited_for(tmp_path, capsys, monkeypatch):
    make(tmp_path / "runs" / "a", beat=2 * run_status.MAX_CLOCK_SKEW_S)
    monkeypatch.setattr(run_lock, "BEAT_INTERVAL_S", 1e9)
    assert listed(tmp_path / "runs", capsys)["a"]["state"] == "lost"


def test_a_run_that_cannot_be_asked_while_it_is_watched_is_one_row(tmp_path, capsys, monkeypatch):
    for name in ("a", "b"):
        make(tmp_path / "runs" / name, beat=STALE_AFTER_S + 30)

    def watched(locks, unknown):
        unknown[tmp_path / "runs" / "a" / "lock.json"] = OSError(116, "Stale file handle")
        return set()

    monkeypatch.setattr(run_status, "living", watched)
    rows = listed(tmp_path / "runs", capsys)
    assert (rows["a"]["state"], rows["b"]["state"]) == ("unreadable", "lost")
    assert "Stale file handle" in rows["a"]["reason"]


def test_a_failed_run_says_why_in_one_harmless_line(tmp_path, capsys):
    with pytest.raises(ValueError), RunFolder(tmp_path / "runs" / "a", CONFIG, {}, "5") as run:
        run.note_start({"world": 1})
        raise ValueError("no [bold]gradient\x1b[31m was finite\nsecond line")
    row = listed(tmp_path / "runs", capsys)["a"]
    assert (row["state"], row["reason"]) == ("failed", "ValueError: no [bold]gradient?[31m was finite")
    assert (row["heartbeat"], row["step"]) == (None, None)
    assert main(["runs", str(tmp_path / "runs")]) == 0
    assert "failed: ValueError: no [bold]gradient?" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "kept", "beat", "shown"),
    [
        ("NODE_FAIL", "running", STALE_AFTER_S + 30, "node_fail"),
        ("NODE_FAIL", "running", 0, "node_fail"),
        ("TIMEOUT", "running", None, "timeout"),
        ("CANCELLED by 1000", "running", None, "cancelled"),
        ("CANCELLED by 1000", "failed", None, "cancelled"),
        ("FAILED", "running", None, "failed"),
        ("PENDING", "running", STALE_AFTER_S + 30, "pending"),
        ("REQUEUED", "failed", None, "pending"),
        ("RUNNING", "running", 0, "running"),
        ("RUNNING", "running", STALE_AFTER_S + 30, "lost"),
        ("COMPLETED", "running", None, "lost"),
        ("FAILED", "finished", None, "finished"),
    ],
)
def test_slurm_refines_the_state(tmp_path, capsys, word, kept, beat, shown):
    make(tmp_path / "runs" / "a", beat=beat, state=kept)
    sacct(tmp_path, f'echo "4711|{word}"')
    assert listed(tmp_path / "runs", capsys)["a"]["state"] == shown


def test_slurm_is_asked_once_for_all_its_jobs(tmp_path, capsys):
    for number, job in enumerate(["12", "9", "12", "local-77"]):
        make(tmp_path / "runs" / f"run-{number}", job=job)
    asked = sacct(tmp_path, 'printf "12|NODE_FAIL\\n9|RUNNING\\nnonsense\\n"')
    rows = listed(tmp_path / "runs", capsys)
    assert [row["state"] for row in rows.values()] == ["node_fail", "running", "node_fail", "running"]
    assert asked.read_text(encoding="utf-8").count("\n") == 1
    assert "--jobs=12,9" in asked.read_text(encoding="utf-8")


@pytest.mark.parametrize("script", ["echo '4711|NODE_FAIL'; exit 1", "exec /bin/sleep 60", r"printf '\377\n'", ":"])
def test_a_sacct_that_fails_changes_nothing(tmp_path, capsys, monkeypatch, script):
    monkeypatch.setattr(slurm_state, "SACCT_TIMEOUT_S", 0.5)
    make(tmp_path / "runs" / "a")
    sacct(tmp_path, script)
    assert listed(tmp_path / "runs", capsys)["a"]["state"] == "running"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b""),
        ("config.yaml", b"{"),
        ("data.json", b"{"),
        ("status.json", b"[1, 2]"),
        ("status.json", b"\xff\xfe"),
        ("status.json", b'{"state": "running", "step": "many"}'),
        ("evaluation/test/metrics.json", b'{"cer": '),
    ],
)
def test_a_broken_run_is_a_row(tmp_path, capsys, name, content):
    evaluate(make(tmp_path / "runs" / "broken"), "test", 0.1, age=0)
    make(tmp_path / "runs" / "whole")
    if name == "config.json":  # as runs of before have it
        (tmp_path / "runs" / "broken" / "config.yaml").unlink()
    (tmp_path / "runs" / "broken" / name).write_bytes(content)
    rows = listed(tmp_path / "runs", capsys)
    assert rows["broken"]["state"] == "unreadable"
    assert rows["broken"]["reason"] == ("step is not a number" if b"many" in content else f"{name} is damaged")
    assert rows["whole"]["state"] == "running"
    assert main(["runs", str(tmp_path / "runs")]) == 0


def test_numbers_that_json_does_not_have(tmp_path, capsys):
    make(tmp_path / "runs" / "a", dev_cer=float("nan"), lines_per_s=float("inf"))
    row = listed(tmp_path / "runs", capsys)["a"]
    assert (row["dev_cer"], row["lines_per_s"]) == (None, None)


def test_which_folders_are_runs(tmp_path, capsys):
    top = tmp_path / "runs"
    make(top / "b")
    make(top / "a" / "x" / "deep")
    make(top / "a" / "x" / "y" / "too-deep")
    make(top / "b" / "inside-a-run")
    files.replace(top / "config.json", "{}")  # a config alone, as in a run's model folder
    assert list(listed(top, capsys)) == ["a/x/deep", "b"]
    assert list(listed(top / "b", capsys)) == ["."]


def test_a_name_that_is_no_word(tmp_path, capsys):
    """Of any bytes but two: it neither steers a terminal, nor ends the list of all others."""
    for name in (b"caf\xe9", b"two\nlines", b"\x1b[31mred"):
        make(tmp_path / "run")
        (tmp_path / "runs").mkdir(exist_ok=True)
        (tmp_path / "run").rename(tmp_path / "runs" / os.fsdecode(name))
    assert main(["runs", str(tmp_path / "runs")]) == 0
    _, *lines = capsys.readouterr().out.encode("utf-8").decode().splitlines()
    assert sorted(line.split()[0] for line in lines) == ["?[31mred", "caf?", "two?lines"]
    for ending in ("csv", "parquet", "md"):
        assert main(["collect", str(tmp_path / "runs"), "--out", str(tmp_path / f"all.{ending}")]) == 0
    assert "caf?" in (tmp_path / "all.csv").read_text(encoding="utf-8")


def test_plain_columns_for_pipes(tmp_path, capsys):
    evaluate(make(tmp_path / "runs" / "ctc-16"), "test", 0.071, age=0)
    make(tmp_path / "runs" / "a-longer-name", job="local-3", beat=200.0)
    assert main(["runs", str(tmp_path / "runs")]) == 0
    head, lost, good = capsys.readouterr().out.splitlines()
    assert [head.index(name) for name in ("state", "evaluation")] == [
        good.index("running"),
        good.index("7.1% test, 9,000 lines"),
    ]
    assert lost.index("lost: no heartbeat") == head.index("state")
    assert "ctc/small" in good and "120/20000" in good and "1,234" in good and "8.3%" in good
    assert "3 min" in lost


def test_a_table_for_people(tmp_path, capsys, monkeypatch):
    make(tmp_path / "runs" / "ctc-16")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["runs", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "ctc/small" in out and "│" in out


def test_nothing_there(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 0
    assert "no experiment" in capsys.readouterr().err
    assert main(["runs", str(tmp_path / "nowhere")]) == 1
    assert "nowhere: no such folder" in capsys.readouterr().err


# --- watched


class Rounds:
    """The clock of jobs.runs: its sleep does what is given, one thing a round, and presses Ctrl-C in the last one."""

    time, strftime = staticmethod(time.time), staticmethod(time.strftime)

    def __init__(self, monkeypatch, *between):
        for module in (runs, slurm_state):
            monkeypatch.setattr(module, "time", self)
        self.between, self.slept, self.now = list(between), [], 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        if not self.between:
            raise KeyboardInterrupt
        self.between.pop(0)()


def test_watched_without_a_terminal(tmp_path, capsys, monkeypatch):
    run = make(tmp_path / "runs" / "ctc-16")
    rounds = Rounds(monkeypatch, lambda: run.update({"step": 170}), lambda: run.update({"step": 220}))
    assert main(["runs", str(tmp_path / "runs"), "--watch", "2.5"]) == 0
    out = capsys.readouterr().out
    assert [out.count(f"{step}/20000") for step in (120, 170, 220)] == [1, 1, 1]
    assert out.count("lines/s") == 3 and "\x1b" not in out
    assert rounds.slept == [2.5] * 3


def test_watched_on_a_terminal(tmp_path, capsys, monkeypatch):
    run = make(tmp_path / "runs" / "ctc-16")
    rounds = Rounds(monkeypatch, lambda: run.update({"step": 170}))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    assert main(["runs", str(tmp_path / "runs"), "--watch"]) == 0
    first, _, second = capsys.readouterr().out.partition("120/20000")
    assert "\x1b[1A" in second.partition("170/20000")[0]  # the cursor goes up: in place
    assert "\x1b[?25l" in first and "\x1b[?25h" in second  # it is hidden meanwhile, and there again
    assert rounds.slept == [10.0] * 2


def test_watched_as_json(tmp_path, capsys, monkeypatch):
    make(tmp_path / "runs" / "a")
    Rounds(monkeypatch, lambda: None)
    assert main(["runs", str(tmp_path / "runs"), "--watch", "--json"]) == 0
    assert [json.loads(line)["run"] for line in capsys.readouterr().out.splitlines()] == ["a", "a"]


def test_a_run_that_is_watched_for_comes_up(tmp_path, capsys, monkeypatch):
    (tmp_path / "runs").mkdir()
    Rounds(monkeypatch, lambda: make(tmp_path / "runs" / "late"))
    assert main(["runs", str(tmp_path / "runs"), "--watch"]) == 0
    shown = capsys.readouterr()
    assert "no experiment" in shown.err and "late" in shown.out


def test_slurm_is_asked_now_and_then(tmp_path, capsys, monkeypatch):
    """Once a minute however often the table is renewed, and at once for a job that was not there before."""
    make(tmp_path / "runs" / "a", job="12")
    asked = sacct(tmp_path, "echo '12|NODE_FAIL'")
    count, seen = (lambda: asked.read_text(encoding="utf-8").count("\n")), []

    def after(seconds, *jobs):
        seen.append(count())
        rounds.now += seconds
        for job in jobs:
            make(tmp_path / "runs" / f"job-{job}", job=job)

    steps = (lambda: after(10), lambda: after(10, "13"), lambda: after(61), lambda: after(1))
    rounds = Rounds(monkeypatch, *steps)
    assert main(["runs", str(tmp_path / "runs"), "--watch", "--json"]) == 0
    assert [*seen, count()] == [1, 1, 2, 3, 3]
    states = [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]
    assert states == ["node_fail"] * 2 + ["node_fail", "running"] * 3


@pytest.mark.parametrize("given", ["0", "-1", "often", "nan", ""])
def test_seconds_that_are_none(tmp_path, capsys, given):
    with pytest.raises(SystemExit):
        main(["runs", str(tmp_path), f"--watch={given}"])
    assert "no number of seconds above 0" in capsys.readouterr().err


def test_curves_are_drawn_anew(tmp_path, capsys):
    run = make(tmp_path / "runs" / "a")
    make(tmp_path / "runs" / "b")
    run.log({"step": 50, "loss": 1.0})
    assert main(["runs", str(tmp_path / "runs"), "--curves"]) == 0
    drawn, nothing = capsys.readouterr().err.splitlines()
    assert drawn.endswith("runs/a/curves.png") and (run.folder / "curves.png").exists()
    assert "runs/b has nothing to draw yet" in nothing
