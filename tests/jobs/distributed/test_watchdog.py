"""A process without progress ends itself, says who keeps it waiting, leaves its stacks; one that is slow does not."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from bed import wait_for

from jobs.distributed import heartbeat, sentinel, watchdog
from jobs.distributed.heartbeat import Activity, Heartbeat, beats, blame
from jobs.distributed.sentinel import MIN_STANDS_S
from jobs.distributed.watchdog import LONGER, LONGEST_START, MIN_LIMIT_S, TIMES, Watchdog

HERE = Path(__file__).parents[3]
# a rank whose main thread takes three steps and then does what argv says
RANK = """
import ctypes, itertools, os, signal, sys, threading, time
from pathlib import Path
from htr import process_end
from jobs.distributed import heartbeat, watchdog
from jobs.distributed.heartbeat import ACTIVITY
from jobs.distributed.placement import DistributedError
from jobs.distributed.sentinel import ANOTHER

heartbeat.BEAT_INTERVAL_S, watchdog.TICK, watchdog.GRACE = 0.1, 0.05, 0.2
heartbeat.blame.__defaults__ = (1.0,)
folder, rank, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
again = ["sh", "-c", f'printf "%s|" "$@" > "$0"; exit {ANOTHER * ("another" in what)}', str(folder / "again")]
what = what.removesuffix(", another acts")
if what.endswith(" under a clock that jumps"):
    what, now, jumps = what.removesuffix(" under a clock that jumps"), time.time, itertools.cycle([-7200, 0, 7200, 3e7])
    time.time = lambda: now() + next(jumps)

def hung(reason):
    (folder / "hung").open("a").write(reason + "\\n")
    return "the job is told"

def log(line):
    if what == "logs in vain":
        time.sleep(1000)
    print(line, file=sys.stderr, flush=True)
    (folder / f"said-{rank}").touch()
    while together and len(list(folder.glob("said-*"))) < int(sys.argv[4]):
        time.sleep(0.02)  # one that ends stops beating: who looks later than that would name it

together = (folder / "together").exists()
if together:
    watchdog.GRACE = 2.0
if what == "beats in vain":
    watchdog.MIN_STORAGE = 0.2
    watchdog.Heartbeat.write = lambda self: time.sleep(1000 * (heartbeat.ACTIVITY.step == 3))
if what == "logs in vain":
    process_end.MIN_END_S = 2.0

with watchdog.Watchdog(folder, rank, f"node{rank + 1}", hung, log, again=again) as dog:
    if what == "works":
        time.sleep(1.5)  # it compiles
    for step in range(1, 4):
        ACTIVITY.progressed("computing"); time.sleep(0.01); ACTIVITY.took(step)
    while len(heartbeat.beats(folder)) < int(sys.argv[4]):  # all are there before the first one stands still
        time.sleep(0.02); ACTIVITY.progressed()
    if what in ("sleeps", "logs in vain", "beats in vain"):
        ACTIVITY.progressed("computing"); time.sleep(1000)
    if what == "loops":
        ACTIVITY.progressed("computing")
        while True: pass
    if what == "reads":
        os.mkfifo(folder / "shard")
        threading.Thread(target=lambda: open(folder / "shard").read(), name="grippe").start(); threading.Event().wait()
    if what == "waits":
        ACTIVITY.collective = "sum of gradients"
        exec(compile("time.sleep(1000)", "/site-packages/horovod/torch/mpi_ops.py", "exec"))
    if what == "on the way":
        ACTIVITY.collective = "sum"; time.sleep(1000)
    while what in ("is stopped", "keeps the lock") and dog.heartbeat.idle < 0.2:
        time.sleep(0.02)  # until the sentinel has heard of the last step
    if what == "is stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if what == "keeps the lock":
        ctypes.PyDLL(None).sleep(1000)
    if what == "works":  # at what takes longer than a step may
        with ACTIVITY.during("evaluating"):
            for _ in range(12):
                time.sleep(0.1); ACTIVITY.progressed()
            time.sleep(1.5)
        with ACTIVITY.during("writing a checkpoint"):
            time.sleep(1.5)
    if what.startswith("is left"):  # alone, with progress all the time, and now the collective fails
        watchdog.SILENT = 0.5
        ACTIVITY.met += what == "is left at once"
        while (dog.apart <= 0.5) != (what == "is left at once"):
            time.sleep(0.02); ACTIVITY.progressed("rank 0's files")
        raise DistributedError("broadcast: another rank ended or stopped answering")
    if what == "stalls":  # each time for a third of the limit
        for step in range(4, 8):
            time.sleep(1); ACTIVITY.progressed("computing"); ACTIVITY.took(step)
    print("done", flush=True)
