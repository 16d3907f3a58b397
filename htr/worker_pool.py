"""Worker processes, as all rooms use them.

    for made in each_in_order(make, items, workers): …      # here, or in so many processes
    with worker_pool(workers) as pool: pool.submit(make, item) …

They end with the process that has them, also when it is killed. It ends where one of them dies, with one line of why.
Ctrl-C, which reaches all processes of a terminal, ends their jobs, and is said by that process alone.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool, _ExecutorManagerThread
from contextlib import contextmanager, nullcontext
from multiprocessing import forkserver, get_context, parent_process, resource_tracker

from htr.process_end import end_after, live_on

END_AFTER_S = 75.0  # limit for `end_after`: half a minute later this process has ended
DIED = (
    "a worker process of this task ended early: it made no progress (then a line above says so), or it was killed, as "
    "the system does where memory is short (fewer workers need less). Nothing half written is kept: the same command "
    "does what is missing"
)


class WatchedPool(ProcessPoolExecutor):
    """A pool that sees the death of each of its workers, whenever they die.

    CPython (3.11 to 3.13) starts workers one by one, as jobs come, while a thread watches those that there are. It
    knew nothing of the worker that was started last until something else happened. And where a worker died while the
    next one was started, the thread ended those that it knew, and then waited for the end of the new one, in vain. So
    all are started before the thread and the first job, as CPython itself does where workers are forked.
    """

    def __init__(self, workers: int, *how: object):
        super().__init__(workers, *how)
        self._safe_to_dynamically_spawn_children = False

    @property
    def _broken(self) -> str | bool:
        return self.is_broken

    @_broken.setter
    def _broken(self, why: str | bool) -> None:
        """By the thread, before it tells all jobs of the death: one that is just being handed out is told, too. Newer
        CPython does it so itself: it has the lock then."""
        with nullcontext() if hasattr(_ExecutorManagerThread, "_terminate_broken") else self._shutdown_lock:
            self.is_broken = why

    def submit(self, fn, /, *args, **kwargs) -> Future:
        return super().submit(do_job, fn, *args, **kwargs)

    def map(self, do: Callable, items: Sequence, chunksize: int = 1) -> Iterator:
        """do(item) for each item, in their order; a job is `chunksize` of them.

        That of Python itself cancels jobs when it ends early: its watching thread then dies of one that is cancelled
        while it tells all of a worker's death, and the other workers are waited for in vain.
        """
        jobs = deque(self.submit(do_all, do, items[at : at + chunksize]) for at in range(0, len(items), chunksize))
        while jobs:
            yield from jobs.popleft().result()


@contextmanager
def worker_pool(workers: int, begin: Callable[[], object] | None = None) -> Iterator[WatchedPool]:
    """After an error in the block what waits is not begun any more. Raises BrokenProcessPool where a worker died. After
    that, or Ctrl-C, this process ends within half a minute where a worker waits for storage and no signal reaches it.
    `begin`: what each worker does first.
    """
    start_server()
    context = get_context("forkserver")  # a worker that is killed is noticed, and none inherits threads
    stop = context.RawValue("b", 0)
    with WatchedPool(workers, context, begin_worker, (begin, stop)) as pool:
        try:
            yield pool
        except BaseException as error:
            stop.value = 1
            bounded = isinstance(error, BrokenProcessPool | KeyboardInterrupt)
            if bounded:
                end_after(END_AFTER_S)
            pool.shutdown(wait=True, cancel_futures=True)
            if bounded:
                live_on()
            if isinstance(error, BrokenProcessPool):
                raise BrokenProcessPool(DIED) from error
            raise


def each_in_order(
    do: Callable, items: Sequence, workers: int, begin: Callable[[], object] | None = None, chunksize: int = 1
) -> Iterator:
    """do(item) for each item, in their order: in this process, or in `workers` others, which do `begin` first."""
    if workers <= 1:
        yield from map(do, items)
        return
    with worker_pool(min(workers, max(-(-len(items) // chunksize), 1)), begin) as pool:
        yield from pool.map(do, items, chunksize)


def start_server() -> None:
    """The process that workers are forked from. Ctrl-C is blocked there from its first moment on, and so in a worker
    until it passes over it itself: else the one that is just starting would write its stack to the terminal.
    """
    resource_tracker.ensure_running()  # it unblocks what it blocks for itself: so it comes first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in a worker


class Job:
    """Of this process: whether it is at a job, and whether jobs are over, as its parent (`stop`) or Ctrl-C says."""

    stop = None
    is_under_way = is_interrupted = False


def begin_worker(begin: Callable[[], object] | None, stop) -> None:
    """Before its first job. `stop`: shared with the parent, whose `value` is 1 once jobs are over."""
    Job.stop = stop
    signal.signal(signal.SIGINT, interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=end_with_parent, daemon=True, name="end with parent").start()
    if begin:
        begin()


def end_with_parent() -> None:
    """A worker of one that was killed would wait for jobs for ever: it holds the pipe itself that they come through."""
    parent_process().join()
    os._exit(1)


def interrupt(*_: object) -> None:
    """Ctrl-C ends a job, and never the worker, which would look like one that was killed."""
    Job.is_interrupted = True
    if Job.is_under_way:
        raise KeyboardInterrupt


def do_job(do: Callable, /, *args, **kwargs):
    """Do a job, unless jobs are over: the pool hands out a few beforehand, which it can't take back."""
    Job.is_under_way = True
    try:
        if Job.is_interrupted or Job.stop.value:
            raise KeyboardInterrupt
        return do(*args, **kwargs)
    finally:
        Job.is_under_way = False


def do_all(do: Callable, items: Sequence) -> list:
    return [do(item) for item in items]
