"""Augmentation: bytes that hang on the key alone, an image that is still the line."""

import numpy as np
import pytest

from htr.images.augment import augment, random_for
from htr.images.line import to_ink


def test_the_same_key_gives_the_same_bytes(draw):
    ink = to_ink(draw("infarctus"), 64)
    before = ink.copy()
    one, two = (augment(ink, random_for(1, 2, "c1_Ia_0")) for _ in range(2))
    assert one.shape == two.shape and one.tobytes() == two.tobytes()
    assert (ink == before).all()


@pytest.mark.parametrize("key", [(2, 2, "c1_Ia_0"), (1, 3, "c1_Ia_0"), (1, 2, "c1_Ia_1")])
def test_another_key_gives_another_image(draw, key):
    ink = to_ink(draw("infarctus"), 64)
    assert augment(ink, random_for(*key)).tobytes() != augment(ink, random_for(1, 2, "c1_Ia_0")).tobytes()


def test_a_generator_knows_its_key_alone():
    first = random_for(0, 0, "a").random()
    random_for(5).random()
    assert random_for(0, 0, "a").random() == first


def test_the_line_stays_a_line(draw):
    ink = to_ink(draw("cancer du sein"), 64)
    for seed in range(60):
        out = augment(ink, random_for(seed))
        assert out.dtype == np.uint8 and out.shape[0] == 64
        assert 0.85 * ink.shape[1] < out.shape[1] < 1.15 * ink.shape[1] + 60
        assert 0.35 < out.sum() / ink.sum() < 2.2  # neither washed out nor flooded
        assert np.median(out) < 10


@pytest.mark.parametrize("width", [1, 16, 8192])
def test_narrow_and_long_lines(width):
    for seed in range(20):
        assert augment(np.full((64, width), 90, np.uint8), random_for(seed)).shape[1] >= 16
