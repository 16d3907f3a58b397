"""A GRU decoder with location-aware attention: Chorowski et al. 2015, Attention-Based Models for Speech Recognition."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from htr.decoding import Reading

STOP = 0  # the symbol for the end of the text, and what the decoder is given first


class Decoder(nn.Module):
    """One symbol a step: attend to the frames, given what was attended to before, and the symbols so far.

    `noise`: the share of the symbols given in training that are wrong, since it must live with its own errors when it
    reads (Coquenet et al. 2023, DAN).
    """

    noise = 0.2

    def __init__(self, features: int, hidden: int, symbols: int):
        super().__init__()
        # CTC lets frames grow as large as it likes, and the attention's tanh would know no difference between them
        self.norm = nn.LayerNorm(features)
        self.embedding = nn.Embedding(symbols + 1, hidden)
        self.cell = nn.GRUCell(hidden + features, hidden)
        self.keys = nn.Linear(features, hidden)
        self.query = nn.Linear(hidden, hidden, bias=False)
        # where the last glimpses were: the last weights and the sum of all so far
        self.location = nn.Conv1d(2, 16, 15, padding=7, bias=False)
        self.located = nn.Linear(16, hidden, bias=False)
        self.energy = nn.Linear(hidden, 1, bias=False)
        self.output = nn.Sequential(nn.Linear(hidden + features, hidden), nn.ReLU(), nn.Linear(hidden, symbols + 1))

    def start(self, features: Tensor, lengths: Tensor) -> dict:
        n, t, c = features.shape
        features = self.norm(features)
        weights = features.new_zeros(n, 2, t)
        weights[:, 0, 0] = 1.0
        beyond = torch.arange(t, device=features.device) >= lengths[:, None]
        return {
            "features": features,
            "keys": self.keys(features),
            "beyond": beyond,
            "weights": weights,
            "glimpse": features.new_zeros(n, c),
            "hidden": features.new_zeros(n, self.query.in_features),
        }

    def step(self, state: dict, symbols: Tensor) -> Tensor:
        """Feed (N,) symbols; the state moves on. -> (N, hidden + features), what the output layer sees."""
        hidden = self.cell(torch.cat([self.embedding(symbols), state["glimpse"]], 1), state["hidden"])
        located = self.located(self.location(state["weights"]).transpose(1, 2))
        energy = self.energy(torch.tanh(state["keys"] + self.query(hidden)[:, None] + located))[..., 0]
        weights = energy.float().masked_fill(state["beyond"], -torch.inf).softmax(1).to(energy.dtype)
        glimpse = torch.bmm(weights[:, None], state["features"])[:, 0]
        state["weights"] = torch.stack([weights, state["weights"][:, 1] + weights], 1)
        state["glimpse"], state["hidden"] = glimpse, hidden
        return torch.cat([hidden, glimpse], 1)

    def forward(self, features: Tensor, lengths: Tensor, wanted: Tensor) -> Tensor:
        """(N, T, C), (N,), (N, L) targets ending in STOP -> logits (N, L, symbols + 1), each step given the truth.

        In training a share of what is given is wrong.
        """
        state = self.start(features, lengths)
        given = F.pad(wanted[:, :-1], (1, 0), value=STOP)
        if self.training and self.noise:
            wrong = torch.rand(given.shape, device=given.device) < self.noise
            wrong[:, 0] = False
            given = torch.where(wrong, torch.randint_like(given, 1, self.embedding.num_embeddings), given)
        return self.output(torch.stack([self.step(state, given[:, i]) for i in range(given.shape[1])], 1))

    def greedy(self, features: Tensor, lengths: Tensor) -> list[Reading]:
        """The most probable symbol at each step, to STOP or to one symbol a frame."""
        state = self.start(features, lengths)
        given = lengths.new_full((len(lengths),), STOP)
        done = torch.zeros_like(given, dtype=torch.bool)
        chosen, confidences = [], []
        for i in range(int(lengths.max())):
            best, given = self.output(self.step(state, given)).float().softmax(1).max(1)
            done = done | (given == STOP) | (i >= lengths)
            given = given.masked_fill(done, STOP)
            chosen.append(given)
            confidences.append(best)
            if done.all():
                break
        rows, probs = torch.stack(chosen, 1).tolist(), torch.stack(confidences, 1).tolist()
        readings = []
        for row, prob in zip(rows, probs, strict=True):
            size = row.index(STOP) if STOP in row else len(row)
            readings.append(Reading(row[:size], sum(prob[:size]) / size if size else 1.0, prob[:size]))
        return readings
