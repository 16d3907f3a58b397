"""The data of a training: the samples of its data sets with their sampling weights, the charset, and dev."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from htr.charset import Charset
from jobs.training.config import DataConfig, parse_where
from shards import precomputed
from shards.index import Index, read_index
from shards.plan import read_note
from shards.reading import MapSource, Samples
from shards.ready import prepare
from shards.row_map import LEVELS as KNOWN_LEVELS
from shards.sampler import MIXINGS, NEWEST_MIXING, Mixing, Weight

LEVELS = ("line", "field", "part", "blank")  # what readers learn from


@dataclass(frozen=True)
class TrainingData:
    samples: Samples
    weights: list[Weight]  # of each of the samples' sources
    charset: Charset
    dev: Samples | None
    fingerprint: str
    encode: Callable[[str], list[list[int]]]  # a text to its accepted texts, as labels

    mixing: Mixing = MIXINGS[NEWEST_MIXING]
    kept: list[Path] | None = None  # of each source, where its lines are kept ready-made
    without_text: int = 0  # lines and fields with nothing to write, as of a column that is not filled in everywhere

    @classmethod
    def open(cls, config: DataConfig) -> "TrainingData":
        """Raises ValueError for a data set, column, weight or table that is not there or not good."""
        main = read_index(config.dataset)
        where = parse_where(config.where)
        sets = [(main, Weight(), where), *((*parse_mix(mix), {}) for mix in config.mix)]
        sources, weights, characters, names, without_text = [], [], set(), [], 0
        for index, weight, chosen in sets:
            texts, blanks = sources_of(index, config.split, chosen, config.text)
            sources.append(texts)
            weights.append(weight)
            without_text += int(np.count_nonzero(texts.lengths(np.arange(len(texts.row))) == 0))
            if len(blanks.row):  # most fields are blank: a reader must know them, and need not see them all each time
                share = min(config.blanks * texts.whole / len(blanks.row), 1.0)
                sources.append(blanks)
                weights.append(Weight(share * weight.start, share * weight.end))
            characters |= texts.characters() if config.text else characters_of(index, config.split)
            names.append(f"{index.fingerprint} {weight.start:g}:{weight.end:g}")
        charset = Charset(characters)
        has_dev = main.lines.get("dev") and config.split != "dev"
        dev = Samples.of([MapSource(main, "dev", ("line",), {}, config.text)]) if has_dev else None
        if dev and not dev.lengths(np.arange(len(dev))).any():  # a CER of nothing would choose no model
            dev = None
        mixed = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        fingerprint = mixed if config.mix else main.fingerprint
        samples = Samples.of(sources)
        encode = encoder(charset, config.abbreviations)
        return cls(samples, weights, charset, dev, fingerprint, encode, without_text=without_text)

    @property
    def shards_digest(self) -> str:
        """Of what the indexes say of all shards: the same rows, made anew, may have other images."""
        return hashlib.sha256(" ".join(source.index.digest for source in self.samples.sources).encode()).hexdigest()[
            :16
        ]

    def use_precomputed(self, height: int) -> list[str]:
        """Read lines that were made for this height (see shards.precomputed). -> what is to be said of it."""
        said = []
        for source in [*self.samples.sources, *(self.dev.sources if self.dev else [])]:
            source.lines, why = precomputed.find(source.index, height)
            said += [f"lines are read from {source.lines}"] if source.lines else []
            said += [f"{why}: lines are made of the shards"] if why else []
        return sorted(set(said))

    def keep(self, height: int) -> "TrainingData":
        """The same, with lines kept ready-made on the node's own disk (see shards.ready). Raises ValueError."""
        disk = os.environ.get("HTR_SCRATCH")
        if not disk:
            raise ValueError("--local-copy: HTR_SCRATCH names no disk of this node: set it in slurm/site.env")
        sources = self.samples.sources
        return replace(self, kept=[prepare(s.index.digest, len(s.map["kind"]), height, Path(disk)) for s in sources])


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


def sources_of(
    index: Index, split: str, where: dict[str, list[str]], column: str | None = None
) -> tuple[MapSource, MapSource]:
    """The texts of the index, and the blank fields. Raises ValueError where there is neither."""
    levels = [level for level in where.get("level", LEVELS) if level in KNOWN_LEVELS]
    others = {name: values for name, values in where.items() if name != "level"}
    parts = tuple(level for level in levels if level not in ("blank", "part"))
    texts = MapSource(index, split, parts, others, column)
    blanks = MapSource(index, split, ("blank",) if "blank" in levels else (), others, column)
    if not len(texts.row) and not len(blanks.row):
        raise index.nothing_left(split, {"level": list(LEVELS), **where})
    return texts, blanks


def characters_of(index: Index, split: str) -> set[str]:
    """Those of the index, which are train's, and of another split those that its shards' notes name."""
    found = set(index.characters)
    for shard in index.shards if split != "train" else ():
        if shard["split"] == split:
            found |= set(read_note(index.folder, shard["shard"])["characters"])
    return found


def encoder(charset: Charset, abbreviations: Path | None) -> Callable[[str], list[list[int]]]:
    if abbreviations is None:
        return lambda text: [charset.encode(text)]
    from htr.references import References

    references = References.load(abbreviations)
    return lambda text: references.targets(text, charset)
