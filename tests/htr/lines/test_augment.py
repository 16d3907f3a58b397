"""Augmentation: bytes that hang on the key alone, an image that is still the line, a blank line that is still blank."""

import os
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from htr.lines import distort
from htr.lines.augment import GEOMETRY, LEVELS, RANGE_OFF, Strength, augment, random_for
from htr.lines.normalise import normalise_line
from jobs.html.augmentation_view import VARIANTS_PER_LINE, sheet, write_sheet

NAMES = [field.name for field in fields(Strength)]
SHARED = os.environ.get("HTR_SHARED")


def alone(name: str) -> Strength:
    return Strength(**{name: (1.0, getattr(LEVELS["strong"], name)[1])})


@pytest.fixture(scope="module")
def ink(draw) -> np.ndarray:
    return normalise_line(draw("infarctus du myocarde"), 64)


# --- keyed


def test_the_same_key_gives_the_same_bytes(ink):
    before = ink.copy()
    for level in LEVELS.values():
        one, two = (augment(ink, random_for(1, 2, "c1_Ia_0"), level) for _ in range(2))
        assert one.shape == two.shape and one.tobytes() == two.tobytes()
    assert (ink == before).all()


@pytest.mark.parametrize("key", [(2, 2, "c1_Ia_0"), (1, 3, "c1_Ia_0"), (1, 2, "c1_Ia_1")])
def test_another_key_gives_another_image(ink, key):
    assert augment(ink, random_for(*key)).tobytes() != augment(ink, random_for(1, 2, "c1_Ia_0")).tobytes()


def test_a_generator_knows_its_key_alone():
    first = random_for(0, 0, "a").random()
    random_for(5).random()
    assert random_for(0, 0, "a").random() == first


# --- strengths


def test_none_changes_nothing(ink):
    out = augment(ink, random_for(1), LEVELS["none"])
    assert (out == ink).all() and not np.shares_memory(out, ink)


def test_levels_rise():
    levels = [LEVELS[name] for name in ("none", "light", "medium", "strong")]
    assert len(levels) == len(LEVELS)
    for name in NAMES:
        pairs = [getattr(level, name) for level in levels]
        chances, most = zip(*pairs, strict=True)
        assert list(chances) == sorted(chances) and list(most) == sorted(most), name
        assert 0 < chances[-1] <= 1


@pytest.fixture
def ran(monkeypatch) -> set[str]:
    """The names of the distortions that have run."""
    names = set()

    def watch(called: str):
        function = getattr(distort, called)

        def watched(line, rng, *args, **drawn):
            names.update({called, *drawn} - {"warp"})
            return function(line, rng, *args, **drawn)

        return watched

    for called in ("warp", *(other for other in NAMES if other not in GEOMETRY)):
        monkeypatch.setattr(distort, called, watch(called))
    return names


@pytest.mark.parametrize("name", NAMES)
def test_each_distortion_can_be_switched_off(ink, name, ran):
    often = Strength(**{other: (0.5, getattr(LEVELS["strong"], other)[1]) for other in NAMES})
    for strength, expected in ((often, {*NAMES}), (replace(often, **{name: RANGE_OFF}), {*NAMES} - {name})):
        ran.clear()
        for seed in range(60):
            augment(ink, random_for(seed), strength)
        assert ran == expected


def test_a_line_in_black_and_white_is_not_made_faint_too(ink, ran):
    every = Strength(**{name: (1.0, getattr(LEVELS["strong"], name)[1]) for name in NAMES})
    augment(ink, random_for(0), every)
    assert {*NAMES} - ran == {"faint", "uneven", "texture"}


@pytest.mark.parametrize("name", NAMES)
def test_each_distortion_alone_changes_the_line(ink, name):
    changed = [augment(ink, random_for(seed), alone(name)) for seed in range(8)]
    assert sum(out.shape != ink.shape or (out != ink).any() for out in changed) >= 6
    assert len({out.tobytes() for out in changed}) >= 6


# --- still the line


@pytest.mark.parametrize(
    ("level", "least", "most", "paper"),
    [("none", 0.9, 1, 10), ("light", 0.4, 1.6, 20), ("medium", 0.25, 3, 40), ("strong", 0.05, 4, 60)],
)
def test_the_line_stays_a_line(ink, level, least, most, paper):
    masses = []
    for seed in range(100):
        out = augment(ink, random_for(seed), LEVELS[level])
        assert out.dtype == np.uint8 and out.shape[0] == 64
        assert 0.9 * ink.shape[1] - 1 <= out.shape[1] < 1.1 * ink.shape[1] + 100
        masses.append(cv2.threshold(out, 40, 0, cv2.THRESH_TOZERO)[1].sum() / ink.sum())
        assert np.median(out) < paper < paper + 20 < np.percentile(out, 99)  # what is written stands out
    masses = np.array(masses)
    assert masses.min() > least and masses.max() <= most  # neither washed out nor flooded
    assert np.percentile(masses, 5) > 0.3 and 0.7 < np.median(masses) < 1.3


