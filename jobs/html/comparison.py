"""Comparison of runs: rates and speeds, paired differences to the first, numbers of GPUs, learning curves."""

from pathlib import Path

from htr.metrics.intervals import MIN_TRUSTED_CLUSTERS
from jobs.html import UNKNOWN_SIGN, bounds, evaluation, known, number, pair, percent, plot, points, training
from jobs.scaling.results import figures
from jobs.training.learning_curves import points as logged_points
from jobs.training.learning_curves import read_metrics
from jobs.training.run_status import clean, read, text
from jobs.training.run_usage import usage

COLOURS = 6
RATES = ("cer", "wer", "line_accuracy", "field_accuracy", "certificate_accuracy")
SPEEDS = (  # what is not a rate of an evaluation: name, title, what it says, digits, factor
    ("lines_per_s", "Lines/s", "Lines a second in training, all ranks: the median after the warm-up third.", 0, 1),
    ("efficiency", "Efficiency", "Lines/s a rank over that of the fewest ranks of the same reader, %.", 1, 100),
    ("hours", "Hours", "How long the training's starts took, all together.", 2, 1),
    ("gpu_hours", "GPU-hours", "The same times the GPUs.", 2, 1),
)
CURVES = (("loss", "Loss in training, nats a character", True, 1), ("dev_cer", "CER on dev, %", False, 100))
SHARES = {"data_share": "for data", "exchange_share": "exchange"}


def view(runs: list[Path], name: str | None) -> dict:
    """The figures of a page that compares these runs. Raises ValueError for a folder that is no run, or a run without
    the evaluation of this name."""
    names = names_of(runs)
    rows = [of_run(run, names[place], 1 + place % COLOURS, place >= COLOURS, name) for place, run in enumerate(runs)]
    set_efficiency(rows)
    return {
        "title": f"{len(rows)} runs compared",
        "rows": rows,
        "warnings": warnings(rows),
        "metrics": [rate(rows, name) for name in RATES if any(known(row["rates"].get(name)) for row in rows)]
        + [speed(rows, *one) for one in SPEEDS if any(known(row[one[0]]) for row in rows)],
        "paired": paired(rows),
        "scaling": scaling(rows),
        "curves": curves(rows),
        "settings": settings(rows),
    }


