"""The attention reader: the shared encoder and a GRU decoder with location-aware attention, with a hybrid CTC loss.

Location-aware attention: Chorowski et al. 2015, "Attention-Based Models for Speech Recognition"; the CTC loss beside
it, which keeps the alignment monotonic: Watanabe et al. 2017, and Michael et al. 2019 for handwriting.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from htr.decoding import Reading
from htr.models.ctc import CTCReader, ctc_losses
from htr.models.encoder import Size

CTC_WEIGHT = 0.3
STOP = 0  # the decoder's symbol for the end of the text, and what it is given first


class AttentionReader(nn.Module):
    def __init__(self, size: Size, symbols: int):
        super().__init__()
        # encoder and CTC head have the names that they have in the CTC reader, so its weights fit
        ctc = CTCReader(size, symbols)
        self.encoder, self.head = ctc.encoder, ctc.head
        self.decoder = Decoder(self.encoder.outputs, self.encoder.outputs, symbols)

    def losses(self, images: Tensor, widths: Tensor, targets: list[list[int]]) -> Tensor:
        features, lengths, _ = self.encoder(images, widths)
        by_ctc = ctc_losses(self.head(features), lengths, targets)
        longest = max(len(target) for target in targets) + 1
        rows = [target + [STOP] * (longest - len(target)) for target in targets]
        wanted = torch.tensor(rows, device=images.device)
        logits = self.decoder(features, lengths, wanted)
        # STOP counts once, at the end of each target
        sizes = torch.tensor([len(target) + 1 for target in targets], device=images.device)
        counts = torch.arange(longest, device=images.device) < sizes[:, None]
        by_symbol = F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), reduction="none")
        by_attention = (by_symbol.view_as(wanted) * counts).sum(1)
        # a line too dense for CTC can still teach the decoder
        return (1 - CTC_WEIGHT) * by_attention + CTC_WEIGHT * torch.where(by_ctc.isfinite(), by_ctc, 0.0)

    @torch.no_grad()
    def read(self, images: Tensor, widths: Tensor) -> list[Reading]:
        features, lengths, _ = self.encoder(images, widths)
        return self.decoder.greedy(features, lengths)


class Decoder(nn.Module):
    """One symbol a step: attend to the frames, given what was attended to before, and the symbols so far."""

    def __init__(self, features: int, hidden: int, symbols: int):
        super().__init__()
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
        """(N, T, C), (N,), (N, L) targets ending in STOP -> logits (N, L, symbols + 1), each step given the truth."""
        state = self.start(features, lengths)
        given = F.pad(wanted[:, :-1], (1, 0), value=STOP)
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
            readings.append(Reading(row[:size], sum(prob[:size]) / size if size else 1.0))
        return readings
