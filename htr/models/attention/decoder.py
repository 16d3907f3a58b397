"""A transformer decoder: Vaswani et al. 2017, Attention Is All You Need, with the norms first (Xiong et al. 2020).

What takes such a decoder longest is to find the frames of the next label. CTC knows them about: the labels that it has
begun before a frame are counted, and the heads are drawn to frames whose count is about that of the labels already
written, some closely, one not at all (a Gaussian bias on the energies, as Yang et al. 2018, Modeling Localness for
Self-Attention Networks, have it, about a count of labels as in Dong & Xu 2020, CIF).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from htr.models.layers import LayerNorm
from htr.types import Hypothesis

EOS = 0  # the label of the end of the text, and of its start
LAYERS, HEADS = 2, 4
PRECISIONS = (0.5, 0.1, 0.02, 0.0)  # a head: energy lost at one label's distance from CTC's count, by its square


class Memory(NamedTuple):
    """Keys and values of N lines for the layers' cross-attention."""

    keys: list[Tensor]  # a layer: (N, heads, T, C / heads)
    values: list[Tensor]
    key_padding_mask: Tensor  # (N, T) bool, frames that are not the line's
    counts: Tensor  # (N, T) float32, see label_counts

    def of(self, rows: Tensor) -> "Memory":
        keys, values = ([x[rows] for x in layers] for layers in (self.keys, self.values))
        return Memory(keys, values, self.key_padding_mask[rows], self.counts[rows])


