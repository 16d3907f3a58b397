"""Progress of keying: done, left, agreement, hours saved; for the page and for `report`. No names, no texts.

Hours saved: what nobody had to type. Of what was accepted and not drawn all of its typing, of a row with a reading what
typing takes more than mending took. Typing takes what it took the operators themselves, the median of the blind rows,
once there are MIN_BLIND_ANSWERS of them; else so many seconds a row as was said.
"""

from statistics import median

import numpy as np

from htr.certificate import single_spaced
from htr.reliability.monitor import most_wrong
from jobs.keying.agreement import agreement, pairs_of
from jobs.keying.answers import ASK, KEY, TEXT
from jobs.keying.session import Session
from jobs.keying.tables import AUDIT, TEXTS, KeyTable

MIN_BLIND_ANSWERS = 20  # blind answers whose median counts
MAX_ANSWER_S = 300.0  # seconds: who took longer was away


def figures(session: Session, seconds: float = 20.0, unit: str = "line", delta: float = 0.05) -> dict:
    """The figures of a session. `seconds`: the time to type a row; `unit`: of the sample; `delta`: of the bound for
    what was accepted."""
    given = [answer for answers in session.answers for own in list(answers.standing.values()) for answer in own]
    took = [min(answer.seconds, MAX_ANSWER_S) for answer in given]
    blind = [min(a.seconds, MAX_ANSWER_S) for a in given if a.blind and a.role == KEY and a.kind != ASK]
    typing = median(blind) if len(blind) >= MIN_BLIND_ANSWERS else seconds
    pairs, uncertain = [], 0
    shown, as_read, mending = 0, 0, 0.0
    for table, answers in zip(session.tables, session.answers, strict=True):
        found, left_out = pairs_of(table, answers)
        pairs, uncertain = pairs + found, uncertain + left_out
        for row, own in list(answers.standing.items()):  # others go on answering
            final = answers.final(row)
            if final is None or final.blind or table.kind == AUDIT:
                continue
            shown += 1
            as_read += final.kind == TEXT and single_spaced(final.text) == single_spaced(table.reading(row))
            mending += sum(min(answer.seconds, MAX_ANSWER_S) for answer in own)
    both = zip(session.tables, session.answers, strict=True)
    accepted = [accepted_of(table, answers, unit, delta) for table, answers in both if table.kind == TEXTS]
    untyped = sum(one["rows"] - one["sampled_rows"] for one in accepted)
    return {
        **session.count(),
        "answers": len(given),
        "withdrawn": sum(len(answers.withdrawals) for answers in session.answers),
        "people": len({answer.by for answer in given}),
        "kinds": {kind: sum(answer.kind == kind for answer in given) for kind in sorted({a.kind for a in given})},
        "minutes_per_100": 100 * float(np.mean(took)) / 60 if took else None,
        "seconds_typing": typing,
        "seconds_measured": len(blind) >= MIN_BLIND_ANSWERS,
        "hours_spent": sum(took) / 3600,
        "hours_saved": (untyped * typing + shown * typing - mending) / 3600,
        "shown": shown,
        "taken_as_read": as_read / shown if shown else None,
        "agreement": agreement(pairs, uncertain),
        "accepted": accepted,
    }


def accepted_of(table: KeyTable, answers, unit: str, delta: float) -> dict:
    """The errors in the sample of accepted rows and, once all of it is keyed, the largest number among all accepted
    ones with probability 1 - delta (hypergeometric, as in `monitor`). A unit is wrong if one of its rows is."""
    sampled = table.todo[: table.sampled].tolist()
    rows = int(np.sum(np.array(table.table["decision"].to_pylist()) == "accept"))
    found = {"rows": rows, "units": table.accepted_units, "unit": unit, "sampled": table.sampled_units}
    found |= {"sampled_rows": len(sampled), "delta": delta, "done": 0, "wrong": None, "rate": None, "bound": None}
    final = {row: answers.final(row) for row in sampled}
    found["done"] = sum(answer is not None for answer in final.values())
    if not sampled or found["done"] < len(sampled):
        return found
    names = {"certificate": ("certificate",), "field": ("certificate", "field")}.get(unit)
    units = {}
    for row, answer in final.items():
        name = tuple(table.cell(row, part) for part in names) if names else row
        units[name] = units.get(name, False) or single_spaced(answer.written) != single_spaced(table.reading(row))
    wrong = sum(units.values())
    bound = most_wrong(wrong, len(units), table.accepted_units, delta)
    return found | {"wrong": wrong, "rate": wrong / len(units), "bound": bound / table.accepted_units}
