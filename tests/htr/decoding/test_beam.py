"""The beam search against the sum over all paths, written down by brute force."""

import gc
import itertools
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from htr.charset import Charset
from htr.decoding.beam import BeamSearch, Prefix, ScoreWeights, Searches, SearchLimits
from htr.decoding.greedy import greedy
from htr.decoding.language import InterpolatedLM, train_language_model
from htr.decoding.tuning import tune

ALPHABET = Charset("ab ")
EVERYTHING = SearchLimits(width=10_000, top=10, least=0.0, threshold=1e9)
NOTHING_BUT_CTC = ScoreWeights(0, 0, 0)


def random_lines(frames: int, labels: int, seed: int, sharp: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.log(rng.dirichlet(np.full(labels, sharp), frames) + 1e-12).astype(np.float32)


def all_paths(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Every text and its probability: the sum over all of its paths."""
    probs = np.exp(log_probs.astype(np.float64))
    texts: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(probs.shape[1]), repeat=len(probs)):
        text = tuple(label for label, _ in itertools.groupby(path) if label)
        texts[text] = texts.get(text, 0) + math.prod(probs[t, label] for t, label in enumerate(path))
    return texts


def ctc_log_prob(log_probs: np.ndarray, labels: list[int]) -> float:
    args = torch.from_numpy(log_probs)[:, None].double(), torch.tensor([labels]), [len(log_probs)], [len(labels)]
    return -float(torch.nn.functional.ctc_loss(*args, reduction="sum"))


@pytest.mark.parametrize("seed", range(4))
def test_every_text_has_the_probability_of_all_its_paths(seed):
    log_probs = random_lines(6, 4, seed)
    truth = all_paths(log_probs)
    found = BeamSearch(ALPHABET, weights=NOTHING_BUT_CTC, limits=EVERYTHING).search(log_probs, best=10_000)
    assert {tuple(h.labels) for h in found} == set(truth)
    for h in found:
        assert h.ctc == pytest.approx(math.log(truth[tuple(h.labels)]), abs=1e-6)
        assert h.score == h.ctc and h.text == ALPHABET.decode(h.labels)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_bonuses_are_added_to_the_sum_over_paths():
    log_probs = random_lines(5, 4, seed=9)
    truth = all_paths(log_probs)
    language = train_language_model(["ab a", "b ab", "aab"], 3, ALPHABET.characters)
    weights = ScoreWeights(lm_weight=0.7, length_bonus=0.3, lexicon_bonus=0.4)
    found = BeamSearch(ALPHABET, language, ["AB", "b"], weights, EVERYTHING).search(log_probs, best=10_000)
    assert len(found) == len(truth)
    for h in found:
        known = sum(len(word) for word in h.text.split(" ") if word in ("ab", "b"))
        assert h.known == known and h.language == pytest.approx(language.score(h.text))
        assert h.ctc == pytest.approx(math.log(truth[tuple(h.labels)]), abs=1e-6)
        total = h.ctc + 0.7 * language.score(h.text) + 0.3 * len(h.text) + 0.4 * known
        assert h.score == pytest.approx(total, abs=1e-6)


def test_a_wide_beam_is_never_less_probable_than_greedy():
    search = BeamSearch(Charset("abcdefgh "), weights=NOTHING_BUT_CTC, limits=SearchLimits(width=64, least=1e-4))
    for seed in range(20):
        log_probs = random_lines(40, 10, seed, sharp=0.15)
        best = search.search(log_probs)[0]
        read = greedy(torch.from_numpy(log_probs)[None], torch.tensor([40]))[0].labels
        assert ctc_log_prob(log_probs, best.labels) >= ctc_log_prob(log_probs, read) - 1e-6
        # paths through prefixes that were dropped are missing, none is counted twice
        assert -1 < best.ctc - ctc_log_prob(log_probs, best.labels) < 1e-6


def test_the_language_model_decides_what_the_frames_leave_open():
    charset = Charset("acdort ")
    frames = np.full((12, 8), 0.001)
    for t, character in zip(range(0, 12, 2), "aortd", strict=False):
        frames[t, charset.labels[character]] = 1.0
    frames[1::2, 0] = 1.0
    frames[8], frames[10] = 0.001, 0.001
    frames[8, [charset.labels["a"], charset.labels["d"]]] = 0.45, 0.55
    frames[10, 0] = 1.0
    log_probs = np.log(frames / frames.sum(axis=1, keepdims=True))
    language = train_language_model(["aorta", "aorta droit", "cor"], 4, charset.characters)
    assert BeamSearch(charset, weights=NOTHING_BUT_CTC).search(log_probs)[0].text == "aortd"
    assert BeamSearch(charset, language).search(log_probs)[0].text == "aorta"
    interpolated = InterpolatedLM([language, train_language_model(["rat"], 2, charset.characters)], [0.7, 0.3])
    assert BeamSearch(charset, interpolated).search(log_probs)[0].text == "aorta"
    assert BeamSearch(charset, lexicon=["aorta"], weights=ScoreWeights(0, 0, 0.1)).search(log_probs)[0].text == "aorta"
    # a bonus, no cage: what is plain to see stays, known or not
    sure = log_probs.copy()
    sure[8] = np.log(0.001)
    sure[8, charset.labels["d"]] = 0.0
    assert BeamSearch(charset, language, ["aorta"], ScoreWeights(0.5, 0.5, 0.1)).search(sure)[0].text == "aortd"


def test_doubled_letters_need_a_blank_between_them():
    path = [1, 1, 0, 1, 2, 0, 0, 2, 2]
    frames = np.full((9, 4), 0.01)
    frames[range(9), path] = 0.97
    assert BeamSearch(ALPHABET, weights=NOTHING_BUT_CTC).search(np.log(frames))[0].labels == [1, 1, 2, 2]


def test_long_lines_neither_underflow_nor_overflow():
    log_probs = random_lines(3000, 4, seed=1, sharp=0.05)
    language = train_language_model(["b b"], 2, ALPHABET.characters)
    for weights in (ScoreWeights(3, 0, 0), ScoreWeights(0, 5, 0)):
        (best,) = BeamSearch(ALPHABET, language, weights=weights, limits=SearchLimits(width=4)).search(log_probs)
        assert math.isfinite(best.score) and len(best.labels) > 300


def test_a_long_line_has_the_probability_of_its_only_path():
    """Exact where the beam's numbers had to be scaled, some three times here: what was divided out is added again."""
    path = np.tile([1, 0, 2, 0], 750)
    frames = np.zeros((3000, 4))
    frames[range(3000), path], frames[:, 3] = 0.8, 0.2
    search = BeamSearch(ALPHABET, weights=NOTHING_BUT_CTC, limits=SearchLimits(least=0.3))
    with np.errstate(divide="ignore"):
        (best,) = search.search(np.log(frames))
    assert best.labels == [1, 2] * 750
    assert best.score == best.ctc == pytest.approx(3000 * math.log(0.8), rel=1e-9)


def test_frames_in_which_nothing_is_likely_read_as_empty():
    """Of an untrained model with more labels than one in a thousand can have: no frame has a candidate."""
    charset = Charset(map(chr, range(0x4E00, 0x4E00 + 1999)))
    found = BeamSearch(charset, weights=NOTHING_BUT_CTC).search(np.full((200, 2000), -math.log(2000)))
    assert [h.text for h in found] == [""] and found[0].score == pytest.approx(-200 * math.log(2000))
    never = np.full((2, 2000), -math.log(1999))
    never[:, 0] = -np.inf
    with pytest.raises(ValueError, match="frames that no text explains"):
        BeamSearch(charset, weights=NOTHING_BUT_CTC).search(never)


def test_of_the_labels_of_a_frame_the_likeliest_extend_a_text():
    log_probs = np.log(np.array([[0.02, 0.1, 0.2, 0.68]]))
    for top, texts in ((1, {"b", ""}), (2, {"b", "a", ""}), (3, {"b", "a", " ", ""})):
        limits = SearchLimits(top=top, least=0.0)
        found = BeamSearch(ALPHABET, weights=NOTHING_BUT_CTC, limits=limits).search(log_probs, best=9)
        assert found[0].text == "b" and {h.text for h in found} == texts


def test_no_frames_and_blanks_read_as_empty():
    search = BeamSearch(ALPHABET)
    assert search.search(np.zeros((0, 4)))[0].text == ""
    blank = np.log(np.tile([0.997, 0.001, 0.001, 0.001], (9, 1)))
    assert search.search(blank)[0].text == ""


def test_what_cannot_be_searched_is_an_error():
    with pytest.raises(ValueError, match="charset has 3"):
        BeamSearch(ALPHABET).search(np.zeros((3, 7)))
    with pytest.raises(ValueError, match="frame"):
        BeamSearch(ALPHABET).search(np.full((3, 4), np.nan))


def test_tuning_finds_weights_that_are_not_worse():
    texts = ["ab ab", "abab", "a ab", "ab ba"] * 3
    language = train_language_model(texts, 3, ALPHABET.characters)
    rng = np.random.default_rng(0)
    lines = []
    for text in texts:
        frames = np.repeat(ALPHABET.encode(text), 2)
        frames[1::2] = 0
        probs = rng.dirichlet(np.full(4, 0.3), len(frames)) * 0.6
        probs[range(len(frames)), frames] += 0.4
        lines.append(np.log(probs + 1e-9))
    weights, cer = tune(lines, texts, ALPHABET, language, ["ab"])
    plain = tune(lines, texts, ALPHABET, None)[1]
    assert cer <= plain and weights.lm_weight > 0
    assert tune(lines, texts, ALPHABET, language, ["ab"]) == (weights, cer)


def test_tuning_searches_every_line_with_the_language_of_its_field():
    languages = {field: train_language_model([text] * 9, 2, ALPHABET.characters) for field, text in
                 (("", "a"), ("Ia", "b"))}  # fmt: skip
    open_to_both = np.log(np.array([[0.02, 0.01, 0.49, 0.48]]))
    fields, references, tried = ["Ia", "II", None], ["b", "a", "a"], []
    weights, cer = tune([open_to_both] * 3, references, ALPHABET, languages, fields=fields, after=tried.append)
    assert cer == 0 and weights.lm_weight > 0 and min(tried) == 0 and max(tried) > 0
    searches = Searches(ALPHABET, languages, (), weights)
    assert [searches.of(field).search(open_to_both)[0].text for field in fields] == references
    assert searches.of("II") is searches.of(None) is not searches.of("Ia")


def test_weights_under_their_old_names_are_read():
    old, new = {"alpha": 0.1, "beta": 0.2, "gamma": 0.3, "delta": 0.4}, ScoreWeights(0.1, 0.2, 0.3, 0.4)
    assert ScoreWeights.from_json(old) == new == ScoreWeights.from_json(asdict(new))
    with pytest.raises(TypeError):
        ScoreWeights.from_json({"omega": 1.0})


def test_a_search_leaves_no_prefix_behind_and_the_collector_as_it_was():
    rng = np.random.default_rng(0)
    log_probs = np.log(rng.dirichlet(np.ones(4), 30))
    search = BeamSearch(Charset("abc"))
    gc.collect()
    gc.disable()  # what holds each other would stay
    try:
        search.search(log_probs, 5)
        assert not any(type(one) is Prefix for one in gc.get_objects()) and not gc.isenabled()
    finally:
        gc.enable()
    search.search(log_probs, 5)
    assert gc.isenabled()
