"""Start from the weights of another run: every part that both models have, whatever the charset."""

from pathlib import Path

import torch

from htr.charset import Charset
from htr.reader import Reader

# weights by name, not by size: with 95 characters a matrix of size tiny has as many rows as there are labels
ROW_A_LABEL = ("head.", "auxiliary.", "decoder.embedding.", "decoder.output.")


def start_from(model: torch.nn.Module, charset: Charset, path: Path) -> str:
    """Copy what fits. A row a label is copied for every character that both charsets have; the rest stays as it is.

    `path`: a run or a model's folder. Raises ValueError where less than half of its convolutions fit: another size.
    """
    other = Reader.load(path / "model" if (path / "model").is_dir() else path)
    ours, theirs = model.state_dict(), other.model.state_dict()
    both = [c for c in charset.characters if c in other.charset.labels]
    to = torch.tensor([0, *(charset.labels[c] for c in both)])
    source = torch.tensor([0, *(other.charset.labels[c] for c in both)])
    copied = []
    for name, weight in ours.items():
        given = theirs.get(name)
        if given is None:
            continue
        if name.startswith(ROW_A_LABEL) and weight.shape[1:] == given.shape[1:]:
            weight[to] = given[source]
        elif weight.shape == given.shape:
            weight.copy_(given)
        else:
            continue
        copied.append(name)
    # the recurrent layers may be of another kind; a few convolutions that happen to fit are no start
    wanted = [name for name in ours if name.startswith(("encoder.stem", "encoder.stages"))]
    fit = len(set(wanted) & set(copied))
    if 2 * fit < len(wanted):
        raise ValueError(
            f"{path}: {fit} of {len(wanted)} weights of this model's convolutions fit: give the size of its encoder, "
            f"--size {other.config['size']}"
        )
    model.load_state_dict(ours)
    new = len(charset) - len(both)
    return f"{len(copied)} of {len(ours)} weights taken from {path}, {new} of {len(charset)} characters are new"