"""


def start(folder: Path, rank: int, what: str, ranks: int = 1) -> subprocess.Popen:
    (folder / ".heartbeat").mkdir(exist_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    environ = os.environ | {
        "HTR_STEP_TIMEOUT": "3" if what.startswith("stalls") else "1",
        "SLURM_JOB_ID": "17",
        "SLURM_RESTART_COUNT": "2",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environ, "cwd": HERE}
    return subprocess.Popen([sys.executable, "-c", RANK, folder, str(rank), what, str(ranks)], **pipes)


def end(process: subprocess.Popen) -> tuple[int, str]:
    said = process.communicate(timeout=250)
    return process.returncode, "".join(said)


@pytest.mark.parametrize(
    ("what", "at"),
    [
        ("sleeps", "computing"),
        ("sleeps under a clock that jumps", "computing"),
        ("loops", "computing"),
        ("reads", "waiting for data"),
    ],
)
def test_a_lone_rank_that_stands_still_ends(tmp_path, what, at):
    (tmp_path / ".heartbeat").mkdir()
    (tmp_path / ".heartbeat" / "hung-16-0").touch()  # of a start before, that hung too
    code, said = end(start(tmp_path, 0, what))
    assert [path.name for path in (tmp_path / ".heartbeat").glob("hung-*")] == ["hung-17-2"]
    assert code == 75 and "done" not in said
    error, told = said.splitlines()[-2:]
    assert error.startswith("error: no step for 1 s; this is rank 0 on node1 at step 3, ") and f"3, {at}" in error
    assert f"; rank 0 on node1: {at}, step 3. If that comes again, --exclude=node1; stacks" in error
    assert told == "train: the job is told"
    [stacks] = (tmp_path / "logs").glob("stacks-17-2-rank0-node1.txt")
    assert str(stacks) in error and "most recent call first" in stacks.read_text()
    assert "grippe" not in stacks.read_text()  # names of threads come from nowhere, nor do values


def test_storage_that_does_not_answer_keeps_no_rank_from_its_end(tmp_path):
    code, said = end(start(tmp_path, 0, "beats in vain", ranks=0))
    assert code == 75 and not list((tmp_path / "logs").iterdir()) and not (tmp_path / "hung").exists()
    error, told = said.splitlines()[-2:]
    assert (
        "at step 3, computing; the run folder's storage does not answer; stacks of its threads: could not be" in error
    )
    assert told.startswith("train: the job is not queued again, since its run folder does not answer; start")


def test_a_log_that_takes_no_line_keeps_no_rank_from_its_end(tmp_path):
    # by a thread of its own, or by the sentinel where that was late
    assert end(start(tmp_path, 0, "logs in vain")) in ((1, ""), (-9, ""))


def test_the_rank_that_others_wait_for_is_named_by_all_and_one_tells_the_job(tmp_path):
    (tmp_path / "together").touch()
    ranks = [start(tmp_path, rank, what, 3) for rank, what in enumerate(("waits", "sleeps", "waits"))]
    ends = [end(rank) for rank in ranks]
    assert [code for code, _ in ends] == [75] * 3
    for number, (_, said) in enumerate(ends):
        assert f"this is rank {number} on node{number + 1} at step 3" in said
        assert "; rank 1 on node2: computing, step 3. If that comes again, --exclude=node2" in said, said
    assert "waiting for the others in 'sum of gradients'" in ends[0][1]
    assert len((tmp_path / "hung").read_text().splitlines()) == 1


def test_a_rank_that_is_held_up_on_the_way_to_a_collective_is_named(tmp_path):
    (tmp_path / "together").touch()
    ends = [end(rank) for rank in [start(tmp_path, 0, "waits", 2), start(tmp_path, 1, "on the way", 2)]]
    assert all(
        "; rank 1 on node2: waiting for data, waiting for the others in 'sum', step 3" in said for _, said in ends
    )


def test_a_rank_that_is_stopped_is_named_by_the_others(tmp_path):
    stopped, other = start(tmp_path, 0, "waits", 2), start(tmp_path, 1, "waits", 2)
    wait_for(lambda: all(said.get("step") == 3 for said in beats(tmp_path).values()) and len(beats(tmp_path)) == 2)
    stopped.send_signal(signal.SIGSTOP)
    code, said = end(other)
    assert code == 75 and "; rank 0 on node1: stopped answering at step 3" in said
    stopped.kill()
    stopped.communicate()


@pytest.mark.parametrize(("what", "expected"), [("is left", 75), ("is left at once", 1)])
def test_a_rank_that_did_not_come_is_named_however_busy_this_one_was_meanwhile(tmp_path, what, expected):
    """A stopped process is known by the time since the ranks last met, which rank 0 may spend on its files; one that
    has died shows at once.
    """
    (tmp_path / ".heartbeat").mkdir()
    (tmp_path / ".heartbeat" / "1-node2").write_text('{"beat": 7, "step": 3, "at": "computing", "idle": 1, "waits": 0}')
    code, said = end(start(tmp_path, 0, what, ranks=2))
    assert code == expected, said
    assert ("rank 1 on node2: stopped answering at step 3" in said) == (expected == 75)


@pytest.mark.parametrize("what", ["works", "stalls"])
def test_no_alarm_where_there_is_progress(tmp_path, what):
    """Batches of an evaluation are progress; and what is no step may take longer, as may steps within the limit,
    whatever the clock says."""
    code, said = end(start(tmp_path, 0, f"{what} under a clock that jumps"))
    assert (code, said) == (0, "done\n") and not list((tmp_path / "logs").iterdir())


def test_time_in_which_the_whole_job_was_stopped_does_not_count(tmp_path):
    """As `scontrol suspend` does it, the sentinel's too."""
    rank = start(tmp_path, 0, "stalls")
    wait_for(lambda: any(said.get("step") == 4 for said in beats(tmp_path).values()))
    both = [psutil.Process(rank.pid), *psutil.Process(rank.pid).children()]
    assert len(both) == 2
    for process in both:
        process.send_signal(signal.SIGSTOP)
    time.sleep(4)  # longer than the limit
    for process in both:
        process.send_signal(signal.SIGCONT)
    assert end(rank) == (0, "done\n")


