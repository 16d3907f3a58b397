"""The model of the cost: cases computed by hand, its limits, and the figures it takes from a run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.cli.command_line import main
from jobs.scaling.cost_model import ALLREDUCE, MAX_RANKS, Figures, end_of, hierarchical, padding, predict, ring, slowest
from shards.files import to_json

# nothing costs anything but computing: 0.1 s a step
FREE = Figures(
    compute=0.1, gradients=1e-9, inside=1e12, inside_latency=0, across=1e12, across_latency=0,
    cycle=0, hop=0, per_tensor=0, jitter=0, storage=1e15, buckets=2,
)  # fmt: skip


def test_ring_by_hand():
    f = replace(FREE, gradients=1e9, inside=10e9, across=1e9, inside_latency=1e-3, across_latency=1e-2)
    assert ring(f, 4, 1e9) == pytest.approx(2 * 3 / 4 * 0.1 + 6 * 1e-3)  # one node
    assert ring(f, 8, 1e9) == pytest.approx(2 * 7 / 8 * 1.0 + 14 * 1e-2)  # two: the slow link for all


def test_hierarchical_by_hand():
    f = replace(FREE, gradients=1e9, inside=10e9, across=1e9, inside_latency=1e-3, across_latency=1e-2)
    assert hierarchical(f, 4, 1e9) == pytest.approx(ring(f, 4, 1e9))
    assert hierarchical(f, 8, 1e9) == pytest.approx(0.15 + 6e-3 + 2 * 1 / 2 * 1.0 + 2 * 1e-2)
    assert hierarchical(replace(f, ranks_per_node=1), 8, 5) == pytest.approx(ring(replace(f, ranks_per_node=1), 8, 5))


@pytest.mark.parametrize("algorithm", ALLREDUCE)
def test_one_rank_loses_nothing_and_free_exchange_costs_nothing(algorithm: str):
    assert predict(Figures(compute=0.1, gradients=1e8, other=0.02), 1, algorithm).efficiency == 1
    assert predict(Figures(compute=0.1, gradients=1e8, other=0.02), 1, algorithm).seconds == pytest.approx(0.12)
    assert predict(FREE, 512, algorithm).efficiency == pytest.approx(1)


@pytest.mark.parametrize("algorithm", ALLREDUCE)
def test_more_ranks_are_never_more_efficient(algorithm: str):
    f = Figures(compute=0.05, gradients=1e8)
    found = [predict(f, 2**power, algorithm).efficiency for power in range(13)]
    assert found == sorted(found, reverse=True) and found[-1] < 0.9 * found[1]


def test_what_backward_hides():
    f = replace(FREE, gradients=1e9, across=100e9, inside=100e9, ranks_per_node=1, backward=0.5)
    allreduce = 2 * 7 / 8 * 0.01
    # 0.05 s of backward hide all but the tail
    assert predict(replace(f, tail=0.2), 8).seconds == pytest.approx(0.1 + 0.2 * allreduce)
    # ten times the gradients: 0.175 s, of which 0.0875 may be hidden and 0.05 are
    f = replace(f, gradients=1e10, tail=0.5)
    assert predict(f, 8).seconds == pytest.approx(0.1 + 10 * allreduce - 0.05)
    assert predict(f, 8).limit == "the sum of gradients"


def test_horovods_agreement_by_hand():
    f = replace(FREE, hop=1e-4, cycle=1e-3, per_tensor=1e-5, tensors=50, buckets=3)
    step = predict(f, 8)  # one ring of 14 hops after backward, those of the buckets hidden in it
    assert step.seconds == pytest.approx(0.1 + 14e-4 + 0.5e-3 + 50e-5)
    assert step.limit == "the ranks' agreement"


def test_torch_agrees_on_a_flag_alone():
    f = replace(FREE, hop=1e-4, cycle=1e-3, buckets=3, agreements=0)
    assert predict(f, 8).seconds == pytest.approx(0.1)  # on its way while the ranks compute
    assert predict(f, 1001).lost["the ranks' agreement"] == pytest.approx(2000 * 1e-4 - 0.1)


def test_the_models_backend_is_that_of_the_training(capsys):
    """The figures' own table says it; --figure wins."""
    said = []
    for more in ([], ["--backend", "torch"], ["--backend", "torch", "--figure", "agreements=2"]):
        assert main(["scale", "--predict", "--figure", "compute=0.01", "--figure", "gradients=1e7", *more]) == 0
        table = capsys.readouterr().out
        said.append(next(float(line.split()[1]) for line in table.splitlines() if line.startswith("  agreements")))
    assert said == [1, 0, 2]


def test_each_bucket_takes_a_ring_of_latencies():
    f = replace(FREE, across_latency=1e-3, inside_latency=1e-3, backward=0)
    for buckets, tail in ((1, 1.0), (2, 0.1), (5, 0.1)):
        step = predict(replace(f, buckets=buckets, tail=tail), 8)
        assert step.allreduce == step.lost["the sum of gradients"] == pytest.approx(buckets * 14e-3)


