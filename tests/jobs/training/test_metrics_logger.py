"""The figures of a log line, from what each rank counted and timed."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ranks import Ranks as RealRanks
from ranks import open_nursery, rank

from jobs.training import metrics
from jobs.training.metrics import STAYS, MetricsLogger, SlowRank, StepTimer, memory

GPU = SimpleNamespace(type="cuda")


class Ranks:
    """A world: what `collect` hands in, changed for each of the ranks."""

    device, place = torch.device("cpu"), SimpleNamespace(host="node1")

    def __init__(self, *changes: dict):
        self.changes, self.size, self.exchanges = changes, len(changes), 0

    def gather(self, mine: dict) -> list[dict]:
        self.exchanges += 1
        return [mine | change for change in self.changes]


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(metrics, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def batch(lines: int):
    """Of 48 x 100 pixels each, 75 of the columns ink."""
    return SimpleNamespace(texts=["a"] * lines, images=torch.zeros(lines, 1, 48, 100), widths=torch.full((lines,), 75))


def test_figures_of_two_ranks(clock):
    ours = MetricsLogger()
    for _ in range(2):
        ours.steps += 1
        ours.add(batch(4), torch.tensor(3.0), torch.tensor(1))
        ours.norms.append(torch.tensor(0.5))
    ours.waited, ours.timer.seconds = 1.0, {"exchange": 2.0, "compute": 6.0, "step": 8.5}
    clock.seconds += 10
    world = Ranks({}, {"lines": 12, "loss": 1.0, "data": 0.3, "exchange": 0.0, "step": 0.7})
    found = ours.collect(world)
    shown = {name: found[name] for name in ("loss", "lines_per_s", "lines_per_s_rank", "gradient_norm", "padding")}
    assert shown == pytest.approx(
        {"loss": (6 + 1) / 2, "lines_per_s": 2.0, "lines_per_s_rank": 1.0, "gradient_norm": 0.5, "padding": 0.25}
    )
    assert (found["unfit"], found["skipped_steps"]) == (4, 0)
    shares = {name: found[f"{name}_share"] for name in metrics.SHARES}
    assert shares == pytest.approx({"data": 0.2, "exchange": 0.1, "compute": 0.6, "step": 0.775})
    # of its own: 0.1 + 0.85 - 0.2 of the time on rank 0, all of it on rank 1, which the other waits for
    assert found["slowest_rank"] == 1
    assert found["slowest_excess"] == pytest.approx(1 / 0.875 - 1)
    assert world.exchanges == 1


def test_memory_is_that_of_the_largest_rank(clock):
    ours = MetricsLogger()
    clock.seconds += 1
    found = ours.collect(Ranks({"memory_gib": 2.0}, {"memory_gib": 7.5}, {"memory_gib": 3.0}))
    assert found["memory_gib"] == 7.5
    assert "gpu_memory_gib" not in found


def test_nothing_was_done_yet(clock):
    ours = MetricsLogger()
    clock.seconds += 1
    found = ours.collect(Ranks({}))
    assert (found["loss"], found["slowest_rank"], found["slowest_excess"]) == (0, 0, 0)


def test_the_next_line_begins_anew(clock):
    ours = MetricsLogger()
    ours.steps += 1
    ours.add(batch(4), torch.tensor(3.0), torch.tensor(1))
    clock.seconds += 1
    assert ours.collect(Ranks({}))["lines_per_s"] == 4
    clock.seconds += 1
    assert ours.collect(Ranks({}))["lines_per_s"] == 0


def test_waiting_for_data_is_timed(clock):
    def slow():
        for _ in range(2):
            clock.seconds += 3
            yield batch(1)
        clock.seconds += 1

    ours = MetricsLogger()
    for _ in ours.waiting(slow()):
        clock.seconds += 100  # what the step takes is not waiting
    assert (ours.steps, ours.waited) == (2, 7)


def test_memory_is_the_peak_of_this_process():
    resident = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30
    found = memory(torch.device("cpu"))
    assert list(found) == ["memory_gib"]
    assert 0.9 * resident < found["memory_gib"] < 100 * resident  # GiB, not KiB or bytes


def test_memory_of_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: 3 * 2**29 if device is GPU else 0)
    assert memory(GPU)["gpu_memory_gib"] == 1.5


def test_a_rank_that_stays_slow_is_named_once_with_its_host():
    slow, hosts = SlowRank(), ["node1", "node1", "node2", "node2"]
    said = [slow.look(own, hosts) for own in [[1, 1, 1.2, 1.6]] * 5 + [[1, 1, 1.2, 1.25]] + [[1, 1, 1.2, 1.6]] * 4]
    assert [bool(line) for line in said] == [n in (STAYS - 1, 5 + STAYS) for n in range(10)]
    assert said[STAYS - 1].startswith("rank 3 on node2 takes 1.6 times as long as the median of ranks")
    assert not any(slow.look([1, 1, 2, 1] if n % 2 else [1, 2, 1, 1], hosts) for n in range(8))  # now one, now another
    assert slow.look([0.0, 0.0], hosts) == ""


def test_two_ranks_of_which_one_is_slow(tmp_path):
    with open_nursery() as nursery:
        said = RealRanks(nursery, tmp_path, "torch").results(rank(0), rank(1), work="slow")
    assert said[0] == said[1] and [bool(line) for line in said[0]] == [False, False, True, False, False, False]
    assert said[0][2].startswith("rank 1 on node1 takes 2.0 times")


def test_the_parts_of_a_step_on_the_hosts_clock(clock):
    timer = StepTimer()
    for part, seconds in (("compute", 3), ("exchange", 2), ("compute", 1), ("", 5), ("compute", 4), ("", 0)):
        timer.lap(part)
        clock.seconds += seconds
    assert timer.total() == {"compute": 8, "exchange": 2, "step": 10}


def test_on_a_gpu_the_parts_are_timed_by_events(monkeypatch):
    """A stand-in for CUDA's events, which know when the GPU came to them; the host's clock is asked nothing."""
    moments, asked = iter([0.0, 3000.0, 5000.0, 6000.0]), []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.moment = next(moments)

        def synchronize(self):
            asked.append("waited")

        def elapsed_time(self, end):
            return end.moment - self.moment  # ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(metrics, "time", None)
    timer = StepTimer(GPU)
    for part in ("compute", "exchange", "compute", ""):
        timer.lap(part)
    assert asked == [] and timer.total() == {"compute": 4.0, "exchange": 2.0, "step": 6.0} and asked == ["waited"]
    assert timer.total() == {"compute": 4.0, "exchange": 2.0, "step": 6.0}
