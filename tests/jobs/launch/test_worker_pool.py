"""Worker processes of a task: one that dies ends it, whatever another one waits for, and they end with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
TASK = """
import os, signal, sys, time
from pathlib import Path

folder = Path(sys.argv[1])

def hear_nothing():  # as one that waits for storage where no signal reaches it
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / "deaf.tmp").write_text(str(os.getpid()))
    (folder / "deaf.tmp").rename(folder / "deaf")
    time.sleep(10000)

def die():
    while not (folder / "deaf").exists():
        time.sleep(0.02)
    os._exit(75)

if __name__ == "__main__":
    from jobs.launch import worker_pool
    worker_pool.END_AFTER_S = 20.0  # eight seconds
    with worker_pool.worker_pool(2) as pool:
        for job in [pool.submit(hear_nothing), pool.submit(die)][::-1]:
            job.result()
"""
KILLED = """
import os, signal

if __name__ == "__main__":
    from jobs.launch.worker_pool import worker_pool
    with worker_pool(2) as pool:
        pool.submit(os.getpid).result()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_of_a_task_that_was_killed_end(tmp_path):
    """Else they wait for jobs for ever, where no Slurm takes them away. They hold the pipe that is read here."""
    (tmp_path / "task.py").write_text(KILLED)
    environ = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, tmp_path / "task.py"], env=environ, stdout=subprocess.PIPE, start_new_session=True
    ) as task:
        try:
            assert task.communicate(timeout=250) == (b"", None) and task.returncode == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            os.killpg(task.pid, signal.SIGKILL)
            raise


def test_a_worker_that_died_ends_the_task_though_another_one_hears_no_signal(tmp_path):
    (tmp_path / "task.py").write_text(TASK)
    environ = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, tmp_path / "task.py", tmp_path]
    try:
        done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert done.returncode == 1
    finally:
        os.kill(int((tmp_path / "deaf").read_text()), signal.SIGKILL)
