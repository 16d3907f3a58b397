"""A seeded random sample of what was accepted, for people to key: monitor bounds the error rate by it."""

import hashlib
from collections.abc import Iterator

import pyarrow as pa


class Sample:
    """A random sample without replacement of accepted lines, fields or certificates, whatever is seen when.

    Each has a number that hangs on the seed and on its name; those with the least numbers are drawn.
    """

    def __init__(self, most: int, seed: int):
        self.most, self.seed, self.seen = most, seed, 0
        self.kept: dict[int, list[pa.Table]] = {}  # by number, the rows of it
        self.limit = 1 << 64  # numbers from here on are of none that can be drawn

    def take(self, rows: pa.Table, unit: str) -> None:
        """Rows that are accepted; all of a field or certificate come at once."""
        places: dict[str, list[int]] = {}
        for place, name in enumerate(names_of(rows, unit)):
            places.setdefault(name, []).append(place)
        self.seen += len(places)
        for name, own in places.items():
            digest = hashlib.sha256(f"{self.seed}/{name}".encode("utf-8", "surrogateescape")).digest()
            number = int.from_bytes(digest[:8], "big")
            if number < self.limit:
                self.kept.setdefault(number, []).append(rows.take(own))
        if len(self.kept) > 2 * self.most:
            self.prune()

    def prune(self) -> None:
        numbers = sorted(self.kept)[: self.most]
        self.kept = {number: self.kept[number] for number in numbers}
        if len(numbers) == self.most:
            self.limit = numbers[-1] + 1

    @property
    def drawn(self) -> int:
        return min(len(self.kept), self.most)

    def chosen(self) -> Iterator[pa.Table]:
        """In the order of the input."""
        self.prune()
        found = [table for tables in self.kept.values() for table in tables]
        yield from sorted(found, key=lambda table: table["item"][0].as_py())


def names_of(rows: pa.Table, unit: str) -> list[str]:
    """What is drawn by: of a line its certificate, too, since by its place alone the same places would be keyed of
    every batch, and what is always wrong there, or never, would be all that is seen.
    """
    parts = {"certificate": ("certificate",), "field": ("certificate", "field")}.get(
        unit, ("certificate", "item", "field")
    )
    columns = [rows[name].to_pylist() for name in parts if name in rows.column_names]
    return ["/".join(map(str, row)) for row in zip(*columns, strict=True)]
