"""One of many tasks works, the others wait, and nobody waits for the dead."""

import itertools
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from beating import beating
from bed import wait_for

from shards import claim as claims
from shards.claim import hold, take_turns

CHECKOUT = Path(__file__).parents[2]


def test_one_works_and_all_have_the_result(tmp_path):
    done, worked = tmp_path / "done", []

    def work() -> None:
        worked.append(threading.get_ident())
        time.sleep(0.1)
        done.touch()

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(take_turns, tmp_path / "claim", done.exists, work, 9, 0.01)
    assert len(worked) == 1 and list(tmp_path.iterdir()) == [done]
    take_turns(tmp_path / "claim", done.exists, lambda: pytest.fail("it was done"))


def test_what_was_done_just_before_the_claim_was_ours_is_not_done_again(tmp_path):
    answers = iter([False, True])
    take_turns(tmp_path / "claim", lambda: next(answers), lambda: pytest.fail("it was done"))
    assert not list(tmp_path.iterdir())


def test_the_dead_are_succeeded_and_the_living_waited_for(tmp_path, monkeypatch):
    claim, done = tmp_path / "claim", tmp_path / "done"
    claim.touch()
    os.utime(claim, (time.time() - 100,) * 2)
    take_turns(claim, done.exists, done.touch, stale=1, poll=0.01)  # of a holder that died
    done.unlink()
    looks, modified = [], claims.modified
    monkeypatch.setattr(claims, "modified", lambda path: looks.append(path) or modified(path))
    with hold(claim, 0.02) as held:
        assert held
        os.utime(claim, (0, 0))
        wait_for(lambda: modified(claim) > 0)  # its heart beats
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(take_turns, claim, done.exists, lambda: pytest.fail("took over"), 60, 0.01)
            wait_for(lambda: len(looks) >= 5)
            assert not waiting.done()
            done.touch()
            waiting.result()
    assert list(tmp_path.iterdir()) == [done]


def test_a_process_that_was_killed_on_this_node_is_succeeded_at_once(tmp_path):
    claim, done = tmp_path / "claim", tmp_path / "done"
    code = "import sys, pathlib, shards.claim\nwith shards.claim.hold(pathlib.Path(sys.argv[1]), 9):\n    print()\n"
    command = [sys.executable, "-uc", code + "    input()", str(claim)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CHECKOUT) as holder:
        holder.stdout.readline()
        assert not claims.died_here(claim)
        holder.kill()
    take_turns(claim, done.exists, done.touch, stale=1e6, poll=0)
    assert list(tmp_path.iterdir()) == [done]
    claim.write_text(f"another-node {holder.pid} {claims.namespace()}")
    assert not claims.died_here(claim)


ASK = "import sys, pathlib; from shards.claim import died_here; print(died_here(pathlib.Path(sys.argv[1])))"


def test_a_container_of_this_node_has_other_process_ids(tmp_path):
    """The same host name, and a process of that number is another one there, or none: it says nothing of the holder."""
    claim = tmp_path / "claim"
    own = ["unshare", "--user", "--map-root-user"] * bool(os.geteuid()) or ["unshare"]
    container = [*own, "--pid", "--fork", "--mount-proc", sys.executable, "-c", ASK, str(claim)]
    with hold(claim, 9):  # by this process, which has another number in there
        inside = subprocess.run(container, cwd=CHECKOUT, capture_output=True, text=True)
        assert inside.stdout == "False\n", inside.stderr
    host, pid, of = f"{os.uname().nodename} {2**22 + 1} {claims.namespace()}".split()
    claim.write_text(f"{host} {pid} {of}")
    assert claims.died_here(claim)
    for other in (of.replace("pid:[", "pid:[1"), f"0{of}"):  # a container's, and that of a kernel started before
        claim.write_text(f"{host} {pid} {other}")
        assert not claims.died_here(claim)


def test_a_node_whose_clock_is_wrong(tmp_path, monkeypatch):
    """Times are compared by the clock of the storage alone."""
    claim, done = tmp_path / "claim", tmp_path / "done"
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with hold(claim, 0.02), ThreadPoolExecutor() as pool:
        waiting = pool.submit(take_turns, claim, done.exists, lambda: pytest.fail("took over"), 60, 0.01)
        time.sleep(0.1)
        done.touch()
        waiting.result()