def test_a_rank_that_cannot_act_itself_is_ended_by_its_sentinel(tmp_path):
    """Stopped, or in a function of C that keeps Python's lock: its watchdog does not run."""
    kinds = {"is stopped": r"\(stopped\)", "keeps the lock": r"\([a-z ]+\)", "is stopped, another acts": r"\(stopped\)"}
    ranks = {}
    for what in kinds:
        (tmp_path / what).mkdir()
        ranks[what] = start(tmp_path / what, 0, what)
    for what, state in kinds.items():
        code, said = end(ranks[what])
        waited = time.time() - (tmp_path / what / "again").stat().st_mtime
        assert waited > MIN_STANDS_S - 0.5 or "another" not in what, "srun would have ended the one that acts"
        who = r"rank 0 on node1: stopped answering at step 3\. If that comes again, --exclude=node1"
        reason = rf"no step for \d+ s; its process stands still {state}; {who}"
        assert code == -signal.SIGKILL and re.search(rf"^error: {reason}$", said, re.M), said
        assert re.fullmatch(rf"3\|{reason}\|", (tmp_path / what / "again").read_text())


def test_a_sentinel_passes_over_what_is_no_word():
    """Where a rank has no stderr, its pipe may have that number, and libraries of C write there."""
    rank = (
        "import os; from jobs.distributed.sentinel import Sentinel; sentinel = Sentinel('rank 0 on node1', []);"
        "os.write(sentinel.pipe, b'libc: no word\\n7\\n\\xff\\n'); sentinel.tell(end=0.1); sentinel.process.wait()"
    )
    ended = subprocess.run([sys.executable, "-c", rank], cwd=HERE, capture_output=True)
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL, b"")


