"""Worker processes end with the one that has them, and one that dies ends it, whatever another one waits for. Ctrl-C is
said by that process alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from bed import wait_for

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


def test_after_an_error_no_further_job_is_begun(tmp_path):
    """Not even one of those that the pool has handed out beforehand."""
    assert said(start(tmp_path, "fails")) == "ValueError no data\n"
    assert sorted(path.name for path in tmp_path.glob("begun-*")) == ["begun-0", "begun-1"]


def test_ctrl_c_is_said_by_the_task_alone(tmp_path):
    """All processes of the terminal get it, and no worker goes on to the next job."""
    task = start(tmp_path, "is interrupted")
    wait_for(lambda: all((tmp_path / f"begun-{number}").exists() for number in range(2)), 200)
    os.killpg(task.pid, signal.SIGINT)
    assert said(task) == "KeyboardInterrupt \n"
    assert len(list(tmp_path.glob("begun-*"))) == 2
