"""Figures of keying that `review` left in RUN/keying, for the report. No names, no texts."""

from pathlib import Path

from jobs.html import known, number, pair
from jobs.training.run_status import clean, read


def view(run: Path) -> list[dict]:
    """The figures of each table that was keyed. `damaged` says why those of a table can't be shown."""
    found = []
    for path in sorted(run.glob("keying/*.json")):
        try:
            found.append({"name": path.stem, "damaged": None, **shown(read(path))})
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            found.append({"name": path.stem, "damaged": clean(f"{type(error).__name__}: {error}")})
    return found


def shown(figures: dict) -> dict:
    """`rows`: title and value of each figure; `agreement`: by field, that of all fields first; `accepted`: of each
    table of texts."""
    agreement = figures["agreement"]
    lines = [("all", agreement), *sorted(agreement["by"].items())]
    plain = (("rows to key", "total"), ("done", "done"), ("wait for another person", "waiting"),
             ("answers taken back", "withdrawn"), ("people", "people"))  # fmt: skip
    measured = (("minutes a hundred rows", "minutes_per_100"), ("seconds that typing a row takes", "seconds_typing"),
                ("hours spent", "hours_spent"), ("hours saved against keying all", "hours_saved"))  # fmt: skip
    return {
        "counts": [(title, number(figures, name)) for title, name in plain],
        "measured": [(title, number(figures, name)) for title, name in measured if known(figures.get(name))],
        "taken_as_read": number(figures, "taken_as_read"),
        "agreement": [{"field": name, "rows": number(one, "rows"), "exact": number(one, "exact"),
                       "exact_within": pair(*(one["exact_interval"] or (None, None))), "cer": number(one, "cer"),
                       "cer_within": pair(*(one["cer_interval"] or (None, None)))} for name, one in lines],
        "uncertain": number(agreement, "uncertain"),
        "accepted": [one for one in figures["accepted"] if one["sampled"]],
    }  # fmt: skip
