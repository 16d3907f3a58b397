"""The texts of a data set's samples, without their images, and those that a run was trained on."""

import os
from pathlib import Path

import pyarrow as pa

from htr.certificate import clean_text, log_name
from jobs.training.config import parse_where, read_run
from shards.files import in_shell
from shards.index import Index, read_index
from shards.plan import read_note
from shards.tar import text_offset

TEXT_COLUMNS = ("key", "shard", "offset", "size", "text_size")


def texts_of(index: Index, table: pa.Table, column: str | None = None) -> list[str]:
    """The texts of these samples (see Index.samples), in their order, or what stands in a column. Raises ValueError for
    a shard that was cut short or changed, OSError for one that is missing.
    """
    if column:
        return [clean_text(text) for text in table[column].to_pylist()]
    texts, shard, handle = [], None, None
    try:
        for key, name, offset, size, text_size in zip(
            *(table[column].to_pylist() for column in TEXT_COLUMNS), strict=True
        ):
            if name != shard:
                if handle is not None:
                    os.close(handle)
                handle, shard = os.open(index.folder / f"{name}.tar", os.O_RDONLY), name
            content = os.pread(handle, text_size, offset + text_offset(size, key))
            if len(content) != text_size:
                raise ValueError(
                    f"{index.folder / name}.tar: cut short or changed since it was committed, at {log_name(key)} "
                    f"(see python -m jobs verify {in_shell(index.folder)})"
                )
            texts.append(content.decode())
    finally:
        if handle is not None:
            os.close(handle)
    return texts


def config_of(run: Path) -> dict:
    config = read_run(run)
    if config is None:
        raise ValueError(f"{run}: not a run folder (no config.yaml)")
    return config


def dataset_of(config: dict, asked: Path | None = None) -> Index:
    """The data set that is asked for, or the one that a run was trained on.

    Raises ValueError where that has gone, another lies in its place, or nobody knows it (a model without a run).
    """
    if asked is not None:
        return read_index(asked)
    if not config.get("folder"):
        raise ValueError("the data set that this model was trained on is not known here: give one")
    folder = Path(config["folder"])
    index = read_index(folder)
    # a retry adds rows to the same plan: still the same data set
    known = config.get("plan") or ("" if config.get("mix") else config.get("dataset"))
    if known and known not in (index.fingerprint, read_note(folder)["fingerprint"]):
        raise ValueError(
            f"{folder.absolute()} is not the data set that the run was trained on (fingerprint {index.fingerprint}, "
            f"then {known}): name the right one"
        )
    return index


def trained_on(config: dict) -> list[tuple[Index, pa.Table]]:
    """The data sets that a run was trained on, and their samples with a text. ValueError where one has gone."""
    from jobs.training.data import parse_mix

    main = dataset_of(config)
    sets = [(main, parse_where(config["where"])), *((parse_mix(mix)[0], {}) for mix in config.get("mix", []))]
    return [(index, index.samples(config["split"], {"level": ["line", "field"], **where})) for index, where in sets]
