"""The learning curves of a run, from its metrics.jsonl to RUN/curves.png: loss, errors on dev, learning rate, speed."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

from shards import files

PICTURE = "curves.png"
FEW_POINTS = 50  # points, that are seen one by one


def logged(run: Path) -> Iterator[dict]:
    """The lines of metrics.jsonl as they were written; one that isn't whole is left out."""
    try:
        lines = (run / "metrics.jsonl").read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            metrics = json.loads(line)
        except ValueError:  # the disk was full, or it is being written
            continue
        if isinstance(metrics, dict) and isinstance(metrics.get("step"), int):
            yield metrics


def read_metrics(run: Path) -> list[dict]:
    """What metrics.jsonl says of each step, by step: the line of the training and, where dev was read, its errors too.

    A run that is resumed at an earlier step appends to the file: what the lost steps had logged is left out. So is a
    line that isn't whole. Empty where there is no file.
    """
    found: dict[int, dict] = {}
    for metrics in logged(run):
        step = metrics["step"]
        # errors on dev stand at the step of the training's line before them
        while found and (last := next(reversed(found))) >= step + ("loss" not in metrics):
            del found[last]
        found[step] = found.get(step, {}) | metrics
    return list(found.values())


def draw(run: Path) -> Path | None:
    """-> the picture, or None where nothing is logged yet. Raises OSError, and what matplotlib raises."""
    metrics = read_metrics(run)
    if not metrics:
        return None
    from matplotlib.figure import Figure  # without pyplot: no state that is shared, no window, nothing to close
    from matplotlib.ticker import LogFormatter

    figure = Figure(figsize=(12, 7), layout="constrained")
    figure.suptitle(run.resolve().name, parse_math=False)
    (loss, errors), (rate, speed) = figure.subplots(2, 2, sharex=True)
    curve(loss, "loss of training, nats a character", points(metrics, "loss"))
    loss.set_yscale("log", nonpositive="mask")
    loss.yaxis.set_major_formatter("{x:g}")
    loss.yaxis.set_minor_formatter(LogFormatter())  # 0.3, no power of ten
    curve(errors, "CER on dev, %", [(step, 100 * value) for step, value in points(metrics, "dev_cer")])
    curve(rate, "learning rate", points(metrics, "lr"))
    curve(speed, "lines a second", points(metrics, "lines_per_s"))
    for axis in (errors, speed):
        axis.set_ylim(0, 1.02 * axis.get_ylim()[1])
    for axis in (rate, speed):
        axis.set_xlabel("step")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    files.replace(run / PICTURE, picture.getvalue())
    return run / PICTURE


def points(metrics: list[dict], name: str) -> list[tuple[int, float]]:
    """(step, value) wherever it was logged; a value that is not finite leaves a gap."""
    return [(line["step"], line[name]) for line in metrics if isinstance(line.get(name), int | float)]


def curve(axis, title: str, found: list[tuple[int, float]]) -> None:
    axis.set_title(title)
    axis.grid(alpha=0.3, which="both")
    if found:
        axis.plot(*zip(*found, strict=True), marker="." if len(found) < FEW_POINTS else "")
    else:
        axis.text(0.5, 0.5, "not yet", ha="center", transform=axis.transAxes)