def names_of(runs: list[Path]) -> list[str]:
    """A short name for each run, different from the others: its folder's, with folders above it where two are the
    same."""
    paths = [run.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise ValueError("a run is named twice: give each once")
    names, depth = [path.name for path in paths], 2
    while len(set(names)) < len(names):
        names, depth = ["/".join(path.parts[-depth:]) for path in paths], depth + 1
    return names


def of_run(run: Path, name: str, colour: int, dashed: bool, asked: str | None) -> dict:
    from jobs.evaluation.texts import config_of

    config = config_of(run)
    folder = evaluation.choose(run, asked)
    metrics = read(folder / "metrics.json") if folder else {}
    measured = figures(run) or {}
    used = usage(run)
    return {
        "run": run,
        "name": name,
        "colour": colour,
        "dashed": dashed,
        "reader": f"{text(config, 'model')}/{text(config, 'size')}",
        "config": config,
        "folder": folder,
        "evaluation": folder.name if folder else None,
        "rates": metrics,
        "clusters": evaluation.clusters(metrics.get("interval") or {}),
        "lines_per_s": number(measured, "lines_per_s"),
        "spread": pair(measured.get("lowest"), measured.get("highest")),
        **{share: number(measured, share) for share in SHARES},
        **{key: used[key] for key in ("world", "hosts", "device", "hours", "gpu_hours")},
        "efficiency": None,
    }


def set_efficiency(rows: list[dict]) -> None:
    """Add each run's scaling efficiency, against the fewest ranks of the same reader on the same kind of device. None
    where that has one number of ranks alone."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        if row["lines_per_s"] and row["world"]:
            groups.setdefault((row["reader"], row["device"]), []).append(row)
    for group in groups.values():
        fewest = min(row["world"] for row in group)
        if len({row["world"] for row in group}) > 1:
            first = max(row["lines_per_s"] / row["world"] for row in group if row["world"] == fewest)
            for row in group:
                row["efficiency"] = row["lines_per_s"] / row["world"] / first


def warnings(rows: list[dict]) -> list[str]:
    read_ones = [row for row in rows if row["folder"]]
    said = [f"{row['name']} has no evaluation yet." for row in rows if not row["folder"]]
    asked = {tuple(str(row["rates"].get(key)) for key in ("dataset", "split", "where")) for row in read_ones}
    if len(asked) > 1:
        said.append("The evaluations are not of the same lines: their rates differ for that reason too.")
    few = [row for row in read_ones if (row["clusters"]["count"] or 0) < MIN_TRUSTED_CLUSTERS]
    if few:
        least = min(few, key=lambda row: row["clusters"]["count"] or 0)["clusters"]
        said.append(
            f"Few clusters: {least['count'] or 0:.0f} {least['plural']} at least; read the intervals with care."
        )
    return said


def rate(rows: list[dict], name: str) -> dict:
    title, meaning = evaluation.RATES[name]
    scale = evaluation.scale_for([row["rates"] for row in rows], (name,))
    found = []
    for row in rows:
        value, within = number(row["rates"], name), evaluation.within(row["rates"], name)
        tip = f"{row['name']}: {title} {percent(value)} ({bounds(within)})"
        mark = plot.mark(value, within, scale, tip)
        found.append({"row": row, "value": value, "shown": percent(value), "within": bounds(within), "mark": mark})
    return {"name": name, "title": title, "meaning": meaning, "rows": found, "axis": plot.axis(scale), "within": True}


def speed(rows: list[dict], name: str, title: str, meaning: str, digits: int, factor: float) -> dict:
    scale = plot.scale_of([row[name] for row in rows if known(row[name])], form="{:g}", factor=factor)
    found = []
    for row in rows:
        value, within = row[name], ends_of(row, name)
        shown = f"{factor * value:,.{digits}f}".replace(",", "\u202f") if known(value) else UNKNOWN_SIGN
        mark = plot.mark(value, within, scale, f"{row['name']}: {title} {shown}")
        found.append({"row": row, "value": value, "shown": shown, "within": bounds(within, 0, 1), "mark": mark})
    return {
        "name": name,
        "title": title,
        "meaning": meaning,
        "rows": found,
        "axis": plot.axis(scale),
        "within": name == "lines_per_s",
    }


# ---------------------------------------------------------------------------------------------------- paired


def paired(rows: list[dict]) -> dict | None:
    """The CER of each run less that of the first, on the lines that both have read."""
    from jobs.evaluation.comparison import paired as paired_lines

    base, found = rows[0], []
    if not base["folder"]:
        return None
    for row in rows[1:]:
        one = {"row": row, "reason": None, "difference": None, "within": None, "p": None, "lines": None, "groups": None}
        one["warning"] = None
        found.append(one)
        if not row["folder"]:
            one["reason"] = "no evaluation"
            continue
        if not all(any(folder.glob("parts/*.parquet")) for folder in (row["folder"], base["folder"])):
            one["reason"] = "the lines of the evaluation are gone (its parts/)"
            continue
        try:
            values = paired_lines(row["folder"], base["folder"])
        except (ValueError, OSError, KeyError) as error:
            one["reason"] = clean(f"{error}")
            continue
        one |= {name: number(values, name) for name in ("difference", "p", "lines", "groups")}
        one["within"], one["warning"] = pair(values.get("low"), values.get("high")), values["warning"]
    ends = [abs(bound) for one in found for bound in (one["difference"], *(one["within"] or ())) if known(bound)]
    most = 1.08 * max(ends, default=0) or 0.01
    scale = plot.Scale(-most, most, form="{:+g}", factor=100)
    for one in found:
        tip = f"{one['row']['name']} less {base['name']}: {points(one['difference'])} points ({bounds(one['within'])})"
        one["mark"] = plot.mark(one["difference"], one["within"], scale, tip, 0.0)
    said = [f"{one['row']['name']}: {one['warning']}." for one in found if one["warning"]]
    return {"base": base, "rows": found, "axis": plot.axis(scale), "warnings": said}


# ---------------------------------------------------------------------------------------------------- GPUs


def scaling(rows: list[dict]) -> list[dict]:
    """Charts over the number of ranks, if there are several, with a line for each reader and kind of device."""
    groups: dict[tuple, list[dict]] = {}
    for row in sorted(rows, key=lambda row: row["world"] or 0):
        if row["efficiency"] is not None:
            groups.setdefault((row["reader"], row["device"]), []).append(row)
    if not groups:
        return []
    worlds = sorted({row["world"] for group in groups.values() for row in group})
    first = {name: group[0]["lines_per_s"] / group[0]["world"] for name, group in groups.items()}
    ideal = [((worlds[0], each * worlds[0]), (worlds[-1], each * worlds[-1]), "") for each in first.values()]
    charts = [
        over_ranks("Lines a second", groups, worlds, ("lines_per_s",), 1, ideal, log=True),
        over_ranks("Efficiency, %", groups, worlds, ("efficiency",), 100, [((worlds[0], 1.0), (worlds[-1], 1.0), "")]),
        over_ranks("CER, %", groups, worlds, ("cer",), 100),
        over_ranks("Waiting, % of the ranks' time", groups, worlds, tuple(SHARES), 100),
    ]
    return [chart for chart in charts if chart]


def ends_of(row: dict, name: str) -> tuple[float, float] | None:
    if name == "cer":
        return evaluation.within(row["rates"], "cer")
    return row["spread"] if name == "lines_per_s" else None


def over_ranks(title: str, groups: dict, worlds: list[int], names: tuple, factor: float, guides=(), log=False):
    """A chart of these figures over the number of ranks, with intervals or spreads where there are any; None where no
    figure is known."""
    series, values = [], [y for guide in guides for _, y in guide[:2]]
    for (reader, _), group in groups.items():
        for name in names:
            drawn = [(row, number(row["rates"], "cer") if name == "cer" else row[name]) for row in group]
            drawn = [(row, value) for row, value in drawn if known(value)]
            label = " ".join(filter(None, (reader if len(groups) > 1 else "", SHARES.get(name))))
            series.append(plot.Series(label, [(row["world"], value) for row, value in drawn], colour=COLOURS))
            for row, value in drawn:
                within, tip = ends_of(row, name), f"{row['name']}, {row['world']} ranks: {factor * value:.4g}"
                about = {"intervals": [within], "tips": [tip], "group": row["name"]}
                series.append(plot.Series("", [(row["world"], value)], "points", row["colour"], **about))
                values += [value, *(within or ())]
    if not values or len(series) == len(names) * len(groups):
        return None
    x, y = plot.scale_of(worlds, log=True), plot.scale_of(values, log=log, form="{:g}", factor=factor)
    chart = plot.Chart(f"{title}, over the number of ranks", x, y, series, "ranks", guides, x_ticks=worlds)
    return {"title": title, "svg": chart.svg()}


# ---------------------------------------------------------------------------------------------------- learning


def curves(rows: list[dict]) -> list[dict]:
    logged = [(row, read_metrics(row["run"])) for row in rows]
    charts = []
    for name, title, log, factor in CURVES:
        series = []
        for row, metrics in logged:
            spots = training.thinned(logged_points(metrics, name))
            tips = [f"{row['name']}, step {x}: {factor * y:.4g}" for x, y in spots]
            series.append(plot.Series(row["name"], spots, "line", row["colour"], row["dashed"], (), tips, row["name"]))
        values = [y for one in series for _, y in one.points]
        if values:
            log = log and min(values) > 0
            y = plot.scale_of(values, log=log, form="{:g}", factor=factor)
            x = plot.Scale(0, max(x for one in series for x, _ in one.points))
            charts.append({"title": title, "svg": plot.Chart(f"{title}, over the steps", x, y, series, "step").svg()})
    return charts


def settings(rows: list[dict]) -> list[dict]:
    """The settings in which the runs differ."""
    names = sorted({name for row in rows for name in row["config"]} - set(training.NOT_SHOWN))
    values = [(name, [training.shown(row["config"].get(name)) for row in rows]) for name in names]
    return [{"name": name, "values": shown} for name, shown in values if len(set(shown)) > 1]
