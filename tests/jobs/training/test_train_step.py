"""A step's rules: the rate, the average, and losses that are not finite: counted, named by a hash, ended by."""

import pytest
import torch
from stepped import Model, batch, train_step
from torch import nn

from htr.certificate import log_name
from jobs.distributed.precision import precision
from jobs.training.train_step import (
    MAX_STEPS_NOT_FINITE,
    averaged,
    dropout_seed,
    learning_rate,
    parts_of,
    scaled_learning_rate,
)
from shards.loader import Batch


def test_the_rate_rises_falls_and_ends_at_zero():
    rates = [learning_rate(step, 2.0, 10, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == 2.0 and rates[100] == 0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[55] == pytest.approx(1.0)


def test_a_line_that_does_not_fit_is_left_out_counted_and_named_once(capsys):
    model = Model()
    step = train_step(model)
    for number in range(3):
        model.told = [1.0, float("inf"), 2.0]
        step.step(batch(["a", "dense", "b"]), number)
    assert model.weight < 1 and int(step.logger.unfit) == 3 and step.logger.skipped == 0
    said = capsys.readouterr().err
    assert said.count(log_name("dense")) == 1 and "too long" in said and "secret" not in said
    assert log_name("a") not in said


def test_steps_without_a_finite_gradient_change_nothing_and_end_the_run(capsys):
    """On the device at once; the host hears of it a step later."""
    model = Model()
    step = train_step(model)
    model.told = [1.0, float("nan")]
    for number in range(MAX_STEPS_NOT_FINITE - 1):
        step.step(batch(["a", "ill"]), number)
        assert model.weight == 1 and step.logger.skipped == number
    model.told = [1.0, 1.0]
    step.step(batch(["a", "b"]), 10)  # one good step, and the count begins anew
    assert model.weight < 1 and step.logger.skipped == MAX_STEPS_NOT_FINITE - 1
    model.told = [1.0, float("nan")]
    for number in range(MAX_STEPS_NOT_FINITE):
        step.step(batch(["a", "ill"]), number)
    with pytest.raises(
        ValueError,
        match=f"step {MAX_STEPS_NOT_FINITE - 1}: no finite gradient in the last {MAX_STEPS_NOT_FINITE} steps",
    ) as error:
        step.settle()
    assert "secret" not in str(error.value)
    assert f"{log_name('ill')} teaches nothing: its loss is not a number" in capsys.readouterr().err


def test_the_average_follows_the_weights():
    model = nn.Linear(1, 1, bias=False)
    for decay, expected in ((0.0, 100.0), (0.9, None)):
        average = averaged(model, decay)
        for value in range(101):
            with torch.no_grad():
                model.weight.fill_(value)
            average.update_parameters(model)
        value = average.module.weight.item()
        assert value == expected if expected is not None else 85 < value < 95


def test_the_average_of_a_young_run_is_over_its_few_steps():
    """Else a decay of 0.999 would leave the weights of the first step in it for a thousand more."""
    model = nn.Linear(1, 1, bias=False)
    average = averaged(model, 0.999)
    expected = 0.0
    for value in range(21):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update_parameters(model)
        expected += (value - expected) * (1 - min(0.999, (1 + value) / (10 + value))) if value else 0.0
    assert average.module.weight.item() == pytest.approx(expected) and expected > 10


def test_half_precision_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        precision("fp16", torch.device("cpu"))


def test_every_seed_step_and_rank_has_random_numbers_of_its_own():
    asked = [(seed, step, rank) for seed in (0, 1, (1 << 24) - 1, 1 << 24, 1 << 24 | 1, 1 << 40, (1 << 64) - 1)
             for step in (0, 1, 10**6, 1 << 30) for rank in (0, 1, 4095, 4096)]  # fmt: skip
    found = {dropout_seed(*one) for one in asked}
    assert len(found) == len(asked)
    for one in found:
        torch.manual_seed(one)
    assert dropout_seed(3, 7, 2) == (3 << 40) + (7 << 12) + 2  # as runs begun earlier have it


def test_a_rate_grows_with_the_batch_by_its_rule():
    assert [scaled_learning_rate(0.1, 4, rule) for rule in ("none", "sqrt", "linear")] == pytest.approx([0.1, 0.2, 0.4])


@pytest.mark.parametrize("parts", [None, [1, 3, 1, 2]])
@pytest.mark.parametrize("passes", [1, 2, 3, 6])
def test_parts_have_every_line_once_and_no_padding_of_others(parts, passes: int):
    count = sum(parts) if parts else 4
    widths = torch.arange(1, count + 1) * 20
    images = torch.zeros(count, 1, 8, 20 * count, dtype=torch.uint8)
    for number, width in enumerate(widths.tolist()):
        images[number, :, :, :width] = number + 1
    texts = ["a", "b", "c", "d"]
    whole = Batch(images, widths, parts, texts, texts, list(range(4)), 9, 4)
    found = parts_of(whole, passes)
    assert len(found) == passes and [text for part in found for text in part.texts] == texts
    assert torch.cat([part.widths for part in found]).equal(widths)
    lines = [image for part in found for image in part.images]
    assert [int(image.max()) for image in lines] == list(range(1, count + 1))
    assert all(int((image > 0).any(1).sum()) == width for image, width in zip(lines, widths.tolist(), strict=True))
    assert all(part.images.shape[3] <= int(part.widths.max()) + 16 for part in found if part.texts)
    assert parts is None or [n for part in found for n in part.parts] == parts
