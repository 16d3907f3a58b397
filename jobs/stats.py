"""python -m jobs stats DATASET: the main figures of a data set, in the terminal and as DATASET/stats.png.

Samples by split, level, year, form and field; widths; text lengths; characters; rejects by reason. Counts only.
"""

from dataclasses import dataclass
from pathlib import Path

from jobs.cli.console import log
from jobs.cli.settings import setting


@dataclass(frozen=True)
class Settings:
    dataset: Path = setting(help="folder of a data set", positional=True)
    out: Path | None = setting(None, "picture to write (default: DATASET/stats.png)")


def main(args: Settings) -> int:
    from rich.console import Console

    from shards.index import read_index
    from shards.stats import draw, stats_of

    stats = stats_of(read_index(args.dataset))
    show(Console(), stats)
    path = args.out or args.dataset / "stats.png"
    draw(stats, path, args.dataset.resolve().name)
    log(f"stats: {path}")
    return 0


def show(console, stats) -> None:
    from rich.table import Table

    kinds = sorted({level for counts in stats.levels.values() for level in counts})
    table = Table("split", *kinds, title="samples")
    for split, counts in stats.levels.items():
        table.add_row(split, *(str(counts.get(kind, 0)) for kind in kinds))
    console.print(table)
    known = f"{stats.certificates} certificates, {stats.writers} writers known, {stats.bytes / 1e9:.3f} GB"
    console.print(known, highlight=False)
    show_numbers(console, stats)
    for name, counts in stats.groups.items():
        if set(counts) != {""}:
            listed = sorted(counts.items(), key=lambda item: -item[1])
            shown = ", ".join(f"{value or '(none)'} {count}" for value, count in listed[:24])
            more = f", and {len(listed) - 24} more" if len(listed) > 24 else ""
            console.print(f"{name}: {shown}{more}", highlight=False, markup=False, soft_wrap=True)
    characters = " ".join(f"{character!r} {count}" for character, count in stats.characters.items())
    console.print(f"{len(stats.characters)} characters: {characters}", highlight=False, markup=False, soft_wrap=True)
    for reason, count in sorted(stats.rejects.items(), key=lambda item: -item[1]):
        console.print(f"    {count:8d} rejected: {reason}", highlight=False, markup=False, soft_wrap=True)


def show_numbers(console, stats) -> None:
    import numpy as np
    from rich.table import Table

    from shards.stats import QUANTILES

    if not len(stats.widths):
        return
    table = Table("lines with a text of their own", *(f"{100 * q:g} %" for q in QUANTILES), "most")
    for title, values in (("width, px", stats.widths), ("height, px", stats.heights), ("characters", stats.lengths)):
        table.add_row(title, *(f"{q:.0f}" for q in np.quantile(values, QUANTILES)), str(values.max()))
    console.print(table)