@pytest.mark.parametrize("where", ["plain shell", "step", "step without scancel", "submitit on this machine"])
def test_who_can_not_even_be_killed_is_said_with_what_becomes_of_its_job(where, monkeypatch, capfd):
    """By a system that kills nobody, and a rank that never goes."""
    killed, asked = [], []
    for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SUBMITIT_EXECUTOR", "ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    if where.startswith("step"):
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        monkeypatch.setenv("SLURM_STEP_ID", "0")
    if where.startswith("submitit"):
        monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setattr(sentinel.os, "kill", lambda process, number: killed.append(process))
    monkeypatch.setattr(sentinel.os, "getppid", lambda: os.getpid())
    monkeypatch.setattr(sentinel, "parent_of", lambda _: 4711)
    monkeypatch.setattr(sentinel, "ask", asked.append)
    monkeypatch.setattr(sentinel, "KILLED_WITHIN", 0.0)
    monkeypatch.setattr(sentinel, "OTHERS_FIRST", 0.0)
    sentinel.end(os.getpid(), "rank 0 on node1", "scancel" if where == "step" else None)
    said = capfd.readouterr().err
    assert said.startswith(
        f"error: rank 0 on node1: the system does not let its process {os.getpid()} go, it waits for"
    )
    assert ("its job ends without it" in said) == bool(asked or killed[1:])
    assert ("You may close this terminal" in said) == (where == "plain shell")
    assert ("no scancel here: cancel job 17 elsewhere" in said) == (where == "step without scancel")
    assert asked == [["scancel", "--signal=KILL", "17.0"]] * (where == "step")
    assert killed == [os.getpid()] + [4711] * where.startswith("submitit")


# --- the limit


def test_the_limit_is_found_from_the_steps(tmp_path, monkeypatch):
    monkeypatch.delenv("HTR_STEP_TIMEOUT", raising=False)
    activity = Activity()
    dog = Watchdog(tmp_path, 0, "node1", str, print, activity)
    assert dog.limit() == LONGEST_START  # the first step compiles, reads, finds its kernels
    activity.took(1)
    dog.lasted.extend([0.1, 0.2])
    assert dog.limit() == MIN_LIMIT_S
    dog.lasted.extend([2.0, 30.0, 4.0])
    assert dog.limit() == TIMES * 30.0
    with activity.during("writing a checkpoint"):
        assert dog.limit() == LONGER * TIMES * 30.0
    monkeypatch.setenv("HTR_STEP_TIMEOUT", "40")
    dog = Watchdog(tmp_path, 0, "node1", str, print, activity)
    assert dog.limit() == 40
    with activity.during("evaluating"):
        assert dog.limit() == LONGER * 40
    with activity.during("rank 0's files"):  # a line of the log: a rank may hang there as at any other place
        assert dog.limit() == 40


def test_what_is_no_step_does_not_make_steps_seem_long():
    activity = Activity()
    activity.took(1)
    with activity.during("evaluating"), activity.during("rank 0's files"):
        assert activity.at == "evaluating"  # what is inside another is not said
        time.sleep(0.2)
    activity.took(2)
    assert activity.lasted < 0.1 and activity.at == "waiting for data"


def test_whom_to_blame_is_waited_for_as_long_as_it_is_watched(tmp_path, monkeypatch):
    """However short the limit is: who lives is seen to beat only in so many seconds."""
    monkeypatch.setattr(heartbeat, "WATCH_S", 0.3)
    monkeypatch.setattr(watchdog, "MIN_STORAGE", 0.2)
    monkeypatch.setenv("HTR_STEP_TIMEOUT", "1")

    def blame(folder: Path) -> tuple[list, str]:
        time.sleep(heartbeat.WATCH_S)
        return [(1, "node2", "asleep")], "; rank 1"

    monkeypatch.setattr(heartbeat, "blame", blame)
    assert Watchdog(tmp_path, 0, "node1", str, print, Activity()).look()[1] == "; rank 1"


def test_a_limit_that_is_no_number(monkeypatch):
    for what in ("soon", "-1", "inf", "nan", "1e3", "²"):
        monkeypatch.setenv("HTR_STEP_TIMEOUT", what)
        with pytest.raises(ValueError, match=f"HTR_STEP_TIMEOUT='{what}' is not a number of seconds"):
            watchdog.asked()


