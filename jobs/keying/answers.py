"""The state of each row from the journal: the answers that stand, what it still needs, its final text.

A row takes one answer, or two by different people where it is keyed twice (double). Two that differ go to a third
person, who settles it. Who asks a colleague has not answered: somebody else gets the row, with the note.
"""

from dataclasses import asdict, dataclass

from htr.certificate import person_key, single_spaced

TEXT, BLANK, ILLEGIBLE, CROSSED, ASK = "text", "blank", "illegible", "crossed", "ask"
KINDS = (TEXT, BLANK, ILLEGIBLE, CROSSED, ASK)
KEY, SETTLE = "key", "settle"  # roles: typed by oneself; decided between two that differ
OPEN, SECOND, THIRD, COLLEAGUE, DONE = "open", "second", "third", "colleague", "done"
ILLEGIBLE_TEXT, CROSSED_TEXT = "[illisible]", "[raturé]"  # as preprocess reads them, htr/charset.py


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of one operator, as it stands in the journal."""

    id: str  # of the page's making: the same one sent twice is one answer
    row: int  # of the table
    kind: str  # one of KINDS
    text: str  # as typed; "" but for TEXT
    note: str  # to the colleague
    by: str  # the operator's name
    at: float  # seconds since 1970
    seconds: float  # from the moment that the row was shown
    role: str  # KEY or SETTLE
    blind: bool  # whether no reading was shown

    @property
    def written(self) -> str:
        """What goes into the table's column `text`."""
        return {ILLEGIBLE: ILLEGIBLE_TEXT, CROSSED: CROSSED_TEXT, TEXT: self.text}.get(self.kind, "")

    def record(self) -> dict:
        return asdict(self)


class Answers:
    """The answers to one table. `double`: the rows that two people key."""

    def __init__(self, records: list[dict], double: frozenset[int] | set[int] = frozenset()):
        self.double = double
        self.standing: dict[int, list[Answer]] = {}  # by row, in the order in which they were given
        self.by_id: dict[str, Answer] = {}  # those that were taken back, too
        self.withdrawals: dict[str, str] = {}  # by id of the withdrawal, the id of the answer
        self.of_operator: dict[str, list[str]] = {}  # ids of standing answers, the last one last
        for record in records:
            self.apply(record)

    def apply(self, record: dict) -> None:
        """Take in a record of the journal: an answer, or the withdrawal of one."""
        if "withdraws" in record:
            answer = self.by_id[record["withdraws"]]
            self.standing[answer.row].remove(answer)
            self.of_operator[person_key(answer.by)].remove(answer.id)
            self.withdrawals[record["id"]] = answer.id
            return
        answer = Answer(**record)
        self.by_id[answer.id] = answer
        self.standing.setdefault(answer.row, []).append(answer)
        self.of_operator.setdefault(person_key(answer.by), []).append(answer.id)

    def keyed(self, row: int) -> list[Answer]:
        """The row's valid answers that people gave without seeing each other's."""
        return [answer for answer in self.standing.get(row, ()) if answer.role == KEY and answer.kind != ASK]

    def final(self, row: int) -> Answer | None:
        """The answer that counts; None until there is one."""
        given = [answer for answer in self.standing.get(row, ()) if answer.kind != ASK]
        settled = [answer for answer in given if answer.role == SETTLE]
        if settled:
            return settled[-1]
        if row not in self.double:
            return given[-1] if given else None
        return given[0] if len(given) > 1 and same(*given[:2]) else None

    def state(self, row: int) -> str:
        standing = self.standing.get(row)
        if not standing:
            return OPEN
        if self.final(row) is not None:
            return DONE
        if standing[-1].kind == ASK:
            return COLLEAGUE
        return SECOND if len(self.keyed(row)) < 2 else THIRD

    def wants(self, row: int, operator: str) -> bool:
        """Whether the row still needs an answer that this operator may give. Nobody answers a row twice."""
        standing = self.standing.get(row, ())
        if any(person_key(answer.by) == person_key(operator) for answer in standing):
            return False
        return not standing or self.final(row) is None

    def role(self, row: int) -> str:
        """What the row's next answer is for: a first or second keying, or to settle a difference."""
        return SETTLE if row in self.double and len(self.keyed(row)) >= 2 else KEY

    def notes(self, row: int) -> list[str]:
        """The notes of those who asked a colleague."""
        return [answer.note for answer in self.standing.get(row, ()) if answer.kind == ASK]

    def may_withdraw(self, answer: Answer) -> bool:
        """Whether the answer may be taken back: not after somebody else has settled the row or answered the
        question."""
        standing = self.standing.get(answer.row, ())
        if answer not in standing:
            return False
        later = standing[standing.index(answer) + 1 :]
        return not any(other.role == SETTLE for other in later) and not (answer.kind == ASK and later)


def same(one: Answer, other: Answer) -> bool:
    """Whether two answers mean the same, apart from spaces."""
    return single_spaced(one.written) == single_spaced(other.written)
