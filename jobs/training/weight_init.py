"""Weights of another run for a new model: every part that both have, whatever the alphabet."""

from pathlib import Path

import torch

from htr.charset import Charset
from htr.reader import Reader
from jobs.cli.console import log


def start_from(model: torch.nn.Module, charset: Charset, path: Path) -> None:
    """Copy what fits. A row a symbol is copied for every character that both alphabets have; the rest stays as it is.

    `path`: a run or a model's folder. Raises ValueError where nothing of the encoder fits: another size or kind.
    """
    other = Reader.load(path / "model" if (path / "model").is_dir() else path)
    ours, theirs = model.state_dict(), other.model.state_dict()
    both = [c for c in charset.characters if c in other.charset.labels]
    to = torch.tensor([0, *(charset.labels[c] for c in both)])
    source = torch.tensor([0, *(other.charset.labels[c] for c in both)])
    sizes = len(charset) + 1, len(other.charset) + 1
    copied = []
    for name, weight in ours.items():
        given = theirs.get(name)
        if given is None:
            continue
        if (
            (len(weight), len(given)) == sizes
            and weight.shape[1:] == given.shape[1:]
            and not name.startswith("encoder")
        ):
            weight[to] = given[source]
        elif weight.shape == given.shape:
            weight.copy_(given)
        else:
            continue
        copied.append(name)
    wanted = [name for name in ours if name.startswith("encoder.")]
    if not set(wanted) & set(copied):
        raise ValueError(f"{path}: no weight of its {other.config['size']} {other.config['model']} fits this model")
    model.load_state_dict(ours)
    new = len(charset) - len(both)
    log(f"train: {len(copied)} of {len(ours)} weights taken from {path}, {new} of {len(charset)} characters are new")
