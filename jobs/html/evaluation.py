"""An evaluation's metrics.json as tables: headline, normalisations, slices, confusions, …"""

import contextlib
import re
import unicodedata
from pathlib import Path

from htr.metrics.intervals import MIN_TRUSTED_CLUSTERS
from jobs.html import bounds, count, known, number, pair, percent, plot, points
from jobs.training.run_status import clean, read, text

RATES = {  # what a rate is called, what it means
    "cer": ("CER", "Characters to insert, delete or replace, over the characters of the transcription."),
    "wer": ("WER", "The same for words, parted by spaces."),
    "wer_unicode": ("WER, Unicode words", "The same for words by Unicode's rules, punctuation left out."),
    "line_accuracy": ("Lines right", "Lines read exactly as they were transcribed; more is better."),
    "field_accuracy": ("Fields right", "Fields all of whose lines are right; more is better."),
    "certificate_accuracy": ("Certificates right", "Certificates all of whose lines are right; more is better."),
}
SLICED = ("cer", "wer", "line_accuracy")  # what slices have
NORMALISED = {
    "as_is": "as written",
    "case": "case left aside",
    "accents": "accents left aside",
    "punctuation": "punctuation left aside",
    "lenient": "case, accents and punctuation left aside",
    "abbreviations": "abbreviations as good as what they stand for",
    "lenient_abbreviations": "all of these",
}
KINDS = (("substitutions", "replaced", 1), ("deletions", "left out", 2), ("insertions", "inserted", 6))
MAX_CONFUSIONS = 30


def newest(run: Path) -> Path | None:
    """The folder of the evaluation that ended last; None where there is none."""
    found = max(run.glob("evaluation/*/metrics.json"), key=lambda path: path.stat().st_mtime, default=None)
    return found and found.parent


def choose(run: Path, name: str | None) -> Path | None:
    """The evaluation of this name (None: the newest). Raises ValueError where it is not there, or not complete."""
    if name is None:
        return newest(run)
    folder = run / "evaluation" / name
    if not (folder / "metrics.json").exists():
        whole = ", ".join(sorted(path.parent.name for path in run.glob("evaluation/*/metrics.json"))) or "none"
        raise ValueError(f"{folder}: no evaluation that is whole (no metrics.json); there are: {whole}")
    return folder


def others(run: Path, folder: Path | None) -> list[dict]:
    """The run's other evaluations, by name. Damaged ones are left out."""
    found = []
    for path in sorted(run.glob("evaluation/*/metrics.json")):
        with contextlib.suppress(ValueError, OSError):
            metrics = read(path)
            if path.parent != folder:
                figures = {"lines": number(metrics, "lines"), "cer": number(metrics, "cer")}
                found.append({"name": path.parent.name, "within": within(metrics, "cer"), **figures})
    return found


def timing(folder: Path | None) -> dict | None:
    """How fast one task was; None where that is not known."""
    with contextlib.suppress(ValueError, OSError):
        found = read(folder / "timing.json") if folder and (folder / "timing.json").exists() else {}
        if known(found.get("lines_per_s")) and isinstance(found.get("cores"), list):
            return found
    return None


def within(metrics: dict, name: str) -> tuple[float, float] | None:
    return pair(*((metrics.get("interval") or {}).get(name) or (None, None)))


def beside(folder: Path, name: str) -> dict | None:
    """terms.json or selection.json of the evaluation, with the most frequent categories first; None where there is
    none."""
    found = read(folder / f"{name}.json") if (folder / f"{name}.json").exists() else None
    if found is not None:
        rows = (found.get("categories") or {}).items()
        found["rows"] = [{"name": clean(n), **row} for n, row in sorted(rows, key=lambda item: -item[1]["texts"])]
    return found


def view(folder: Path, text_column: str | None = None) -> dict:
    """The figures of an evaluation's page. `text_column`: the source's column that the run's texts come from, which is
    never shown as a slice. Raises ValueError for damaged files."""
    metrics = read(folder / "metrics.json")
    interval = metrics.get("interval") or {}
    return {
        "name": folder.name,
        "asked": asked(metrics),
        **{name: text(metrics, name) or "unknown" for name in ("split", "decode")},
        "where": asked(metrics).get("where"),
        "sums": {name: number(metrics, name) for name in ("lines", "characters", "edits")},
        "unseen": metrics.get("unseen"),
        "metrics": metrics,
        "clusters": clusters(interval),
        "cer": headline(metrics),
        "rates": rates(metrics),
        "macro": macro(metrics),
        "warnings": warnings(metrics),
        "normalised": normalised(metrics),
        "blank": metrics.get("blank"),
        "parsed": values(metrics),
        "terms": beside(folder, "terms"),
        "selection": beside(folder, "selection"),
        "slices": [sliced(name, part, metrics) for name, part in (metrics.get("by") or {}).items()
                   if name != text_column and is_slice(part)],
        "classes": classes(metrics),
        "kinds": kinds(metrics),
        "confusions": confusions(metrics),
        "drift": drift(metrics),
    }  # fmt: skip


