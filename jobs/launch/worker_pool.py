"""The worker processes of a task that works in parts."""

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from jobs.distributed.watchdog import end_after, live_on

END_AFTER_S = 75.0  # limit for `end_after`: half a minute later this process has ended
DIED = (
    "a worker process of this task ended early: it made no progress (then a line above says so), or it was killed, as "
    "the system does where memory is short (then give fewer --workers). What is whole is kept: the same command does "
    "the rest"
)


class WatchedPool(concurrent.futures.ProcessPoolExecutor):
    """A pool that sees the death of each of its workers.

    CPython (3.11 to 3.13) wakes the thread that watches the workers before it starts a new one. So this thread knew
    nothing of the worker that was started last, until something else happened; and where all others wait for storage
    nothing does. Therefore each job is followed by one that does nothing: it wakes the thread again.
    """

    def submit(self, fn, /, *args, **kwargs) -> concurrent.futures.Future:
        job = super().submit(fn, *args, **kwargs)
        super().submit(int)
        return job


def begin_worker(begin: Callable[[], None] | None) -> None:
    """In each worker, before its first job."""
    threading.Thread(target=end_with_parent, daemon=True, name="end with parent").start()
    if begin:
        begin()


def end_with_parent() -> None:
    """A worker of one that was killed would wait for jobs for ever: it holds the pipe itself that they come through."""
    multiprocessing.parent_process().join()
    os._exit(1)


@contextmanager
def worker_pool(
    workers: int, begin: Callable[[], None] | None = None
) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """After an error in the block what waits is not begun any more. Raises BrokenProcessPool where a worker died; or
    ends this process within half a minute, where another worker then waits for storage and no signal reaches it.
    `begin`: what each worker does first.
    """
    # forkserver: a worker that is killed is noticed, and none inherits threads
    context = multiprocessing.get_context("forkserver")
    with WatchedPool(workers, context, begin_worker, (begin,)) as pool:
        try:
            yield pool
        except BaseException as error:
            is_broken = isinstance(error, BrokenProcessPool)
            if is_broken:
                end_after(END_AFTER_S)
            pool.shutdown(wait=True, cancel_futures=True)
            if is_broken:
                live_on()
                raise BrokenProcessPool(DIED) from error
            raise
