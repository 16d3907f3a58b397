"""A run's training: learning curves, starts, settings."""

import math
from pathlib import Path

from jobs.html import UNKNOWN_SIGN, plot
from jobs.training.learning_curves import points, read_metrics
from jobs.training.run_lock import read_json
from jobs.training.run_status import clean, read, settings

MAX_CURVE_POINTS = 400  # points of a curve
CURVES = (  # of metrics.jsonl, what is drawn of them, and how
    ("Loss in training, nats a character", (("loss", "loss"),), {"log": True}),
    ("Errors on dev, %", (("dev_cer", "CER"), ("dev_wer", "WER")), {"factor": 100}),
    ("Lines a second, all ranks", (("lines_per_s", "lines/s"),), {}),
    ("Learning rate, thousandths", (("lr", "rate"),), {"factor": 1000}),
)
NOT_SHOWN = ("alphabet", "dataset", "folder", "run", "verb")  # of what was asked: long, or shown elsewhere


def curves(run: Path) -> list[dict]:
    """Charts of what the training logged; a chart without data is left out."""
    metrics = read_metrics(run)
    found = []
    for title, names, options in CURVES:
        lines = [(label, thinned(points(metrics, name))) for name, label in names]
        lines = [(label, spots) for label, spots in lines if spots]
        if not lines:
            continue
        options = dict(options)
        log = options.pop("log", False) and all(y > 0 for _, spots in lines for _, y in spots)
        y = plot.scale_of([y for _, spots in lines for _, y in spots], log=log, **options)
        x = plot.Scale(0, max(x for _, spots in lines for x, _ in spots))
        series = [
            plot.Series(label if len(lines) > 1 else "", spots, colour=colour, tips=tips(label, spots, y))
            for colour, (label, spots) in enumerate(lines, start=1)
        ]
        chart = plot.Chart(f"{title}, over the steps of the training", x, y, series, "step")
        found.append({"title": title, "svg": chart.svg()})
    return found


def tips(label: str, spots: list[tuple[int, float]], scale: plot.Scale) -> list[str]:
    return [f"step {x}: {label} {y * scale.factor:.4g}" for x, y in spots]


def thinned(spots: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most about MAX_CURVE_POINTS points, the last one among them; all are finite."""
    spots = [(x, y) for x, y in spots if math.isfinite(y)]
    every = max(math.ceil(len(spots) / MAX_CURVE_POINTS), 1)
    return spots[::every] + (spots[-1:] if every > 1 and (len(spots) - 1) % every else [])


def provenance(run: Path) -> dict:
    """The run's starts in order, the versions of the last one, and its settings. Raises ValueError for a damaged
    file."""
    config, status = settings(run), read_json(run / "status.json") or {}
    record = read(run / "provenance.json") if (run / "provenance.json").exists() else {}
    starts = [start for start in record.get("starts") or () if isinstance(start, dict)]
    rows = []
    for place, start in enumerate(starts):
        seconds = start.get("seconds") if place + 1 < len(starts) else status.get("seconds")
        hosts = start.get("hosts") or ()
        facts = {name: shown(start.get(name)) for name in ("begun", "job", "world", "device", "code", "digest")}
        rows.append(facts | {"hosts": len(hosts) or None, "took": took(seconds)})
    last = starts[-1] if starts else {}
    asked = {name: shown(value) for name, value in sorted(config.items()) if name not in NOT_SHOWN}
    versions = {name: shown(value) for name, value in (last.get("versions") or {}).items()}
    state = ": ".join(shown(status[name]) for name in ("state", "reason") if status.get(name))
    return {
        "starts": rows,
        "versions": versions,
        "asked": asked,
        "state": state or "unknown",
        "trained": {"folder": shown(config.get("folder")), "fingerprint": shown(config.get("dataset"))},
    }


def shown(value) -> str:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return UNKNOWN_SIGN if value in (None, "") else clean(str(value))


def took(seconds: float | None) -> str:
    if not isinstance(seconds, int | float):
        return UNKNOWN_SIGN
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
