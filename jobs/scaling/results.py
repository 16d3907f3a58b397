"""Results of a scaling experiment: speed and efficiency of a run of each size, as a table and a picture."""

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean, median

from jobs.training.config import read_run
from jobs.training.learning_curves import logged
from shards import files

WARM_UP_SHARE = 1 / 3  # of the steps are not counted: caches fill, widths are new, GPUs choose their kernels


@dataclass(frozen=True)
class Row:
    """One size of the experiment. `lowest`, `highest`: lines/s of its log lines. Shares are of the ranks' wall time."""

    ranks: int
    nodes: int
    batch: int
    lines_per_s: float
    lines_per_s_a_rank: float
    efficiency: float
    data_share: float
    exchange_share: float
    compute_share: float
    lowest: float
    highest: float
    first_step: int
    last_step: int
    log_lines: int


def training_lines(run: Path) -> list[dict]:
    """The log lines of a run since it last resumed at an earlier step; a line that is not whole is left out."""
    found: list[dict] = []
    for metrics in logged(run):
        if "lines_per_s" not in metrics:
            continue
        if found and metrics["step"] <= found[-1]["step"]:
            found = []
        found.append(metrics)
    return found


def warmed_up(lines: list[dict]) -> list[dict]:
    """The log lines whose steps all lie after the warm-up part; at least the last line."""
    begun = [0, *(line["step"] for line in lines)]
    kept = [line for line, start in zip(lines, begun, strict=False) if start >= WARM_UP_SHARE * begun[-1]]
    return kept or lines[-1:]


def figures(run: Path) -> dict[str, float] | None:
    """Of the log lines after the warm-up part: the median of lines/s, the mean of each share.

    None without a log line.
    """
    lines = training_lines(run)
    if not lines:
        return None
    kept = warmed_up(lines)
    speeds = [line["lines_per_s"] for line in kept]
    before = [line["step"] for line in lines if line["step"] < kept[0]["step"]]
    found = {"lines_per_s": median(speeds), "lowest": min(speeds), "highest": max(speeds), "log_lines": len(kept)}
    found |= {"first_step": max(before, default=0) + 1, "last_step": kept[-1]["step"]}
    for name in ("data_share", "exchange_share", "compute_share"):
        found[name] = fmean(line[name] for line in kept)
    return found


def rows_of(runs: dict[int, tuple[Path, int]]) -> list[Row]:
    """The rows of all sizes that have log lines. `runs`: run folder and number of nodes, by number of ranks.

    Efficiency is lines/s a rank divided by that of the smallest size.
    """
    rows: list[Row] = []
    for ranks in sorted(runs):
        run, nodes = runs[ranks]
        found, config = figures(run), read_run(run)
        if found is None or config is None:
            continue
        each = found["lines_per_s"] / ranks
        first = rows[0].lines_per_s_a_rank if rows else each
        rows.append(Row(ranks, nodes, config["batch"], lines_per_s_a_rank=each, efficiency=each / first, **found))
    return rows


# --- the table and the picture


def write(folder: Path, rows: list[Row], strong: bool, missing: list[int]) -> str:
    """scaling.csv, .md and .png, each replaced as a whole. -> the text of scaling.md"""
    table = io.StringIO()
    out = csv.writer(table)
    out.writerow(field.name for field in fields(Row))
    for row in rows:
        out.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in asdict(row).values())
    text = markdown(rows, strong, missing)
    files.replace(folder / "scaling.csv", table.getvalue())
    files.replace(folder / "scaling.md", text)
    files.replace(folder / "scaling.png", picture(rows, strong))
    return text


def markdown(rows: list[Row], strong: bool, missing: list[int]) -> str:
    first = rows[0]
    cells = [("ranks", "nodes", "batch", "lines/s", "lowest to highest", "lines/s a rank", "efficiency", "data wait",
              "exchange", "compute")]  # fmt: skip
    for row in rows:
        shares = (f"{share:.1%}" for share in (row.data_share, row.exchange_share, row.compute_share))
        speeds = (f"{row.lines_per_s:.1f}", f"{row.lowest:.1f} to {row.highest:.1f}", f"{row.lines_per_s_a_rank:.1f}")
        cells.append((str(row.ranks), str(row.nodes), str(row.batch), *speeds, f"{row.efficiency:.3f}", *shares))
    lines = [f"| {' | '.join(row)} |" for row in cells]
    lines.insert(1, "|" + "---:|" * len(cells[0]))
    kind = "Strong scaling: the global batch" if strong else "Weak scaling: the batch of a rank"
    taken = "; ".join(f"{row.ranks} ranks {row.first_step} to {row.last_step} ({row.log_lines} lines)" for row in rows)
    base = f"{first.ranks} rank{'s' * (first.ranks > 1)}"
    notes = [
        f"{kind} is the same. lines/s is the median of the log lines after the first third of the steps, beside the "
        "lowest and the highest of them; shares are their means over all ranks.",
        f"Efficiency is lines/s a rank over that of {base}. Exchange is what backward did not hide, waiting for slower "
        "ranks included.",
        f"Steps taken: {taken}.",
    ]
    if missing:
        notes.append(f"Not measured yet: {', '.join(map(str, missing))} ranks.")
    return "\n".join([*lines, "", *notes]) + "\n"


def picture(rows: list[Row], strong: bool) -> bytes:
    """A PNG: lines/s with the line of efficiency 1, and efficiency with the shares of waiting, over the ranks."""
    from matplotlib.figure import Figure

    ranks = [row.ranks for row in rows]
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    stays = "strong scaling, the global batch stays" if strong else "weak scaling, the batch of a rank stays"
    figure.suptitle(stays.capitalize(), fontsize="medium")
    speed, share = figure.subplots(1, 2)
    speeds = [row.lines_per_s for row in rows]
    errors = [[row.lines_per_s - row.lowest for row in rows], [row.highest - row.lines_per_s for row in rows]]
    ideal = [rows[0].lines_per_s_a_rank * count for count in ranks]
    speed.plot(ranks, ideal, "--", color="gray", label="efficiency 1")
    speed.errorbar(ranks, speeds, errors, marker="o", capsize=3, label="measured, lowest to highest")
    speed.set(xlabel="ranks", ylabel="lines/s", xscale="log", yscale="log")
    speed.set_yticks(ideal, [f"{value:.3g}" if value < 1000 else f"{value:,.0f}" for value in ideal])
    speed.legend(frameon=False)
    share.plot(ranks, [row.efficiency for row in rows], marker="o", label="efficiency")
    for name, label in (("data_share", "waiting for data"), ("exchange_share", "waiting for gradients")):
        share.plot(ranks, [getattr(row, name) for row in rows], marker=".", label=label)
    share.axhline(0.9, color="gray", linestyle=":")
    top = max(1.05, 1.05 * max(row.efficiency for row in rows))
    share.set(xlabel="ranks", xscale="log", ylim=(0, top), yticks=[0, 0.25, 0.5, 0.75, 0.9, 1.0])
    share.yaxis.set_major_formatter("{x:.0%}")
    share.legend(frameon=False, loc="best")
    for axes in (speed, share):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xticks(ranks, [str(count) for count in ranks])
        axes.minorticks_off()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()
