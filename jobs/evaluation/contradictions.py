"""Counts of certificates whose fields contradict each other by their form's rules, as read and as typed.

Texts are those of the evaluation's parts. Tick boxes are read by no reader: what their ink says, and what was typed of
them, is with the data set, of the certificates that were evaluated.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from htr.forms.field_rules import Rule
from htr.forms.template import load_templates
from htr.forms.tick_boxes import TICKED
from jobs.evaluation.texts import texts_of
from shards.index import Index

SIDES = ("hypothesis", "reference")
COLUMNS = ("certificate", "form", "field", "line", *SIDES)


def ticks_of(index: Index, split: str, where: dict[str, list[str]]) -> list[dict]:
    """The tick boxes of a split, as rows of a part have texts; [] where the data set has none."""
    try:
        table = index.samples(split, {**where, "level": ["tick"]})
    except ValueError:  # none there, or a column that only texts have
        return []
    texts = texts_of(index, table)
    rows = table.select([name for name in (*COLUMNS, "ink") if name in table.column_names]).to_pylist()
    return [
        row | {"hypothesis": "1" if (row["ink"] or 0) >= TICKED else "0", "reference": texts[number]}
        for number, row in enumerate(rows)
    ]


def count_contradictions(parts: Sequence[Path], rules: dict[str, Sequence[Rule]], ticks: Iterable[dict] = ()) -> dict:
    """Parts of an evaluation, the rules by the form's name, tick boxes as `ticks_of` gives them -> for metrics.json:

    certificates        with a field that a rule names
    hypothesis, reference   certificates, fields that contradict another, and how often each rule is broken
    unknown_form        certificates left out: several forms have rules and their rows say no form
    """
    texts: dict[tuple[str, str], dict] = defaultdict(lambda: {side: defaultdict(list) for side in SIDES})

    def take(row: dict) -> None:
        own = texts[row.get("certificate") or "", row.get("form") or ""]
        for side in SIDES:
            own[side][row.get("field") or ""].append((row.get("line") or "", row[side] or ""))

    for path in parts:
        file = pq.ParquetFile(path)
        for row in file.read(columns=[name for name in COLUMNS if name in file.schema_arrow.names]).to_pylist():
            take(row)
    for row in ticks:
        if (row.get("certificate") or "", row.get("form") or "") in texts:
            take(row)
    found = {side: Counter() for side in SIDES}
    broken: dict[str, Counter] = {side: Counter() for side in SIDES}
    certificates = unknown = 0
    for (_, form), own in texts.items():
        known = rules.get(form) or (next(iter(rules.values())) if len(rules) == 1 else None)
        if known is None:
            unknown += 1
            continue
        if not any(name in own["reference"] for rule in known for name in rule.fields):
            continue
        certificates += 1
        for side in SIDES:
            whole = {field: " ".join(text for _, text in sorted(lines)) for field, lines in own[side].items()}
            fields = set()
            for rule in known:
                if names := rule.broken_by(whole):
                    fields |= set(names)
                    broken[side][str(rule)] += 1
            found[side].update(certificates=int(bool(fields)), fields=len(fields))
    counted = {
        side: {"certificates": found[side]["certificates"], "fields": found[side]["fields"],
               "rules": dict(sorted(broken[side].items()))}
        for side in SIDES
    }  # fmt: skip
    return {"certificates": certificates, "unknown_form": unknown} | counted


def rules_of_forms(folder: Path | None) -> dict[str, tuple]:
    """The rules of each template in a folder, by form; templates without rules are left out. Raises ValueError where
    none has any."""
    if folder is None:
        return {}
    rules = {template.name: template.rules for template in load_templates(folder) if template.rules}
    if not rules:
        raise ValueError(f"--forms {folder}: no template there has rules (see docs/forms.md)")
    return rules
