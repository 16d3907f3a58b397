"""Worker processes end with the one that has them, and one that dies ends it, whatever another one waits for. Ctrl-C is
said by that process alone."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool, _ExecutorManagerThread
from multiprocessing import get_context
from pathlib import Path

import pytest
from bed import wait_for

from htr.worker_pool import WatchedPool

CHECKOUT = Path(__file__).parents[2]
# two jobs of two workers, the second begins with both
TASK = """
import os, signal, sys, time
from pathlib import Path

folder, what = Path(sys.argv[1]), sys.argv[2]

def hear_nothing():  # as one that waits for storage where no signal reaches it
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / "deaf.tmp").write_text(str(os.getpid()))
    (folder / "deaf.tmp").rename(folder / "deaf")
    time.sleep(10000)

def die(number):
    while not (folder / "deaf").exists():
        time.sleep(0.02)
    os._exit(75)

def be_stopped(number):
    from htr.worker_pool import Job
    (folder / f"begun-{number}").touch()
    while not Job.stop.value:
        time.sleep(0.02)

def wait(number):
    (folder / f"begun-{number}").touch()
    time.sleep(10000)

def main():
    from htr import process_end, worker_pool
    if what == "is killed":
        with worker_pool.worker_pool(2) as pool:
            pool.submit(os.getpid).result()
            os.kill(os.getpid(), signal.SIGKILL)
    if what == "loses a worker":
        process_end.MIN_END_S = worker_pool.END_AFTER_S = 2.0
        with worker_pool.worker_pool(2) as pool:
            for job in [pool.submit(hear_nothing), pool.submit(die, 0)][::-1]:
                job.result()
    if what == "fails":
        with worker_pool.worker_pool(2) as pool:
            for number in range(9):
                pool.submit(be_stopped, number)
            while not all((folder / f"begun-{number}").exists() for number in range(2)):
                time.sleep(0.02)
            raise ValueError("no data")
    if what == "is interrupted":
        for _ in worker_pool.each_in_order(wait, range(9), 2):
            pass
    if what == "loses one while another is started":
        process_end.MIN_END_S = worker_pool.END_AFTER_S = 2.0
        spawn = worker_pool.WatchedPool._spawn_process
        def slowly(pool):  # until the one before has died of its job, if it was given one
            while pool._processes and pool._executor_manager_thread and not pool._broken:
                time.sleep(0.02)
            spawn(pool)
        worker_pool.WatchedPool._spawn_process = slowly
        (folder / "deaf").touch()
        for _ in worker_pool.each_in_order(die, range(300), 2):
            pass
    if what == "loses one of many":
        (folder / "deaf").touch()
        for _ in worker_pool.each_in_order(die, range(300), 2):
            pass

if __name__ == "__main__":
    try:
        main()
    except BaseException as error:
        print(type(error).__name__, error, file=sys.stderr)
"""


def start(folder: Path, what: str) -> subprocess.Popen:
    (folder / "task.py").write_text(TASK)
    environ = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "stdin": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, folder / "task.py", folder, what], env=environ, **pipes, process_group=0)


def said(task: subprocess.Popen) -> str:
    """Once it and all of its workers have ended: they hold the pipe that is read here."""
    try:
        out, error = task.communicate(timeout=250)
        assert out == ""
        return error
    except subprocess.TimeoutExpired:
        os.killpg(task.pid, signal.SIGKILL)
        raise


def test_workers_of_a_task_that_was_killed_end(tmp_path):
    """Else they wait for jobs for ever, where no Slurm takes them away."""
    task = start(tmp_path, "is killed")
    told = said(task)  # Python tells of semaphores that it removes
    assert "Error" not in told and task.returncode == -signal.SIGKILL


def test_a_worker_that_died_ends_the_task_though_another_one_hears_no_signal(tmp_path):
    task = start(tmp_path, "loses a worker")
    try:
        assert task.wait() == 1
    finally:
        os.kill(int((tmp_path / "deaf").read_text()), signal.SIGKILL)
        task.communicate()


def test_a_worker_that_died_is_one_line_though_many_jobs_wait(tmp_path):
    """Those of `map` that wait are not cancelled one by one while the pool tells of the death."""
    told = said(start(tmp_path, "loses one of many"))
    assert told.startswith("BrokenProcessPool a worker process of this task ended early") and told.count("\n") == 1


def test_a_worker_that_dies_while_another_one_is_started_is_one_line_too(tmp_path):
    """The new one was waited for in vain, until the task ended without a word."""
    told = said(start(tmp_path, "loses one while another is started"))
    assert told.startswith("BrokenProcessPool a worker process of this task ended early") and told.count("\n") == 1


def test_a_job_that_is_handed_out_while_a_death_is_told_is_not_lost(monkeypatch):
    """It comes before the death is told, and then it is told too, or after it, and is refused."""
    monkeypatch.delattr(_ExecutorManagerThread, "_terminate_broken", raising=False)  # of newer Pythons
    with ThreadPoolExecutor() as threads, WatchedPool(1, get_context("forkserver")) as pool:
        with pool._shutdown_lock:  # as a job has it that is just being handed out
            told = threads.submit(setattr, pool, "_broken", "a worker died")
            with pytest.raises(TimeoutError):
                told.result(0.05)
            assert not pool._broken
        told.result()
        with pytest.raises(BrokenProcessPool):
            pool.submit(int)


def test_after_an_error_no_further_job_is_begun(tmp_path):
    """Not even one of those that the pool has handed out beforehand."""
    assert said(start(tmp_path, "fails")) == "ValueError no data\n"
    assert sorted(path.name for path in tmp_path.glob("begun-*")) == ["begun-0", "begun-1"]


def test_ctrl_c_is_said_by_the_task_alone(tmp_path):
    """All processes of the terminal get it, and no worker goes on to the next job."""
    task = start(tmp_path, "is interrupted")
    wait_for(lambda: all((tmp_path / f"begun-{number}").exists() for number in range(2)))
    os.killpg(task.pid, signal.SIGINT)
    assert said(task) == "KeyboardInterrupt \n"
    assert len(list(tmp_path.glob("begun-*"))) == 2
