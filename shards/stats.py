"""Statistics of a data set: counts, widths, lengths, characters, rejects."""

import collections
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.certificate import SPLITS
from shards.index import Index
from shards.plan import read_note

BY = ("year", "form", "field")
QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


@dataclass(frozen=True)
class Stats:
    """Counts and distributions of a data set."""

    levels: dict[str, dict[str, int]]  # split -> level -> samples
    groups: dict[str, dict[str, int]]  # year, form, field -> value -> samples of all splits
    certificates: int
    writers: int
    widths: np.ndarray  # of lines with a text of their own, px
    heights: np.ndarray
    lengths: np.ndarray  # of their texts, characters
    characters: dict[str, int]
    rejects: dict[str, int]  # reason -> rows
    bytes: int


def stats_of(index: Index) -> Stats:
    """Columns of the index are read one at a time, so that millions of lines need no more memory than one column."""
    levels = {split: collections.Counter() for split in SPLITS}
    split, level = column(index, "split"), column(index, "level")
    pairs = pa.table({"split": split, "level": level}).group_by(["split", "level"])
    for entry in pairs.aggregate([([], "count_all")]).to_pylist():
        levels[entry["split"]][entry["level"]] = entry["count_all"]
    lines = pc.equal(level, "line")
    groups = {name: counted(column(index, name)) for name in BY}
    numbers = {name: column(index, name).filter(lines).to_numpy() for name in ("width", "height", "length")}
    characters = collections.Counter()
    for shard in index.shards:
        characters.update(read_note(index.folder, shard["shard"])["characters"])
    return Stats(
        levels={name: dict(counts) for name, counts in levels.items() if counts},
        groups=groups,
        certificates=distinct(column(index, "certificate")),
        writers=distinct(column(index, "writer")),
        widths=numbers["width"],
        heights=numbers["height"],
        lengths=numbers["length"],
        characters=dict(characters.most_common()),
        rejects=read_note(index.folder, "index")["rejects"],
        bytes=sum(shard["bytes"] for shard in index.shards),
    )


def column(index: Index, name: str) -> pa.ChunkedArray:
    """One column of the index, of all samples."""
    dictionary = [name] if name in ("split", "level", *BY, "certificate", "writer") else []
    return pq.read_table(index.folder / "index.parquet", columns=[name], read_dictionary=dictionary)[
        name
    ].unify_dictionaries()


def counted(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each value is there, in the order of the values."""
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}
    return dict(sorted(counts.items()))


def distinct(values: pa.ChunkedArray) -> int:
    """How many different values there are, without the empty one."""
    return len(set(values.unique().to_pylist()) - {""})


def draw(stats: Stats, path: Path, title: str) -> None:
    """Write the statistics as an image of six panels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(15, 8), layout="constrained")
    figure.suptitle(title)
    bars(axes[0, 0], "samples by split and level", stats.levels)
    bars(axes[0, 1], "samples by year", {"all": stats.groups["year"]} if len(stats.groups["year"]) > 1 else {})
    fields = dict(collections.Counter(stats.groups["field"]).most_common(24))
    across(axes[0, 2], "samples by field", fields)
    histogram(axes[1, 0], "width of a line, px", stats.widths)
    histogram(axes[1, 1], "length of its text, characters", stats.lengths)
    across(axes[1, 2], "rejected rows by reason", dict(collections.Counter(stats.rejects).most_common(12)))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def bars(axis, title: str, groups: dict[str, dict[str, int]]) -> None:
    """`groups`: {"all": counts}, a bar for each count; or group -> counts, a bar for each group, its counts stacked."""
    axis.set_title(title)
    if not groups:
        axis.text(0.5, 0.5, "not known", ha="center", transform=axis.transAxes)
        return
    if "all" in groups:
        axis.bar([name or "?" for name in groups["all"]], list(groups["all"].values()))
    else:
        base = np.zeros(len(groups))
        for level in sorted({level for counts in groups.values() for level in counts}):
            heights = np.array([counts.get(level, 0) for counts in groups.values()])
            axis.bar(list(groups), heights, bottom=base, label=level)
            base += heights
        axis.legend()
    axis.tick_params(axis="x", rotation=45)


def across(axis, title: str, counts: dict[str, int]) -> None:
    axis.set_title(title)
    axis.barh([(name or "?")[:48] for name in reversed(counts)], list(reversed(counts.values())))
    axis.tick_params(axis="y", labelsize=8)
    if not counts:
        axis.text(0.5, 0.5, "none", ha="center", transform=axis.transAxes)


def histogram(axis, title: str, values: np.ndarray) -> None:
    axis.set_title(title)
    if len(values):
        axis.hist(values, bins=60)
