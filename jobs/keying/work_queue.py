"""The work queue: rows are leased to operators, each to one at a time.

Rows are known by their rank, their place in the order. A lease ends with the answer, when its page says good-bye, or
LEASE_S after that page was heard of last: somebody else then gets the row. Nothing here is on disk: who has what is
forgotten with the server, what was answered is not.
"""

import heapq
import time
from collections.abc import Callable

LEASE_S = 600.0  # seconds


class WorkQueue:
    """`fresh`: tells whether the row of a rank has no answer yet; it is asked when the queue comes to the row."""

    def __init__(self, size: int, fresh: Callable[[int], bool], clock: Callable[[], float] = time.monotonic):
        self.size, self.fresh, self.clock = size, fresh, clock
        self.cursor = 0  # ranks before it were given out once
        self.returned: list[int] = []  # a heap of ranks before the cursor that nobody has any more
        self.again: dict[int, None] = {}  # ranks that want another person, in the order in which they came to
        self.holder: dict[int, str] = {}  # by rank, the tab that has it
        self.held: dict[str, dict[int, None]] = {}  # by tab, its ranks
        self.heard: dict[str, float] = {}  # by tab, when

    def hear(self, tab: str) -> None:
        self.heard[tab] = self.clock()

    def take(self, tab: str, count: int, wanted: Callable[[int], bool]) -> list[int]:
        """Up to `count` more ranks for this tab. `wanted`: tells whether its operator may answer the row."""
        self.hear(tab)
        self.expire()
        found: list[int] = []
        for rank in self.again:
            if len(found) == count:
                break
            if rank not in self.holder and wanted(rank):
                found.append(rank)
        for rank in found:
            del self.again[rank]
        passed = []
        while self.returned and len(found) < count:
            rank = heapq.heappop(self.returned)
            if self.fresh(rank):
                (found if wanted(rank) else passed).append(rank)
        for rank in passed:
            heapq.heappush(self.returned, rank)
        while self.cursor < self.size and len(found) < count:
            if self.fresh(self.cursor):
                found.append(self.cursor)
            self.cursor += 1
        for rank in found:
            self.lease(rank, tab)
        return found

    def lease(self, rank: int, tab: str) -> None:
        self.again.pop(rank, None)
        before = self.holder.get(rank)
        if before is not None and before != tab:
            self.held[before].pop(rank, None)
        self.holder[rank] = tab
        self.held.setdefault(tab, {})[rank] = None

    def release(self, rank: int, again: bool) -> None:
        """The row was answered. `again`: it needs another person."""
        tab = self.holder.pop(rank, None)
        if tab is not None:
            self.held[tab].pop(rank, None)
        self.again.pop(rank, None)
        if again:
            self.again[rank] = None

    def leave(self, tab: str) -> None:
        """The tab has closed: its rows go back into the queue."""
        for rank in self.held.pop(tab, {}):
            self.holder.pop(rank, None)
            self.give_back(rank)
        self.heard.pop(tab, None)

    def give_back(self, rank: int) -> None:
        if self.fresh(rank):
            if rank < self.cursor:
                heapq.heappush(self.returned, rank)
        else:
            self.again[rank] = None

    def expire(self) -> None:
        now = self.clock()
        for tab in [tab for tab, heard in self.heard.items() if now - heard > LEASE_S]:
            self.leave(tab)

    @property
    def in_hands(self) -> int:
        return len(self.holder)
