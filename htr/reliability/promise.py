"""A promise (a threshold with a guarantee) and its scores: three files of RUN/reliability/NAME, and their use.

promise = Promise.load("runs/ctc-16/reliability/fields")
promise.check(conditions(…))                     # ValueError unless readings are made as in its calibration
probability = promise.probability(table)         # (N,), a row a line with signal_NAME, certificate, field
accepted = promise.accept(probability, lines_in(table))    # (N,) bool

`python -m jobs calibrate` writes the files: score.json (the scores), promise.json, reliability.json (figures).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from htr.reliability.calibration import Score
from htr.reliability.conditions import READER, difference
from htr.reliability.risk_control import PER_LINE
from htr.reliability.units import CHARACTER, probabilities, units_among, word_signals

FORMAT = 2
OLDER = {1: "made by an older version, whose test did not hold: the bound of a group's loss was estimated"}
UNITS = ("line", "field", "certificate")
LOSSES = ("wrong", "cer")


@dataclass(frozen=True)
class Promise:
    """The accepted units err at most alpha, with a probability of at least 1 - delta (risk_control.py).

    `unit`: one of UNITS; `loss`: one of LOSSES, the share of wrong units or the character error rate. `threshold`: the
    least probability that is accepted; None: nothing can be promised, and nothing is accepted. `text`: the promise in
    words.
    """

    unit: str
    loss: str
    alpha: float
    delta: float
    threshold: float | None
    text: str
    scores: Mapping[str, Score]
    conditions: Mapping[str, object]  # of the readings of its calibration: htr/reliability/conditions.py
    per_line: float = PER_LINE  # for CER: most characters that a line counts as

    @classmethod
    def load(cls, folder: str | Path) -> "Promise":
        """Raises ValueError where the folder has no promise, a damaged one, or one of another format or score."""
        folder = Path(folder)
        try:
            content = (folder / "score.json").read_bytes()
            note, about = json.loads((folder / "promise.json").read_text(encoding="utf-8")), json.loads(content)
        except FileNotFoundError as error:
            name = Path(error.filename).name
            raise ValueError(f"{folder}: no promise here ({name} is missing): run python -m jobs calibrate") from None
        except ValueError as error:
            raise ValueError(f"{folder}: a damaged file ({error}): run python -m jobs calibrate again") from None
        try:
            for part in (note, about):
                if part["format"] in OLDER:
                    raise ValueError(OLDER[part["format"]])
                if part["format"] != FORMAT:
                    raise ValueError(f"format {part['format']}, this code reads {FORMAT}")
            if hashlib.sha256(content).hexdigest() != note["score"]:
                raise ValueError("score.json is not the one that promise.json was written for")
            if note["unit"] not in UNITS or note["loss"] not in LOSSES:
                raise ValueError(f"a promise of {note['unit']}, {note['loss']}")
            scores = {unit: Score.from_json(score) for unit, score in about["scores"].items()}
            if score_of(note["unit"], note["loss"]) not in scores:
                raise ValueError(f"score.json has no score of {score_of(note['unit'], note['loss'])}")
            threshold = None if note["threshold"] is None else float(note["threshold"])
            numbers = float(note["alpha"]), float(note["delta"]), threshold
            limit = float(note["per_unit"]) if note["loss"] == "cer" and note.get("per_unit") else float(PER_LINE)
            return cls(note["unit"], note["loss"], *numbers, note["promise"], scores, dict(note["conditions"]), limit)
        except (ValueError, KeyError, TypeError) as error:
            kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
            raise ValueError(f"{folder}: not a promise that can be read ({kind}{error}): calibrate again") from None

    def check(self, asked: Mapping[str, object], reader_alone: bool = False) -> None:
        """Raises ValueError where readings are made under other conditions than those of the calibration.

        `reader_alone`: only the model and its decoding are compared.
        """
        differ = difference(self.conditions, asked, READER) if reader_alone else difference(self.conditions, asked)
        if differ:
            raise ValueError(
                f"the promise was made for other readings ({differ}): read as they were, or evaluate under the new "
                f"conditions and run python -m jobs calibrate with those evaluations"
            )

    def probability(self, table, unit: str | None = None) -> np.ndarray | list[np.ndarray]:
        """A table with a row a text -> (N,) the probability of each row's line, field or certificate.

        All rows of a field or certificate must be in the table. Where CER is promised it is the share of characters
        that is likely right. `unit`: another one that has a score; for "word" the answer is a list of N arrays.
        """
        unit = unit or score_of(self.unit, self.loss)
        found = probabilities(self.scores, table, unit)
        if unit != "word":
            return found
        rows = word_signals(table)[1]
        return np.split(found, np.searchsorted(rows, np.arange(1, len(table["word_confidence"]))))

    def accept(self, probability: np.ndarray, lines: np.ndarray | None = None) -> np.ndarray:
        """(N,) probabilities, (N,) how many lines each row has (`units.lines_in`) -> (N,) bool: what is accepted.

        Without `lines` each row is taken as one line.
        A promise of lines accepts no row of several lines (`units.units_among`).
        """
        if self.threshold is None:
            return np.zeros(len(probability), bool)
        enough = np.asarray(probability) >= self.threshold
        return enough if lines is None else enough & units_among(self.unit, lines)


def score_of(unit: str, loss: str) -> str:
    """The name of the score that orders the units of a promise."""
    return CHARACTER if loss == "cer" else unit


def files_of(scores: Mapping[str, Score], fitted: Mapping, note: Mapping, figures: Mapping) -> dict[str, bytes]:
    """The contents of the files of a promise, by name. Write promise.json last: without it the others are no promise.

    `note`: the content of promise.json except format and score; it has the conditions.
    """

    def pack(content: Mapping) -> bytes:
        return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()

    score = pack(
        {
            "format": FORMAT,
            "conditions": dict(note["conditions"]),
            "fitted": dict(fitted),
            "scores": {unit: score.to_json() for unit, score in scores.items()},
        }
    )
    promise = {"format": FORMAT, "score": hashlib.sha256(score).hexdigest(), **note}
    return {
        "score.json": score,
        "reliability.json": pack({"format": FORMAT, **figures}),
        "promise.json": pack(promise),
    }
