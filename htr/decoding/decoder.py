"""Decoders, which turn an encoder's output into hypotheses: `decoder.decode(model, frames, fields)`.

`GreedyDecoder` needs nothing but the model, `BeamDecoder` a folder of three files that `python -m jobs tune` writes:

    language.safetensors    language models: a general one and, for fields with texts enough, their own
    lexicon.txt             words, one a line: a bonus, no constraint
    weights.json            every weight, the emission delay of CTC's peaks, the model that they were tuned for, and the
                            SHA-256 of the other two files: a folder that is half another one is refused
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from torch import nn

from htr.charset import Charset
from htr.decoding import signals
from htr.decoding.align import align_many
from htr.decoding.beam import BeamHypothesis, ScoreWeights, Searches, SearchLimits
from htr.decoding.greedy import greedy
from htr.decoding.language import InterpolatedLM, LanguageModel, load_language_models, pack_language_models
from htr.types import EncoderOutput, Hypothesis

FORMAT = 2  # 1 has the weights under their old names, see ScoreWeights.from_json
DEFAULT_LIMITS = SearchLimits()
N_BEST = 10  # hypotheses that a reading's confidence and a second opinion are taken from
FIELD_MODEL_SHARE = 0.7  # share of a field's own language model beside the general one
FILES = ("language.safetensors", "lexicon.txt")


def digest_of(decoding: Path | None) -> str | None:
    """Of a folder of tune's: its weights.json holds the hashes of its other files. None: greedy."""
    return hashlib.sha256((decoding / "weights.json").read_bytes()).hexdigest()[:16] if decoding else None


class GreedyDecoder:
    """The model's own reading."""

    def __init__(self, charset: Charset):
        self.charset = charset

    def decode(
        self, model: nn.Module, frames: EncoderOutput, fields: Sequence[str | None] | None = None
    ) -> list[Hypothesis]:
        """The encoder output of N lines -> N hypotheses; `fields` makes no difference."""
        readings, log_probs, lengths = model.read(frames), frames.log_probs.cpu(), frames.lengths.cpu()
        # an attention decoder's reading is compared with CTC's; CTC's own would agree with itself
        others = greedy(log_probs, lengths) if hasattr(model, "score") else [None] * len(readings)
        texts = [reading.labels for reading in readings]
        likely = signals.likelihoods(log_probs, lengths, texts)
        seen = signals.of_frames(log_probs, lengths, texts, model.geometry.frame)
        results = []
        for reading, other, likelihood, plain in zip(readings, others, likely, seen, strict=True):
            found, words, of_words = {"likelihood": likelihood, "greedy": reading.confidence}, None, {}
            if reading.probs is not None:
                of_words = signals.of_words(self.charset.decode(reading.labels), reading.probs)
                words = of_words["least_character"]
                found["least_word"] = min(words, default=1.0)
                found["least_character"] = min(reading.probs, default=1.0)
            if other is not None:
                found["agreement"] = signals.agreement(other.labels, reading.labels)
            sure = signals.confidence(found)
            found |= plain
            results.append(replace(reading, confidence=sure, signals=found, words=words, word_signals=of_words))
        return results


