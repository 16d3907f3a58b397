"""Counts of certificates whose fields contradict each other by their form's rules, as read and as typed.

Tick boxes are not read by a reader, so only rules between texts are counted here.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from htr.forms.field_rules import Rule

SIDES = ("hypothesis", "reference")


def count_contradictions(parts: Sequence[Path], rules: dict[str, Sequence[Rule]]) -> dict:
    """Parts of an evaluation, and the rules by the form's name -> for metrics.json:

    certificates        with a field that a rule names
    hypothesis, reference   certificates, fields that contradict another, and how often each rule is broken
    unknown_form        certificates left out: several forms have rules and their rows say no form
    """
    texts: dict[tuple[str, str], dict] = defaultdict(lambda: {side: defaultdict(list) for side in SIDES})
    for path in parts:
        file = pq.ParquetFile(path)
        names = [n for n in ("certificate", "form", "field", "line", *SIDES) if n in file.schema_arrow.names]
        for row in file.read(columns=names).to_pylist():
            own = texts[row.get("certificate") or "", row.get("form") or ""]
            for side in SIDES:
                own[side][row.get("field") or ""].append((row.get("line") or "", row[side] or ""))
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
    """The rules of each template of a folder that has any. Raises ValueError: none has."""
    if folder is None:
        return {}
    from htr.forms.template import load_templates

    rules = {template.name: template.rules for template in load_templates(folder) if template.rules}
    if not rules:
        raise ValueError(f"--forms {folder}: no template there has rules (see docs/forms.md)")
    return rules
