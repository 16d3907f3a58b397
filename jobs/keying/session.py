"""The session of a keyed table: rows handed to operators, answers, undo. Everything but HTTP.

session = Session(tables, journals)
tab = session.begin("Anne")
[item] = session.next(tab, 1)
session.answer(tab, id="…", row=item["row"], kind="text", text="grippe").result()     # on disk

A row is known to the page by its rank, its number in the order: it tells nobody which certificate it is.
"""

import secrets
import time
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from htr.certificate import person_key, single_spaced
from jobs.keying.answers import (
    ASK,
    COLLEAGUE,
    DONE,
    KINDS,
    OPEN,
    SECOND,
    SETTLE,
    TEXT,
    THIRD,
    Answer,
    Answers,
)
from jobs.keying.journal import Journal, read
from jobs.keying.order import ordered
from jobs.keying.tables import KeyTable
from jobs.keying.work_queue import WorkQueue

MAX_TEXT_LENGTH, MAX_NAME_LENGTH, MAX_TABS = 10_000, 60, 2000
MAX_WAIT_S = 3600.0  # seconds that a row can have taken somebody
AGAIN = (SECOND, THIRD, COLLEAGUE)


class Refused(ValueError):
    """What an operator asked for can't be done; `reason` is one word that the page has a sentence for."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Session:
    def __init__(
        self,
        tables: Sequence[KeyTable],
        journals: Sequence[Journal],
        order: str = "certificate",
        clock: Callable[[], float] = time.time,
    ):
        """A journal a table. Raises ValueError as `ordered` does, and for a journal of other rows."""
        self.tables, self.journals, self.clock = tables, journals, clock
        self.answers = [Answers(journal.records, table.double) for table, journal in zip(tables, journals, strict=True)]
        self.table_of, self.place_of, self.row_of = ranks_of(tables, order)
        self.rank_of = []
        for number, (table, answers) in enumerate(zip(tables, self.answers, strict=True)):
            rank_of = np.full(len(table.table), -1, np.int32)
            own = np.flatnonzero(self.table_of == number)
            rank_of[self.row_of[own]] = own
            if any(row >= len(rank_of) or rank_of[row] < 0 for row in answers.standing):
                raise ValueError(
                    f"{table.folder}: has answers to rows that this table lacks: is it the folder of another table?"
                )
            self.rank_of.append(rank_of)
        self.queue = WorkQueue(len(self.row_of), self.is_fresh)
        self.states: dict[int, str] = {}  # of the rows that have an answer
        self.look_at_answers()
        self.tabs: dict[str, str] = {}  # the operator of each
        self.flying: dict[str, Future] = {}  # answers that are not on disk yet

    def look_at_answers(self) -> None:
        """The states of all rows."""
        self.states.clear()
        for number, answers in enumerate(self.answers):
            for row in answers.standing:
                rank = int(self.rank_of[number][row])
                state = answers.state(row)
                if answers.standing[row]:
                    self.states[rank] = state
                if state in AGAIN:
                    self.queue.again[rank] = None
        self.done = list(self.states.values()).count(DONE)

    def forget_unsaved(self) -> None:
        """After the disk has failed: what could not be written was refused, and goes into no table either."""
        failed = [number for number, journal in enumerate(self.journals) if journal.failure]
        for number in failed:
            self.answers[number] = Answers(read(self.journals[number].path)[0], self.tables[number].double)
        if failed:
            self.look_at_answers()

    # ------------------------------------------------------------------------------------------ operators

    def begin(self, name: str) -> str:
        """-> a tab of this operator. Raises Refused for what is no name."""
        name = single_spaced(name)
        if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
            raise Refused("name")
        if len(self.tabs) >= MAX_TABS:  # pages that were closed without a word, as when the network was away
            self.queue.expire()
            self.tabs = {tab: by for tab, by in self.tabs.items() if tab in self.queue.heard}
        if len(self.tabs) >= MAX_TABS:
            raise Refused("crowded")
        tab = secrets.token_hex(8)
        self.tabs[tab] = name
        self.queue.hear(tab)
        return tab

    def operator(self, tab: str) -> str:
        if tab not in self.tabs:
            raise Refused("tab")
        return self.tabs[tab]

    def leave(self, tab: str) -> None:
        self.operator(tab)
        self.queue.leave(tab)
        del self.tabs[tab]

    # ------------------------------------------------------------------------------------------ rows

    def is_fresh(self, rank: int) -> bool:
        return rank not in self.states

    def next(self, tab: str, count: int) -> list[dict]:
        """Up to `count` more rows for this tab, which then has them."""
        name = self.operator(tab)

        def wanted(rank: int) -> bool:
            return self.answers[self.table_of[rank]].wants(int(self.row_of[rank]), name)

        return [self.item(rank) for rank in self.queue.take(tab, count, wanted)]

    def item(self, rank: int) -> dict:
        """What the page gets to know of a row: of a blind one no reading, in no form."""
        number, row = self.table_of[rank], int(self.row_of[rank])
        table, answers = self.tables[number], self.answers[number]
        known, role = table.row(row), answers.role(row)
        blind = bool(table.blind[self.place_of[rank]])
        found = {"row": rank, "field": known["field"], "line": known["line"], "reason": known["reject"]}
        found |= {"kind": table.kind, "role": role, "blind": blind, "notes": answers.notes(row)}
        found |= {"start": "", "words": [], "alternatives": []}
        if role == SETTLE:
            found["alternatives"] = [answer.written for answer in answers.keyed(row)[:2]]
        elif not blind:
            found |= table.shown(row)
        return found

    def answer(
        self, tab: str, *, id: str, row: int, kind: str, text: str = "", note: str = "", seconds: float = 0.0
    ) -> Future:
        """-> done once the answer is on disk. The same one sent again, after the network was away, is no other one.

        Raises Refused: a row that wants no answer of this operator any more, or a text that can't be stored.
        """
        name = self.operator(tab)
        self.queue.hear(tab)
        number, own = self.place(row)
        answers, table = self.answers[number], self.tables[number]
        if id in answers.by_id:
            if answers.by_id[id].row != own or answers.by_id[id].by != name:
                raise Refused("id")
            return self.flying.get(id) or finished()
        if kind not in KINDS or (kind == ASK and not note.strip()):
            raise Refused("kind")
        check_text(text)
        check_text(note)
        if not answers.wants(own, name):
            if self.queue.holder.get(row) == tab:
                self.queue.release(row, self.states.get(row) in AGAIN)
            raise Refused("answered")
        answer = Answer(
            id=id, row=own, kind=kind, text=text if kind == TEXT else "", note=note if kind == ASK else "", by=name,
            at=round(self.clock(), 3), seconds=round(min(max(seconds, 0.0), MAX_WAIT_S), 2), role=answers.role(own),
            blind=bool(table.blind[self.place_of[row]]),
        )  # fmt: skip
        done = self.keep(number, id, answer.record())
        state = answers.state(own)
        self.set_state(row, state)
        if self.queue.holder.get(row) in (None, tab):
            self.queue.release(row, state in AGAIN)
        return done

    def undo(self, tab: str, *, id: str, answer: str = "") -> tuple[dict, Future]:
        """Take back this operator's last answer, or the one with this id -> the row with what was `given`; done once it
        is on disk. Raises Refused: there is none, or somebody has built on it since.
        """
        name = self.operator(tab)
        self.queue.hear(tab)
        for number, answers in enumerate(self.answers):
            if id in answers.withdrawals:
                given = answers.by_id[answers.withdrawals[id]]
                return self.given(number, given), self.flying.get(id) or finished()
        number, taken = self.last_of(name, answer)
        answers = self.answers[number]
        if not answers.may_withdraw(taken):
            raise Refused("settled")
        done = self.keep(number, id, {"id": id, "withdraws": taken.id, "by": name, "at": round(self.clock(), 3)})
        rank = int(self.rank_of[number][taken.row])
        self.set_state(rank, answers.state(taken.row))
        if rank not in self.queue.holder:
            self.queue.lease(rank, tab)
        return self.given(number, taken), done

    def set_state(self, rank: int, state: str) -> None:
        self.done += (state == DONE) - (self.states.pop(rank, OPEN) == DONE)
        if state != OPEN:
            self.states[rank] = state

    def given(self, number: int, answer: Answer) -> dict:
        return self.item(int(self.rank_of[number][answer.row])) | {"given": {"kind": answer.kind, "text": answer.text}}

    def last_of(self, name: str, id: str) -> tuple[int, Answer]:
        """The operator's last answer of all tables, or the one with this id."""
        found = []
        for number, answers in enumerate(self.answers):
            own = answers.of_operator.get(person_key(name), [])
            ids = [id] if id in own else [] if id else own[-1:]
            found += [(answers.by_id[one].at, number, answers.by_id[one]) for one in ids]
        if not found:
            raise Refused("nothing")
        return max(found, key=lambda entry: entry[0])[1:]

    def place(self, rank: int) -> tuple[int, int]:
        """-> the number of the table, the row in it."""
        if not 0 <= rank < len(self.row_of):
            raise Refused("row")
        return int(self.table_of[rank]), int(self.row_of[rank])

    def keep(self, number: int, id: str, record: dict) -> Future:
        journal = self.journals[number]
        if journal.failure:
            raise journal.failure
        self.answers[number].apply(record)
        done = self.flying[id] = journal.append(record)
        done.add_done_callback(lambda _: self.flying.pop(id, None))
        return done

    # ------------------------------------------------------------------------------------------ how far

    @property
    def total(self) -> int:
        return len(self.row_of)

    def count(self) -> dict[str, int]:
        """Rows that are done, left, wait for another person, are in somebody's hands."""
        return {"total": self.total, "done": self.done, "left": self.total - self.done,
                "waiting": len(self.states) - self.done, "in_hands": self.queue.in_hands}  # fmt: skip


def ranks_of(tables: Sequence[KeyTable], order: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> (N,) of each rank the number of its table, the place in its `todo`, its row. Samples of all tables first."""
    sample, rest = [], []
    for number, table in enumerate(tables):
        places = ordered(table, order)
        for part, chosen in ((sample, places[: table.sampled]), (rest, places[table.sampled :])):
            part.append((np.full(len(chosen), number, np.int16), chosen, table.todo[chosen]))
    parts = [*sample, *rest]
    return tuple(np.concatenate([part[i] for part in parts]) for i in range(3))


def check_text(text: str) -> None:
    """Raises Refused for what preprocess would reject, or no file can hold: marks that nobody sees."""
    if len(text) > MAX_TEXT_LENGTH:
        raise Refused("long")
    unseen = [c for c in text if c != "\n" and (unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))]
    if unseen:
        raise Refused("unseen")


def finished() -> Future:
    done: Future = Future()
    done.set_result(None)
    return done