def test_a_claim_that_was_taken_over_is_not_removed_by_the_first_holder(tmp_path):
    claim = tmp_path / "claim"
    with hold(claim, 9) as first:
        claims.remove(claim)
        with hold(claim, 9) as second:
            assert first and second
        claim.write_text("a third one's")
    assert claim.read_text(encoding="utf-8") == "a third one's"
    with hold(claim, 9) as fourth:
        assert not fourth


def test_a_fault_of_the_input_is_everyones(tmp_path, monkeypatch):
    tried, waiters, clock = [], set(), claims.clock
    monkeypatch.setattr(claims, "clock", lambda claim: waiters.add(threading.get_ident()) or clock(claim))

    def fail() -> None:
        tried.append(1)
        if len(tried) == 1:
            wait_for(lambda: len(waiters) == 7)  # all the others look on
            time.sleep(0.3)  # the storage's clock has ticks
        raise ValueError("the table has no rows")

    def attempt(_) -> str:
        with pytest.raises(ValueError) as error:
            take_turns(tmp_path / "claim", lambda: False, fail, 9, 0.01)
        return str(error.value)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(attempt, range(8))) == {"the table has no rows"}
    assert len(tried) < 8  # whoever came while it was tried did not try again
    before = len(tried)
    attempt(0)  # later on the fault may have been mended
    assert len(tried) == before + 1
    done = tmp_path / "done"
    take_turns(tmp_path / "claim", done.exists, done.touch)
    assert list(tmp_path.iterdir()) == [done]


def test_a_fault_of_the_machine_is_not(tmp_path):
    """A disk that is full on one node: the next one tries."""
    done, tried = tmp_path / "done", []

    def work() -> None:
        tried.append(1)
        time.sleep(0.1)
        if len(tried) == 1:
            raise OSError("disk")
        done.touch()

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(take_turns, tmp_path / "claim", done.exists, work, 9, 0.01) for _ in range(4)]
        failed = [job for job in jobs if job.exception()]
    assert len(failed) == 1 and len(tried) == 2 and list(tmp_path.iterdir()) == [done]


@pytest.mark.parametrize("off", [-7200, 7200])
def test_who_is_seen_to_beat_lives_though_its_clock_is_two_hours_off(tmp_path, off):
    """Where the storage stamps files by the clock of who writes them; and who does not beat is left all the same."""
    claim, done = tmp_path / "claim", tmp_path / "done"
    claim.touch()
    os.utime(claim, (time.time() + off,) * 2)
    with ThreadPoolExecutor() as pool:
        with beating(claim, off):
            waiting = pool.submit(take_turns, claim, done.exists, done.touch, 2, 0.01)
            time.sleep(3)
            assert not waiting.done() and not done.exists()
        waiting.result()
    assert list(tmp_path.iterdir()) == [done]


def test_of_many_claims_those_are_abandoned_that_nobody_is_seen_to_beat(tmp_path):
    alive, gone = tmp_path / "alive", tmp_path / "gone"
    for claim in (alive, gone):
        claim.write_text("another-node 1")
        os.utime(claim, (time.time() + 7200,) * 2)
    with beating(alive):
        assert claims.abandoned([alive], 600) == set()  # at its first beat
        assert claims.abandoned([alive, gone, tmp_path / "none"], 2) == {gone}


def test_what_cannot_be_asked_any_more_is_said_and_the_others_are_watched_on(tmp_path, monkeypatch):
    """ESTALE of NFS, as a rule. One answer that fails does not make a file one that does not beat."""
    answers = {
        "beats": iter([1.0, OSError(116, "Stale file handle"), 2.0]),
        "fails": itertools.chain([1.0], itertools.repeat(OSError(116, "Stale file handle"))),
        "silent": itertools.repeat(1.0),
    }

    def modified(path: Path) -> float:
        answer = next(answers[path.name])
        if isinstance(answer, OSError):
            raise answer
        return answer

    ticks = itertools.count()
    monkeypatch.setattr(claims, "time", SimpleNamespace(sleep=lambda _: None, monotonic=lambda: next(ticks)))
    monkeypatch.setattr(claims, "modified", modified)
    unknown: dict[Path, OSError] = {}
    beating = claims.seen_to_beat([tmp_path / name for name in answers], 5, unknown)
    assert (beating, set(unknown)) == ({tmp_path / "beats"}, {tmp_path / "fails"})
    answers["fails"] = itertools.chain([1.0], itertools.repeat(OSError(116, "Stale file handle")))
    with pytest.raises(OSError, match="Stale file handle"):
        claims.seen_to_beat([tmp_path / "fails"], 5)
