"""Rules between fields, as data of a template: they find readings that contradict each other, and change none.

In NAME.json each rule names its fields, in their order:

    "rules": [{"at_most": "one of", "fields": ["autopsy_yes", "autopsy_no"]},
              {"between": ["1900-01-01", "2030-12-31"], "fields": ["birth", "death"]},
              {"between": ["0 min", "120 ans"], "fields": ["Ia_interval"]},
              {"order": "dates", "fields": ["birth", "death"]},
              {"order": "durations", "fields": ["Ia_interval", "Ib_interval", "Ic_interval"]}]

`at_most`: at most one of these boxes is ticked. `between`: the date or duration lies in this range; it may be written
in any way that htr/metrics/values.py reads. `order`: the values that are written do not decrease. A blank field, and a
text that is no date or duration, contradict nothing. An inexact value ("about 3 days", a month without its day)
contradicts only if all its possible values do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from htr.metrics.values import Value, parse

DAYS_OF_MONTH, DAYS_OF_YEAR = (28, 31), (365, 366)  # least and largest number of days
UNBOUNDED_DAYS = Fraction(10**7)  # stands for infinity
Range = tuple[Fraction, Fraction]  # the least and the largest possible value, days


@dataclass(frozen=True)
class Rule:
    kind: str  # at_most, between or order
    value: str | tuple[str, str]  # "one of"; the ends; "dates" or "durations"
    fields: tuple[str, ...]

    def note(self) -> dict:
        """The rule as written in NAME.json."""
        value = list(self.value) if self.kind == "between" else self.value
        return {self.kind: value, "fields": list(self.fields)}

    def broken_by(self, texts: Mapping[str, str]) -> tuple[str, ...]:
        """Readings by field -> the fields whose readings can't all be right; () if none contradicts."""
        if self.kind == "at_most":
            ticked = tuple(name for name in self.fields if texts.get(name) == "1")
            return ticked if len(ticked) > 1 else ()
        if self.kind == "between":
            low, high = (extent(parse(end)) for end in self.value)
            wanted = parse(self.value[0]).kind
            found = [(name, extent(parse(texts.get(name) or ""), wanted)) for name in self.fields]
            return tuple(name for name, seen in found if seen and (seen[1] < low[0] or seen[0] > high[1]))
        wanted = self.value.removesuffix("s")
        found = [(name, extent(parse(texts.get(name) or ""), wanted)) for name in self.fields]
        known = [(name, seen) for name, seen in found if seen]
        broken = {
            name
            for place, (first, before) in enumerate(known)
            for second, after in known[place + 1 :]
            if before[0] > after[1]
            for name in (first, second)
        }
        return tuple(name for name in self.fields if name in broken)

    def __str__(self) -> str:
        names = ", ".join(self.fields)
        if self.kind == "at_most":
            return f"at most one of {names}"
        return f"{names} between {' and '.join(self.value)}" if self.kind == "between" else f"order of {names}"


def extent(value: Value | None, wanted: str | None = None) -> Range | None:
    """The range of a date or duration in days; None for a number, and for another kind than `wanted`.

    A date counts from year 0 with 372 days a year and 31 a month: only the order matters.
    """
    if value is None or value.kind == "number" or (wanted and value.kind != wanted):
        return None
    if value.kind == "date":
        year, month, day = value.value
        first, last = (day, day) if day else (1, 31)
        return Fraction(372 * year + 31 * month + first), Fraction(372 * year + 31 * month + last)
    about, *parts = value.value
    low, high = (sum(days(base, size, end) for base, size in parts) for end in (0, 1))
    if about == "~":
        return low / 2, high * 2
    return (
        (low, UNBOUNDED_DAYS)
        if about == ">"
        else (Fraction(0), high)
        if about == "<"
        else (Fraction(low), Fraction(high))
    )


def days(base: str, size: Fraction, end: int) -> Fraction:
    """The least (end 0) or largest (1) number of days of `size` months, or of `size` days if the base is "day"."""
    return size if base == "day" else size // 12 * DAYS_OF_YEAR[end] + size % 12 * DAYS_OF_MONTH[end]


def rules_of(entries: object, kinds: Mapping[str, str]) -> tuple[Rule, ...]:
    """The rules of a template with these fields (name to kind). Raises ValueError with the rule and what is wrong."""
    if not isinstance(entries, list):
        raise ValueError("rules is a list")
    return tuple(rule_of(entry, number, kinds) for number, entry in enumerate(entries, 1))


def rule_of(entry: object, number: int, kinds: Mapping[str, str]) -> Rule:
    here = f"rule {number}"
    if not isinstance(entry, dict) or "fields" not in entry or len(entry) != 2:
        raise ValueError(f'{here}: write it as {{"at_most": "one of", "fields": [...]}}, or with between, or order')
    [kind] = [key for key in entry if key != "fields"]
    names, value = entry["fields"], entry[kind]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{here}: fields is a list of names")
    if unknown := [name for name in names if name not in kinds]:
        raise ValueError(f"{here}: no such field: {', '.join(unknown)}")
    if len(set(names)) < len(names):
        raise ValueError(f"{here}: a field is named twice")
    boxes = kind == "at_most"
    if wrong := [name for name in names if (kinds[name] == "tick") != boxes]:
        raise ValueError(f"{here}: {kind} is for {'tick boxes' if boxes else 'text fields'}, not {', '.join(wrong)}")
    if kind == "at_most" and value == "one of":
        return Rule(kind, value, tuple(names))
    if kind == "order" and value in ("dates", "durations") and len(names) > 1:
        return Rule(kind, value, tuple(names))
    if kind == "between" and isinstance(value, list) and len(value) == 2:
        return Rule(kind, checked_ends(here, value), tuple(names))
    raise ValueError(f'{here}: it is "at_most": "one of", "between": [FROM, TO], or "order": "dates" or "durations"')


def checked_ends(here: str, ends: Sequence[object]) -> tuple[str, str]:
    values = [parse(end) if isinstance(end, str) else None for end in ends]
    low, high = (extent(value) for value in values)
    if low is None or high is None or values[0].kind != values[1].kind or low[0] > high[1]:
        raise ValueError(f"{here}: between is two dates or two durations, the lesser first")
    return ends[0], ends[1]


def contradictions(rules: Sequence[Rule], texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Readings by field -> for each field that contradicts another, the rules that are broken, in words."""
    found: dict[str, list[str]] = {}
    for rule in rules:
        for name in rule.broken_by(texts):
            found.setdefault(name, []).append(str(rule))
    return found