class Layer(nn.Module):
    """A decoder layer: masked self-attention, cross-attention to the frames, feed-forward network; all residual."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm(width) for _ in range(3))
        self.self_attn = nn.Linear(width, 3 * width)  # query, key, value
        self.self_attn_out = nn.Linear(width, width)
        self.cross_attn_query = nn.Linear(width, width)
        self.cross_attn = nn.Linear(width, 2 * width)  # key, value
        self.cross_attn_out = nn.Linear(width, width)
        self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        key_padding_mask: Tensor,
        bias: Tensor,
        kv_cache: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """(N, L, C) -> the same, the first head's cross-attention weights (N, L, T), and the self-attention's keys and
        values. `bias`: (N, heads, L, T) of the cross-attention's energies; `kv_cache`: keys and values of earlier
        labels, where x is the one label after them.
        """
        q, k, v = map(heads, self.self_attn(self.norms[0](x)).chunk(3, 2))
        if kv_cache is not None:
            k, v = torch.cat([kv_cache[0], k], 2), torch.cat([kv_cache[1], v], 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=kv_cache is None)
        x = x + self.dropout(self.self_attn_out(y.transpose(1, 2).flatten(2)))
        q = heads(self.cross_attn_query(self.norms[1](x)))
        energy = (q @ keys.transpose(2, 3)).float() / math.sqrt(q.shape[3]) + bias
        weights = energy.masked_fill(key_padding_mask[:, None, None], -torch.inf).softmax(3)
        y = weights.to(values.dtype) @ values
        x = x + self.dropout(self.cross_attn_out(y.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.ffn(self.norms[2](x))), weights[:, 0], (k, v)


class Decoder(nn.Module):
    """An autoregressive transformer decoder over a line's frames.

    `noise`: the share of the labels given in training that are replaced by random ones, so that it learns to go
    on after errors of its own (Coquenet et al. 2023, DAN).
    """

    noise = 0.2

    def __init__(self, width: int, labels: int, dropout: float = 0.0):
        """`width`: of the frames, and of the decoder."""
        super().__init__()
        # CTC lets frames grow as large as it likes: without a norm their positions would be lost beside them
        self.enter = nn.Sequential(LayerNorm(width), nn.Linear(width, width))
        self.embedding = nn.Embedding(labels + 1, width)
        self.layers = nn.ModuleList(Layer(width, dropout) for _ in range(LAYERS))
        self.norm = LayerNorm(width)
        self.output = nn.Linear(width, labels + 1)
        self.register_buffer("precisions", torch.tensor(PRECISIONS))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *others) -> None:
        """A decoder of before, which was trained without the bias, reads and is trained on without it."""
        state_dict.setdefault(f"{prefix}precisions", torch.zeros(HEADS))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def encode_memory(self, features: Tensor, lengths: Tensor, log_probs: Tensor) -> Memory:
        """(N, T, C) frames, (N,) how many of them are the line's, CTC's log-probabilities (N, T, labels + 1)."""
        frames = self.enter(features)
        frames = frames + positions(0, frames.shape[1], frames)
        pairs = [layer.cross_attn(frames).chunk(2, 2) for layer in self.layers]
        lengths = lengths.to(frames.device, non_blocking=True)
        key_padding_mask = torch.arange(frames.shape[1], device=frames.device) >= lengths[:, None]
        return Memory(
            [heads(k) for k, _ in pairs], [heads(v) for _, v in pairs], key_padding_mask, label_counts(log_probs)
        )

    def bias(self, memory: Memory, first: int, count: int) -> Tensor:
        """(N, heads, count, T) of the energies of the labels from `first` on."""
        written = torch.arange(first, first + count, device=memory.counts.device)
        away = (written[:, None] - memory.counts[:, None]).square()
        return -self.precisions[:, None, None] * away[:, None]

    def forward(self, memory: Memory, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """(N, L) targets ending in EOS -> logits (N, L, labels + 1) by teacher forcing, and cross-attention weights
        (N, L, T) of the first head, the mean of the layers. In training a share `noise` of the input is random.
        """
        given = F.pad(wanted[:, :-1], (1, 0), value=EOS)
        if self.training and self.noise:
            wrong = torch.rand(given.shape, device=given.device) < self.noise
            wrong[:, 0] = False
            given = torch.where(wrong, torch.randint_like(given, 1, self.embedding.num_embeddings), given)
        x = self.embedding(given)
        x = x + positions(0, x.shape[1], x)
        bias, attended = self.bias(memory, 0, x.shape[1]), []
        for layer, keys, values in zip(self.layers, memory.keys, memory.values, strict=True):
            x, weights, _ = layer(x, keys, values, memory.key_padding_mask, bias)
            attended.append(weights)
        return self.output(self.norm(x)), torch.stack(attended).mean(0)

    def greedy(self, memory: Memory) -> list[Hypothesis]:
        """The most probable label at each step, until EOS or one label a frame."""
        lengths = (~memory.key_padding_mask).sum(1)
        given = torch.full_like(lengths, EOS)
        done = torch.zeros_like(given, dtype=torch.bool)
        self_attn: list[tuple[Tensor, Tensor] | None] = [None] * len(self.layers)
        chosen, confidences = [], []
        for i in range(int(lengths.max())):
            x = self.embedding(given)[:, None]
            x = x + positions(i, 1, x)
            bias, mask = self.bias(memory, i, 1), memory.key_padding_mask
            for j, layer in enumerate(self.layers):
                x, _, self_attn[j] = layer(x, memory.keys[j], memory.values[j], mask, bias, self_attn[j])
            best, given = self.output(self.norm(x[:, 0])).float().softmax(1).max(1)
            done = done | (given == EOS) | (i >= lengths)
            given = given.masked_fill(done, EOS)
            chosen.append(given)
            confidences.append(best)
            if done.all():
                break
        rows, probs = torch.stack(chosen, 1).tolist(), torch.stack(confidences, 1).tolist()
        readings = []
        for row, prob in zip(rows, probs, strict=True):
            size = row.index(EOS) if EOS in row else len(row)
            readings.append(Hypothesis(row[:size], sum(prob[:size]) / size if size else 1.0, prob[:size]))
        return readings


def heads(x: Tensor) -> Tensor:
    """(N, L, C) -> (N, heads, L, C / heads)."""
    return x.unflatten(2, (HEADS, -1)).transpose(1, 2)


@torch.no_grad()
def label_counts(log_probs: Tensor) -> Tensor:
    """CTC's log-probabilities (N, T, labels + 1) -> (N, T) float32: how many labels CTC expects to begin before each
    frame. At the peak of the first label it is 0, of the second 1, and so on.

    A label begins where its probability rises.
    """
    probs = log_probs.float().exp()[..., 1:]
    begun = (probs - F.pad(probs[:, :-1], (0, 0, 1, 0))).clamp(min=0).sum(2)
    if torch.are_deterministic_algorithms_enabled():  # cumsum on a GPU adds floats in any order
        return begun.cpu().cumsum(1).to(begun.device) - 0.5 * begun - 0.5
    return begun.cumsum(1) - 0.5 * begun - 0.5


def positions(first: int, count: int, like: Tensor) -> Tensor:
    """Sinusoidal positional encoding of `count` positions from `first` on: (count, C) in the type of `like` (…, C)."""
    width = like.shape[-1]
    places = torch.arange(first, first + count, device=like.device, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, width, 2, device=like.device) * (-math.log(10_000) / width))
    return torch.cat([torch.sin(places * rates), torch.cos(places * rates)], 1).to(like.dtype)