def test_slowest_rank_and_padding():
    assert slowest(1) == pytest.approx(0)
    assert slowest(2) == pytest.approx(0.564, abs=0.03) and slowest(100) == pytest.approx(2.508, abs=0.02)
    f = replace(FREE, jitter=0.1)
    assert predict(f, 100).lost["the slowest rank"] == pytest.approx(0.1 * 0.1 * 2.508, rel=0.01)
    step = predict(FREE, 8, wider={1: 100, 8: 150})
    assert step.seconds == pytest.approx(0.15) and step.limit == "padding to wider lines"
    assert predict(FREE, 4, wider={1: 100, 16: 200}).seconds == pytest.approx(0.15)  # half way, in logarithms


def test_the_file_system_bounds_lines_per_s():
    f = replace(FREE, lines=10, line_bytes=1e4, storage=1e7)  # 1 000 lines/s; a rank wants 100
    assert predict(f, 8).efficiency == pytest.approx(1)
    step = predict(f, 40)
    assert step.lines_per_s == pytest.approx(1000) and step.limit == "reading"


def test_where_an_efficiency_ends():
    f = replace(FREE, lines=10, line_bytes=1e4, storage=1e7)
    last, after = end_of(f)
    # 1 000 lines/s for N that want 100 each: 0.9 up to 11.1 ranks, in nodes of four
    assert (last.ranks, after.ranks) == (8, 12) and last.efficiency >= 0.9 > after.efficiency
    assert after.limit == "reading"
    assert end_of(FREE)[0].ranks == MAX_RANKS and end_of(FREE)[1] is None


@pytest.mark.parametrize(("name", "value"), [("compute", 0), ("across", 0), ("tail", 1.5), ("hop", -1)])
def test_figures_that_make_no_sense(name: str, value: float):
    with pytest.raises(ValueError, match=name):
        replace(FREE, **{name: value})


def test_larger_batches_of_few_lines_are_padded_more(dataset):
    line_bytes, wider = padding(dataset.folder, "train", 1, 48)
    assert 100 < line_bytes < 100_000
    assert 1 in wider and wider[16] > wider[1]
    plenty = padding(dataset.folder, "train", 1, 48, texts=10_000_000)[1]
    assert plenty[16] < wider[16]  # the same widths, but more of them to sort


# --- the command


@pytest.fixture
def run(tmp_path: Path, dataset) -> Path:
    """Two ranks, 8 lines a step in 0.5 s: 0.4 computing, 0.06 waiting for the exchange."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = {"model": "ctc", "size": "tiny", "alphabet": "abc", "batch": 8, "compression": "fp16", "split": "train"}
    (folder / "config.json").write_text(to_json({**config, "folder": str(dataset.folder)}))
    (folder / "status.json").write_text('{"world": 2}')
    shares = {"compute_share": 0.8, "exchange_share": 0.12, "data_share": 0.01}
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 9, "lines_per_s": 16.0, **shares}) + "\n")
    return folder


def test_predicted_from_a_run(run: Path, capsys):
    from htr.models.registry import create

    assert main(["scale", "--predict", "--from", str(run), "--figure", "across=2e9"]) == 0
    text = capsys.readouterr().out
    figures = {line.split()[0]: float(line.split()[1]) for line in text.partition("assumptions:")[2].splitlines()[1:-1]}
    assert figures["compute"] == pytest.approx(0.4) and figures["other"] == pytest.approx(0.04)
    assert figures["lines"] == 4 and figures["across"] == 2e9
    parameters = sum(parameter.numel() for parameter in create("ctc", "tiny", 3).parameters())
    assert figures["gradients"] == pytest.approx(2 * parameters, rel=1e-5)
    assert figures["buckets"] == 2 and 0 < figures["tail"] < 0.5
    assert "90% efficiency ends after" in text and [line.split()[0] for line in text.splitlines()[2:9]] == [
        "8", "16", "32", "64", "128", "256", "512",
    ]  # fmt: skip


def test_a_run_whose_data_set_is_elsewhere(run: Path, capsys):
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    (run / "config.json").write_text(to_json({**config, "folder": "/nowhere"}))
    assert main(["scale", "--predict", "--from", str(run)]) == 0
    assert "is not here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "compute and gradients must be known"),
        (["--figure", "compute=1"], "gradients must be known"),
        (["--figure", "bandwidth=1"], "no such figure, there are compute, gradients"),
        (["--figure", "compute=fast"], "write it as NAME=NUMBER"),
        (["--from", "nowhere"], "no run with log lines"),
        (["--texts", "5"], "together with --from"),
    ],
)
def test_what_is_missing_is_said(options: list[str], message: str, capsys):
    assert main(["scale", "--predict", *options]) == 1
    assert message in capsys.readouterr().err