@pytest.mark.parametrize("name", ["slant", "stretch", "loose", "margin", "drift", "elastic"])
def test_the_warp_loses_no_letter(draw, name):
    """Bars at both ends of the line and between them are all there, in their order, whatever bends them."""
    ink = np.zeros((64, 400), np.uint8)
    for x in (0, 80, 160, 240, 320, 396):
        ink[12:52, x : x + 4] = 255
    for seed in range(40):
        out = augment(ink, random_for(seed), alone(name))
        count, _, stats, _ = cv2.connectedComponentsWithStats((out > 60).astype(np.uint8), connectivity=8)
        assert count - 1 == 6
        assert stats[1:, cv2.CC_STAT_AREA].min() > 60


def test_no_letter_is_folded():
    """A source column never runs backwards: columns of rising brightness still rise along each row."""
    ramp = np.tile(np.linspace(20, 255, 500).astype(np.uint8), (64, 1))
    both = replace(alone("elastic"), drift=(1.0, LEVELS["strong"].drift[1]))
    for seed in range(30):
        out = augment(ramp, random_for(seed), both)[8:56, 4:-4]
        assert np.diff(out.astype(int), axis=1).min() >= -1  # rounding


def test_masked_spans_hide_at_most_their_share():
    full = np.full((64, 700), 255, np.uint8)
    hidden = [(augment(full, random_for(seed), alone("masked")) == 0).all(axis=0).mean() for seed in range(60)]
    assert 0 < max(hidden) <= LEVELS["strong"].masked[1] <= 0.1


def test_a_faint_line_survives_a_scan_in_black_and_white(ink):
    pale = cv2.convertScaleAbs(ink, alpha=0.6)
    for seed in range(40):
        out = augment(pale, random_for(seed), alone("bilevel"))
        assert 0.5 < out.sum() / ink.sum() < 1.7


# --- still blank


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("noise", [0, 5])
def test_a_blank_line_stays_blank(level, noise):
    """Without rulings and neighbours, which are drawn at its edges, nothing in it is as dark as ink."""
    gray = np.clip(random_for(3).normal(225, noise, (64, 500)), 0, 255).astype(np.uint8)
    blank = normalise_line(gray, 64)
    strength = replace(LEVELS[level], rulings=RANGE_OFF, neighbours=RANGE_OFF)
    for seed in range(60):
        out = augment(blank, random_for(seed), strength)
        assert (out > 128).mean() < 0.015 and out.mean() < blank.mean() + 40


def test_neighbours_of_a_blank_line_stay_at_its_edges():
    blank, depth = np.zeros((64, 500), np.uint8), int(LEVELS["strong"].neighbours[1]) + 3
    outs = [augment(blank, random_for(seed), alone("neighbours")) for seed in range(40)]
    assert all(out.any() and not out[depth:-depth].any() for out in outs)


# --- any shape


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shape", [(64, 1), (64, 5), (64, 16), (64, 8192), (1, 40), (8, 200), (100, 300)])
def test_any_shape(level, shape):
    for content in (0, 90, 255):
        for seed in range(2 if shape[1] > 1000 else 12):
            out = augment(np.full(shape, content, np.uint8), random_for(seed), LEVELS[level])
            assert out.shape[0] == shape[0] and out.shape[1] >= 16 and out.dtype == np.uint8


@pytest.mark.parametrize("name", NAMES)
def test_each_distortion_runs_on_narrow_lines(name):
    for width in (1, 5, 16):
        for seed in range(10):
            assert augment(np.full((64, width), 90, np.uint8), random_for(seed), alone(name)).shape[0] == 64


@pytest.mark.parametrize("bad", [np.zeros((64, 90, 3), np.uint8), np.zeros((64, 90)), np.zeros((64, 0), np.uint8)])
def test_what_is_no_line_is_refused(bad):
    with pytest.raises(ValueError, match=r"\(H, W\) uint8"):
        augment(bad, random_for(0))


# --- the sheet


def test_sheet(tmp_path, draw):
    lines = [("a<b", draw("grippe")), ("c", draw("chute"))]
    page = sheet(lines, seed=3, level="strong")
    assert page.count("<img ") == 2 * (VARIANTS_PER_LINE + 1) and "a&lt;b" in page
    assert page == sheet(lines, seed=3, level="strong") != sheet(lines, seed=4, level="strong")
    out = tmp_path / "new" / "sheet.html"
    write_sheet(iter(lines), out, seed=3, level="strong")
    assert out.read_text(encoding="utf-8") == page and out.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValueError, match="none, light, medium, strong"):
        sheet(lines, level="hard")


@pytest.mark.skipif(not SHARED, reason="HTR_SHARED names no folder of real handwriting")
def test_real_lines_keep_their_ink():
    for path in sorted((Path(SHARED) / "handwriting" / "copiste").glob("*.jpg"))[::250]:
        ink = normalise_line(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), 64)
        masses = [augment(ink, random_for(seed, path.name)).sum() / ink.sum() for seed in range(10)]
        assert 0.5 < np.median(masses) < 2