class BeamDecoder:
    """A beam search of CTC's frames with a language model and a lexicon; a model that has a decoder, too, rescores the
    n best with the weight `rescore_weight`.
    """

    def __init__(
        self,
        charset: Charset,
        languages: Mapping[str, LanguageModel | InterpolatedLM],
        lexicon: Iterable[str],
        weights: ScoreWeights,
        limits: SearchLimits = DEFAULT_LIMITS,
        best: int = N_BEST,
        emission_delay: float = 0.0,
    ):
        """`languages` by field, "" the general one; `emission_delay`: see align.measure_emission_delay."""
        # without its weight a language model changes nothing but the time
        self.searches = Searches(charset, languages if weights.lm_weight else {}, lexicon, weights, limits)
        self.best, self.emission_delay = best, emission_delay

    @classmethod
    def load(cls, folder: str | Path, charset: Charset, model: str | None = None) -> "BeamDecoder":
        """`model`: the SHA-256 of the weights that are read with. Raises ValueError for a folder that holds no
        decoding, a damaged one, or one that was tuned for other weights than these.
        """
        folder = Path(folder)
        note, contents = read_files(folder)
        try:
            weights, limits = ScoreWeights.from_json(note["weights"]), SearchLimits(**note["limits"])
            best, emission_delay = int(note["best"]), float(note["delay"])
            tuned_for, step = note["model"]["weights"], note["model"]["step"]
            if best < 1 or not all(map(math.isfinite, asdict(weights).values())):
                raise ValueError(f"no search has these weights, or so few best texts: {weights}, {best}")
        except (ValueError, KeyError, TypeError) as error:
            kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
            raise ValueError(f"{folder}: not a decoding that can be read ({kind}{error}): tune again") from None
        if model is not None and model != tuned_for:
            raise ValueError(
                f"{folder} was tuned for other weights, those of step {step}: run python -m jobs tune again"
            )
        languages = with_general(load_language_models(folder / "language.safetensors")) if weights.lm_weight else {}
        lexicon = contents["lexicon.txt"].decode().split() if weights.lexicon_bonus else ()
        return cls(charset, languages, lexicon, weights, limits, best, emission_delay)

    def decode(
        self, model: nn.Module, frames: EncoderOutput, fields: Sequence[str | None] | None = None
    ) -> list[Hypothesis]:
        """The encoder output of N lines, the fields that they are of or None -> N hypotheses with all signals."""
        log_probs, lengths = frames.log_probs.float().cpu(), frames.lengths.cpu()
        found = self.n_best(log_probs.numpy(), lengths.tolist(), fields)
        first = second = greedy(log_probs, lengths)
        if hasattr(model, "score"):
            second = model.read(frames)
            if self.searches.weights.rescore_weight:
                scores = model.score(frames, [[h.labels for h in hypotheses] for hypotheses in found])
                weight = self.searches.weights.rescore_weight
                found = [rescore(hypotheses, own, weight) for hypotheses, own in zip(found, scores, strict=True)]
        texts = [hypotheses[0].labels for hypotheses in found]
        likely = signals.likelihoods(log_probs, lengths, texts)
        seen = signals.of_frames(log_probs, lengths, texts, model.geometry.frame)
        paths = align_many(log_probs.numpy(), texts, lengths.tolist())
        lexicon, results = self.searches.of(None).lexicon, []
        for i, hypotheses in enumerate(found):
            best = hypotheses[0]
            by_ctc, by_decoder = first[i], second[i]
            shares = signals.shares([h.score for h in hypotheses])
            words = signals.word_shares([h.text for h in hypotheses], shares)
            other = by_decoder.labels if second is not first else best.labels
            # a text that the search found without its path: it needs more frames than there are
            probs = np.exp(paths[i].log_probs).tolist() if paths[i] else [0.0] * len(best.labels)
            values = {
                "likelihood": likely[i],
                "greedy": by_ctc.confidence,
                "least_word": min(words, default=1.0),
                "top_share": float(shares[0]),
                "agreement": signals.agreement(by_ctc.labels, other),
                "least_character": min(probs, default=1.0),
                **seen[i],
            }
            if self.searches.languages:
                values["language"] = math.exp(best.language / (len(best.labels) + 1))
            if lexicon:
                values["known"] = signals.known(best.text, lexicon)
            of_words = signals.of_words(best.text, probs, lexicon)
            others = [(h.text, float(share)) for h, share in zip(hypotheses[1:], shares[1:], strict=True)]
            results.append(Hypothesis(best.labels, signals.confidence(values), None, values, words, of_words, others))
        return results

    def n_best(
        self, log_probs: Sequence, lengths: Sequence[int], fields: Sequence[str | None] | None
    ) -> list[list[BeamHypothesis]]:
        fields = fields or [None] * len(lengths)
        return [
            self.searches.of(field).search(line[:length], self.best)
            for line, length, field in zip(log_probs, lengths, fields, strict=True)
        ]


def read_files(folder: Path) -> tuple[dict, dict[str, bytes]]:
    """-> weights.json and the content of the other files, by name. Raises ValueError where one is missing, damaged or
    another folder's.
    """
    try:
        note = json.loads((folder / "weights.json").read_text(encoding="utf-8"))
        contents = {name: (folder / name).read_bytes() for name in FILES}
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise ValueError(f"{folder}: no decoding here ({name} is missing): run python -m jobs tune") from None
    except ValueError as error:
        raise ValueError(f"{folder / 'weights.json'}: damaged ({error}): run python -m jobs tune again") from None
    try:
        if note["format"] not in range(1, FORMAT + 1):
            raise ValueError(f"format {note['format']}, this code reads 1 to {FORMAT}")
        for name, content in contents.items():
            if hashlib.sha256(content).hexdigest() != note["files"][name]:
                raise ValueError(f"{name} is not the one that weights.json was written for")
    except (ValueError, KeyError, TypeError) as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise ValueError(f"{folder}: not a decoding that can be read ({kind}{error}): tune again") from None
    return note, contents


def rescore(hypotheses: list[BeamHypothesis], scores: Sequence[float], weight: float) -> list[BeamHypothesis]:
    """The n best hypotheses in the order of their scores plus `weight` times a second model's log-probabilities."""
    both = [replace(h, score=h.score + weight * score) for h, score in zip(hypotheses, scores, strict=True)]
    return sorted(both, key=lambda h: -h.score)


def with_general(models: Mapping[str, LanguageModel]) -> dict[str, LanguageModel | InterpolatedLM]:
    """Language models by field -> by field, each interpolated with the general one."""
    general = models[""]
    return {
        field: InterpolatedLM([model, general], [FIELD_MODEL_SHARE, 1 - FIELD_MODEL_SHARE]) if field else general
        for field, model in models.items()
    }


def files_of(
    models: Mapping[str, LanguageModel],
    lexicon: Iterable[str],
    weights: ScoreWeights,
    limits: SearchLimits,
    emission_delay: float,
    model: Mapping[str, str | int],
    about: Mapping,
) -> dict[str, bytes]:
    """The files of a decoding folder, weights.json the last one. `model`: {"weights": SHA-256, "step"}; `about`: how
    they were found, for people.
    """
    contents = {
        "language.safetensors": pack_language_models(models),
        "lexicon.txt": "\n".join(sorted(lexicon)).encode(),
    }
    note = {
        "format": FORMAT,
        "weights": asdict(weights),
        "limits": asdict(limits),
        "best": N_BEST,
        "delay": emission_delay,
        "model": dict(model),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        "tuned": dict(about),
    }
    return contents | {"weights.json": (json.dumps(note, ensure_ascii=False, indent=1) + "\n").encode()}
