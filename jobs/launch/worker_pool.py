"""The worker processes of a task that works in parts."""

import concurrent.futures
import multiprocessing
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from jobs.distributed.watchdog import end_after, live_on

END_AFTER_S = 75.0  # limit for `end_after`: half a minute later this process has ended


@contextmanager
def worker_pool(workers: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """After an error in the block what waits is not begun any more. Raises BrokenProcessPool where a worker died; or
    ends this process within half a minute, where another worker then waits for storage and no signal reaches it.
    """
    # forkserver: a worker that is killed is noticed, and none inherits threads
    context = multiprocessing.get_context("forkserver")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield pool
        except BaseException as error:
            is_broken = isinstance(error, BrokenProcessPool)
            if is_broken:
                end_after(END_AFTER_S)
            pool.shutdown(wait=True, cancel_futures=True)
            if is_broken:
                live_on()
            raise
