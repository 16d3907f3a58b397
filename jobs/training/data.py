"""The data of a training: the samples of its data sets with their sampling weights, the charset, and dev."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from htr.certificate import clean_text
from htr.charset import Charset
from jobs.training.config import DataConfig, parse_where
from shards.index import Index, read_index
from shards.local import copy_shards
from shards.reading import COLUMNS, Samples
from shards.sampler import Weight

LEVELS = ("line", "field", "part", "blank")  # what readers learn from


@dataclass(frozen=True)
class TrainingData:
    samples: Samples
    weights: list[Weight]  # of each of the samples' sources
    charset: Charset
    dev: Samples | None
    fingerprint: str
    encode: Callable[[str], list[list[int]]]  # a text to its accepted texts, as labels

    @classmethod
    def open(cls, config: DataConfig, local_copy: bool = False) -> "TrainingData":
        """Raises ValueError for a data set, column, weight or table that is not there or not good."""
        main = read_index(config.dataset)
        where = parse_where(config.where)
        sets = [(main, Weight(), where), *((*parse_mix(mix), {}) for mix in config.mix)]
        sources, weights, characters, names = [], [], set(), []
        for index, weight, chosen in sets:
            texts, blanks = texts_and_blanks(index, config.split, chosen, config.text)
            folder = local_copy_of(index, (texts, blanks)) if local_copy else index.folder
            sources.append((folder, texts))
            weights.append(weight)
            if blanks.num_rows:  # most fields are blank: a reader must know them, and need not see them all each time
                whole = pc.sum(pc.not_equal(texts["level"], "part")).as_py()
                share = min(config.blanks * whole / blanks.num_rows, 1.0)
                sources.append((folder, blanks))
                weights.append(Weight(share * weight.start, share * weight.end))
            characters |= characters_of(texts, config.text) if config.text else set(index.characters)
            names.append(f"{index.fingerprint} {weight.start:g}:{weight.end:g}")
        charset = Charset(characters)
        has_dev = main.lines.get("dev") and config.split != "dev"
        columns = [*COLUMNS, *([config.text] if config.text else [])]
        dev = Samples(main.folder, main.samples("dev", columns=columns), config.text) if has_dev else None
        mixed = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        fingerprint = mixed if config.mix else main.fingerprint
        samples = Samples.of(sources, config.text)
        return cls(samples, weights, charset, dev, fingerprint, encoder(charset, config.abbreviations))


def parse_mix(mix: str) -> tuple[Index, Weight]:
    """ "DATASET=0.5" or "DATASET=1:0.1", the weight at the training's start and end."""
    path, _, numbers = mix.rpartition("=")
    try:
        start, _, end = numbers.partition(":")
        weight = Weight(float(start), float(end or start))
    except ValueError:
        path = ""
    if not path or not (weight.start >= 0 and weight.end >= 0 and 0 < weight.start + weight.end < 1e6):
        raise ValueError(f"--mix {mix}: write it as DATASET=WEIGHT or DATASET=WEIGHT:WEIGHT, weights of 0 or more")
    return read_index(Path(path)), weight


def texts_and_blanks(
    index: Index, split: str, where: dict[str, list[str]], text: str | None = None
) -> tuple[pa.Table, pa.Table]:
    """Rows of the index with a text, and blank ones; of their columns what Samples needs, and `text`."""
    table = index.samples(split, {"level": list(LEVELS), **where}, [*COLUMNS, *([text] if text else [])])
    blank = pc.equal(table["level"], "blank")
    return table.filter(pc.invert(blank)), table.filter(blank)


def local_copy_of(index: Index, parts: tuple[pa.Table, ...]) -> Path:
    """A copy of the shards of these rows on the node's own disk, made now where it is not there."""
    disk = os.environ.get("HTR_SCRATCH")
    if not disk:
        raise ValueError("--local-copy: HTR_SCRATCH names no disk of this node: set it in slurm/site.env")
    return copy_shards(index, {name for part in parts for name in pc.unique(part["shard"]).to_pylist()}, Path(disk))


def characters_of(table: pa.Table, column: str) -> set[str]:
    return set().union(*(clean_text(text) for text in table[column].to_pylist()))


def encoder(charset: Charset, abbreviations: Path | None) -> Callable[[str], list[list[int]]]:
    if abbreviations is None:
        return lambda text: [charset.encode(text)]
    from htr.references import References

    references = References.load(abbreviations)
    return lambda text: references.targets(text, charset)