# --- heartbeats


def write(folder: Path, rank: int, host: str, **said) -> None:
    (folder / ".heartbeat").mkdir(exist_ok=True)
    told = {"beat": 1, "step": 7, "at": "computing", "idle": 30.0, "waits": True} | said
    (folder / ".heartbeat" / f"{rank}-{host}").write_text(json.dumps(told))


def test_it_beats_until_it_ends_and_forgets_an_earlier_start(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_INTERVAL_S", 0.01)
    write(tmp_path, 0, "gone")
    with Heartbeat(tmp_path, 0) as ours:
        assert not (tmp_path / ".heartbeat" / "0-gone").exists()
        wait_for(lambda: beats(tmp_path).get((0, socket.gethostname()), {}).get("beat", 0) > 3)
    wait_for(lambda: not ours.path.exists())


def test_ranks_that_are_no_more_are_forgotten_by_the_first_one(tmp_path):
    for rank in range(5):
        write(tmp_path, rank, "node", idle=1800.0, waits=False)
    with Heartbeat(tmp_path, 1, ranks=3):  # the others forget their own
        assert {rank for rank, _ in beats(tmp_path)} >= {0, 2, 3, 4}
    with Heartbeat(tmp_path, 0, ranks=3):
        assert {rank for rank, host in beats(tmp_path) if host == "node"} == {2}


@pytest.mark.parametrize(
    "content", ["", "7", "{}", '{"idle": 90.0}', '{"beat": 1, "step": "x", "at": 1, "idle": "x"}', "é"]
)
def test_a_damaged_heartbeat_says_nothing_and_harms_nobody(tmp_path, content):
    write(tmp_path, 0, "node0", waits=False)
    write(tmp_path, 1, "node1")
    for name in ("2-node2", "3x-node3"):
        (tmp_path / ".heartbeat" / name).write_bytes(content.encode("latin-1"))
    assert set(beats(tmp_path)) == {(0, "node0"), (1, "node1"), (2, "node2")} and beats(tmp_path)[2, "node2"] == {}
    assert blame(tmp_path, watch=0)[0][0] == (0, "node0", "stopped answering at step 7")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),  # all wait for each other: nobody stands out
        ({"waits": False}, "; rank 3 on gpu-1.site: computing, step 7. If that comes again, --exclude=gpu-1.site"),
        ({"step": 6}, ""),  # it waits as well
        ({"step": 6, "waits": False, "at": "waiting for data (train-00001.tar)"},
         "; rank 3 on gpu-1.site: waiting for data (train-00001.tar), step 6. If that"),
    ],
)  # fmt: skip
def test_who_keeps_the_others_waiting(tmp_path, monkeypatch, changes, expected):
    for rank, host in ((0, "gpu-0.site"), (3, "gpu-1.site")):
        write(tmp_path, rank, host, **(changes if rank else {}))
    counts = iter(range(2, 100))

    def beat(_: float) -> None:
        for rank, host in ((0, "gpu-0.site"), (3, "gpu-1.site")):
            write(tmp_path, rank, host, beat=next(counts), **(changes if rank else {}))

    monkeypatch.setattr(heartbeat.time, "sleep", beat)
    assert blame(tmp_path)[1].startswith(expected) and bool(blame(tmp_path)[1]) == bool(expected)


def test_stopped_is_who_does_not_beat_whatever_the_clocks_say(tmp_path, monkeypatch):
    for rank in range(3):
        write(tmp_path, rank, f"node{rank}", waits=rank != 1)
        os.utime(tmp_path / ".heartbeat" / f"{rank}-node{rank}", (0, 0) if rank else (2e9, 2e9))
    monkeypatch.setattr(heartbeat.time, "sleep", lambda _: [write(tmp_path, n, f"node{n}", beat=2) for n in (0, 1)])
    assert blame(tmp_path)[0] == [(2, "node2", "stopped answering at step 7")]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    with Heartbeat(tmp_path / "missing" / "folder", 0):
        assert beats(tmp_path / "missing") == {} and blame(tmp_path / "missing", 0) == ([], "")