def asked(metrics: dict) -> dict[str, str]:
    where = " ".join(metrics.get("where") or ())
    names = ("split", "step", "decode", "batch", "amp", "dataset", "weights", "decoding", "abbreviations")
    found = {name: clean(str(metrics[name])) for name in names if metrics.get(name) is not None}
    return found | ({"where": clean(where)} if where else {})


def clusters(interval: dict) -> dict:
    unit = str(interval.get("unit") or "writer or certificate")
    many = number(interval, "groups")
    plural = " or ".join(f"{word}s" if many != 1 else word for word in unit.split(" or "))
    return {"count": many, "unit": unit, "plural": plural, "method": interval.get("method")}


def warnings(metrics: dict) -> list[str]:
    interval = metrics.get("interval") or {}
    about, many = clusters(interval), number(interval, "groups")
    said = [str(interval["warning"])] if interval.get("warning") else []
    if many is not None and many < 2:
        said.append("No interval can be given: all lines are of one writer or certificate.")
    elif many is not None and many < MIN_TRUSTED_CLUSTERS and not said:
        said.append(f"Few clusters: the intervals rest on {many:.0f} {about['plural']}, read them with care.")
    if "certificate" in about["unit"] and not any("physician" in words or "writer" in words for words in said):
        said.append(
            "The intervals are by certificate, since not every writer is known: they speak of the same writers only."
        )
    return said


def headline(metrics: dict) -> dict:
    scale = scale_for([metrics], ("cer",))
    return marked(metrics, "cer", scale, "All lines") | {"axis": plot.axis(scale)}


def rates(metrics: dict) -> list[dict]:
    found = []
    for name, (title, meaning) in RATES.items():
        if name == "cer" or not known(metrics.get(name)):
            continue
        bound = within(metrics, name)
        tip = f"{title}: {percent(metrics[name])} ({bounds(bound)})"
        mark = plot.mark(metrics[name], bound, plot.Scale(0, 1), tip)
        found.append({"title": title, "meaning": meaning, "value": metrics[name], "within": bound, "mark": mark})
    return found


def macro(metrics: dict) -> list[dict]:
    found = []
    for unit, part in (metrics.get("macro") or {}).items():
        if not part or not known(part.get("cer")):
            continue
        quantiles = part.get("quantiles") or {}
        found.append({"unit": unit, "cer": part["cer"], "within": within(part, "cer"), "groups": number(part, "groups"),
                      "quantiles": [number(quantiles, q) for q in ("0.1", "0.5", "0.9")]})  # fmt: skip
    return found


def scale_for(rows: list[dict], names: tuple[str, ...]) -> plot.Scale:
    """One scale for all these rates and their intervals. An interval that reaches far beyond the values does not widen
    it."""
    seen = [row[name] for row in rows for name in names if known(row.get(name))]
    most = 2.2 * max(seen, default=0)
    ends = [bound for row in rows for name in names for bound in within(row, name) or () if bound <= most]
    return plot.scale_of([*seen, *ends], form="{:g}", factor=100)


def marked(row: dict, name: str, scale: plot.Scale, title: str, guide: float | None = None) -> dict:
    bound = within(row, name)
    tip = f"{title}: {RATES[name][0]} {percent(row.get(name))} ({bounds(bound)})"
    mark = plot.mark(row.get(name), bound, scale, tip, guide)
    return {"value": row.get(name), "within": bound, "mark": mark}


def normalised(metrics: dict) -> dict | None:
    parts = metrics.get("normalised") or {}
    if not parts:
        return None
    scale = scale_for(list(parts.values()), ("cer",))
    rows, order = [], list(NORMALISED)
    for name, part in sorted(parts.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)):
        title = NORMALISED.get(name, name)
        rows.append({"title": title, "cer": marked(part, "cer", scale, title, number(metrics, "cer")),
                     "wer": number(part, "wer"), "line_accuracy": number(part, "line_accuracy")})  # fmt: skip
    return {"rows": rows, "axis": plot.axis(scale)}


def values(metrics: dict) -> list[dict]:
    return [
        {"kind": kind, **part, "within": pair(*(part.get("interval") or (None, None)))}
        for kind, part in (metrics.get("value") or {}).items()
        if part
    ]


