"""The end of this process in bounded time, whatever of it hangs: a thread that waits for storage is never joined."""

import faulthandler
import os

END_WITHIN, MIN_END_S, MAX_END_S = 0.4, 8.0, 90.0  # of the limit, and within so many seconds: all of its end
ENDING: list = []  # of this process, once its end is sure: where that is written to


def end_after(limit: float) -> float | None:
    """The process ends before half of the limit (seconds) has passed once more: a thread of C sees to it, whatever else
    hangs with the storage, as a line on stderr may. The first such call counts. -> seconds until then; None of others.
    """
    if ENDING:
        return None
    ENDING.append(open(os.devnull, "wb"))  # noqa: SIM115
    seconds = min(max(END_WITHIN * limit, MIN_END_S), MAX_END_S)
    faulthandler.dump_traceback_later(seconds, exit=True, file=ENDING[0])
    return seconds


def live_on() -> None:
    """Take `end_after` back: what might have hung did not."""
    faulthandler.cancel_dump_traceback_later()
    while ENDING:
        ENDING.pop().close()
