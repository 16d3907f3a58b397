"""An account of an input: entries that are there, that are read, and that are passed over and why, by kind."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Account:
    """`there` = what is read + what is passed over: entries of a folder (files, links), or rows of a table.

    What is read may still be rejected, row by row, with a reason of its own.
    """

    there: int = 0
    passed_over: Counter = field(default_factory=Counter)  # why -> how many
    kinds: Counter = field(default_factory=Counter)  # of what is read; a table's rows have none
    notes: list[str] = field(default_factory=list)  # what was done so that it could be read

    @property
    def read(self) -> int:
        return self.there - sum(self.passed_over.values())

    def pass_over(self, why: str, count: int = 1) -> None:
        if count:
            self.passed_over[why] += count

    def note(self, what: str) -> None:
        if what not in self.notes:
            self.notes.append(what)

    def as_dict(self) -> dict:
        """For a JSON file."""
        return {
            "there": self.there,
            "read": self.read,
            "kinds": dict(sorted(self.kinds.items())),
            "passed_over": dict(sorted(self.passed_over.items())),
            "notes": self.notes,
        }


def lines_of(account: dict, what: str = "") -> list[str]:
    """What a person is told: the notes, and, where something was passed over, the sum of it all.

    `what`: entries of a folder, a tar or a METS, or rows of a table; by what the account has, where it is not said.
    """
    what = what or ("entries" if account.get("kinds") else "rows")
    lines = list(account.get("notes", ()))
    passed = account.get("passed_over", {})
    if passed or account.get("kinds"):
        kinds = ", ".join(f"{count} {kind}" for kind, count in account.get("kinds", {}).items())
        total = f"{account['there']} {what}: {account['read']} read{f' ({kinds})' if kinds else ''}"
        lines.append(f"{total}, {sum(passed.values())} passed over")
        lines += [f"    {count:6d} x {why}" for why, count in passed.items()]
    return lines