def natural(value: str) -> tuple:
    """A sorting key: the number that the value begins with (6-10 before 11-20); values without one come last."""
    begins = re.match(r"-?([0-9]{1,15})", value)
    return (begins is None, int(begins[1]) if begins else 0, value)


def is_slice(parts: dict) -> bool:
    """Whether the column's values repeat. Those of names or texts don't, and must not be shown."""
    return bool(parts) and sum(number(part, "lines") or 0 for part in parts.values()) >= 2 * len(parts)


def sliced(column: str, parts: dict, metrics: dict) -> dict:
    """The slices of a column with the rates of each, and the rate of all lines as a guide."""
    rows, axes = [], {}
    scales = {name: scale_for(list(parts.values()), (name,)) for name in SLICED}
    axes = {name: plot.axis(scale) for name, scale in scales.items()}
    for place, (value, part) in enumerate(sorted(parts.items(), key=lambda item: natural(item[0]))):
        title = clean(value) or "(none)"
        rates = {name: marked(part, name, scales[name], title, number(metrics, name)) for name in SLICED}
        about = {"place": place, "lines": number(part, "lines"), "clusters": number(part, "clusters")}
        rows.append({"title": title, "small": bool(part.get("small")), "rates": rates, **about})
    return {"column": column, "rows": rows, "axes": axes, "clusters": any(row["clusters"] for row in rows),
            "small": any(row["small"] for row in rows)}  # fmt: skip


def classes(metrics: dict) -> dict | None:
    parts = {name: part for name, part in (metrics.get("character_classes") or {}).items() if part.get("characters")}
    if not parts:
        return None
    rows = [
        {**part, "rate": number(part, "rate"), "interval": {"rate": part.get("interval")}} for part in parts.values()
    ]
    scale, found = scale_for(rows, ("rate",)), []
    for name, row in zip(parts, rows, strict=True):
        bound = within(row, "rate")
        mark = plot.mark(row["rate"], bound, scale, f"{name}: {percent(row['rate'])} missed ({bounds(bound)})")
        found.append({"title": name, "characters": row["characters"], "rate": row["rate"], "within": bound,
                      "inserted": number(row, "inserted"), "mark": mark})  # fmt: skip
    return {"rows": found, "axis": plot.axis(scale)}


def kinds(metrics: dict) -> list[dict]:
    total = sum(number(metrics, name) or 0 for name, _, _ in KINDS)
    if not total:
        return []
    return [{"title": title, "colour": colour, "count": number(metrics, name) or 0,
             "share": (number(metrics, name) or 0) / total} for name, title, colour in KINDS]  # fmt: skip


def confusions(metrics: dict) -> list[dict]:
    """The most frequent confusions. What is longer than a character could be a text, and is left out."""
    found = [
        one for one in metrics.get("confusions") or () if len(one["reference"]) <= 1 and len(one["hypothesis"]) <= 1
    ]
    found = found[:MAX_CONFUSIONS]
    most = max((one["count"] for one in found), default=1)
    rows = []
    for one in found:
        was, read_as = letter(one["reference"]), letter(one["hypothesis"])
        tip = f"{was or 'nothing'} read as {read_as or 'nothing'}: {count(one['count'])} times"
        rows.append({"was": was, "read": read_as, "count": one["count"], "bar": plot.bar(one["count"] / most, tip)})
    return rows


def letter(character: str) -> str:
    """The character, or a visible stand-in for one that can't be seen."""
    if character == " ":
        return "space"
    if character and (not character.isprintable() or unicodedata.combining(character)):
        return f"U+{ord(character):04X}"
    return character


def drift(metrics: dict) -> dict | None:
    """A chart of each year's CER less that of the first year."""
    found = metrics.get("drift") or None
    if not found:
        return None
    rows = [{"year": year, **part} for year, part in sorted((found.get("years") or {}).items())]
    ends = [part[name] for part in rows for name in ("difference", "low", "high") if known(part.get(name))]
    most = max(map(abs, ends), default=0) or 0.01
    scale = plot.Scale(-1.05 * most, 1.05 * most, form="{:+g}", factor=100)
    for row in rows:
        bound = pair(row.get("low"), row.get("high"))
        tip = f"{row['year']} against {found['first']}: {points(row.get('difference'))} points"
        row |= {"within": bound, "mark": plot.mark(row.get("difference"), bound, scale, tip, 0.0)}
    trend = found.get("trend") or {}
    return {"first": found.get("first"), "rows": rows, "axis": plot.axis(scale), "trend": trend,
            "trend_within": pair(trend.get("low"), trend.get("high"))}  # fmt: skip
