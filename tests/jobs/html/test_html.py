"""What the pages are made of: the views of an evaluation, of confidences, of a training, of lines, of several runs."""

import json
from pathlib import Path

import made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import html
from jobs.html import comparison, evaluation, reliability, training
from jobs.html.samples import pairs

OLD = {"lines": 20, "characters": 900, "edits": 90, "words": 150, "word_edits": 50, "exact": 3, "cer": 0.1, "wer": 0.33,
       "line_accuracy": 0.15, "interval": {"cer": [0.08, 0.12], "wer": None, "groups": 8}, "by": {}, "unseen": None,
       "split": "val", "decode": "greedy"}  # fmt: skip


def viewed(folder: Path, metrics: dict, column: str | None = None) -> dict:
    made.write(folder / "metrics.json", metrics)
    return evaluation.view(folder, column)


def test_numbers_as_they_are_written():
    assert html.percent(0.0835) == "8.35\u202f%" and html.percent(None) == html.percent(float("nan")) == "\u2013"
    assert html.bounds((0.0677, 0.0999)) == "6.77 to 9.99" and html.bounds((0.1, None)) == html.bounds(None) == "\u2013"
    assert html.points(-0.0203) == "\u22122.03" and html.points(0.0203) == "+2.03"
    assert html.count(5_000_000) == "5\u202f000\u202f000" and html.count(None) == "\u2013"
    assert html.number({"a": {"b": 1}}, "a", "b") == 1 and html.number({"a": None}, "a", "b") is None
    assert html.number({"a": True}, "a") is None and html.number({"a": "1"}, "a") is None


def test_whatever_a_template_is_given_is_escaped():
    assert not set("<\"'") & set(
        html.render("base.html", title="</title><script>\"'").split("<title>")[1].split("</title>")[0]
    )


def test_a_view_that_lacks_something():
    with pytest.raises(ValueError, match="a figure is missing"):
        html.render("run.html", title="")


def test_an_evaluation_of_an_earlier_version(tmp_path: Path):
    view = viewed(tmp_path, OLD)
    assert view["cer"]["value"] == 0.1 and view["cer"]["within"] == (0.08, 0.12)
    assert [row["title"] for row in view["rates"]] == ["WER", "Lines right"] and view["rates"][0]["within"] is None
    assert view["normalised"] is view["drift"] is view["classes"] is None
    assert view["slices"] == view["confusions"] == view["macro"] == view["parsed"] == view["kinds"] == []


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ({"groups": 38, "unit": "writer", "warning": None}, "Few clusters: the intervals rest on 38 writers"),
        ({"groups": 1, "unit": "writer"}, "No interval can be given"),
        ({"groups": 900, "unit": "certificate"}, "by certificate, since not every writer is known"),
        ({"groups": 900, "unit": "certificate", "warning": "these physicians alone"}, "these physicians alone"),
        ({"groups": 900, "unit": "writer"}, None),
    ],
)
def test_warnings(tmp_path: Path, interval: dict, words: str | None):
    said = viewed(tmp_path, OLD | {"interval": interval})["warnings"]
    assert len(said) == (words is not None) and (words is None or words in said[0])


def test_columns_of_names_or_texts_are_no_slices(tmp_path: Path):
    metrics = made.metrics()
    many = {f"text {number}": made.rates(0.1, 1, 1) for number in range(60)}
    texts = {f"text {number}": made.rates(0.1, 30, 3) for number in range(3)}
    view = viewed(tmp_path, metrics | {"by": metrics["by"] | {"name": many, "normalised": texts}}, "normalised")
    assert [part["column"] for part in view["slices"]] == ["year", "field", "form", "length", "writer"]
    texts = [
        {"reference": "a text", "hypothesis": "", "count": 9},
        {"reference": " ", "hypothesis": "\u0301", "count": 8},
    ]
    [row] = viewed(tmp_path, metrics | {"confusions": texts})["confusions"]
    assert (row["was"], row["read"], row["count"]) == ("space", "U+0301", 8)


def test_a_wide_interval_does_not_stretch_the_scale(tmp_path: Path):
    rows = [{"cer": 0.1, "interval": {"cer": [0.0, 0.99]}}, {"cer": 0.12, "interval": {"cer": [0.1, 0.15]}}]
    assert 0.15 <= evaluation.scale_for(rows, ("cer",)).high < 0.3


def test_slices_stand_in_their_order(tmp_path: Path):
    values = ["1025-", "11-20", "-128", "129-256", "6-10", "(none)", "1-5", "Ia", "0"]
    view = viewed(tmp_path, made.metrics() | {"by": {"length": {value: made.rates(0.1, 30, 3) for value in values}}})
    titles = [row["title"] for row in view["slices"][0]["rows"]]
    assert titles == ["0", "1-5", "6-10", "11-20", "-128", "129-256", "1025-", "(none)", "Ia"]


def test_which_evaluation(tmp_path: Path):
    run = made.run(tmp_path / "run")
    made.write(run / "evaluation" / "newer" / "metrics.json", OLD)
    (run / "evaluation" / "begun").mkdir()
    assert evaluation.choose(run, None).name == "newer" and evaluation.choose(run, "val").name == "val"
    assert [row["name"] for row in evaluation.others(run, run / "evaluation" / "val")] == ["newer"]
    with pytest.raises(ValueError, match=r"no evaluation that is whole .* there are: newer, val"):
        evaluation.choose(run, "begun")
    assert evaluation.choose(tmp_path / "none", None) is None and evaluation.timing(None) is None


# --- confidences


def test_promises(tmp_path: Path):
    made.reliability(tmp_path / "reliability" / "kept")
    made.reliability(tmp_path / "reliability" / "none", None)
    made.write(
        tmp_path / "reliability" / "cut" / "reliability.json",
        {"units": {"line": {"scores": {"calibrated": {"bins": [{}]}}}}},
    )
    (tmp_path / "reliability" / "empty").mkdir()
    cut, kept, none = reliability.view(tmp_path)
    assert (cut["name"], kept["name"], none["name"]) == ("cut", "kept", "none")
    assert cut["damaged"] and cut["units"] == [] and not kept["damaged"]
    assert kept["promise"]["none"] is False and kept["promise"]["within"] == (0.005, 0.035) and none["promise"]["none"]
    assert [unit["words"] for unit in kept["units"]] == ["lines", "words", "certificates"]
    titles = [chart["title"] for chart in kept["units"][0]["charts"]]
    assert titles[:2] == ["Wrong among the accepted, %", "CER of the accepted, %"] and len(titles) == 4
    assert "promised: 2.0" in kept["units"][0]["charts"][0]["svg"]
    assert "promised" not in kept["units"][0]["charts"][1]["svg"]  # it is on wrong lines, not on characters
    assert "promised" not in kept["units"][1]["charts"][0]["svg"]  # nor on words
    promise = json.loads((tmp_path / "reliability" / "kept" / "promise.json").read_text(encoding="utf-8"))
    made.write(tmp_path / "reliability" / "kept" / "promise.json", promise | {"loss": "cer"})
    charts = reliability.view(tmp_path)[1]["units"][0]["charts"]
    assert ["promised" in chart["svg"] for chart in charts] == [False, True, False, False]
    model = {"weights": "0123456789abcdef", "decode": "beam", "decoding": "0" * 16}
    made.write(tmp_path / "reliability" / "kept" / "promise.json", promise | {"model": model})
    for metrics, others in ((model, []), (model | {"decode": "greedy"}, ["kept"]), (None, [])):
        assert [one["name"] for one in reliability.view(tmp_path, metrics) if one["other"]] == others
        assert len(reliability.warnings(reliability.view(tmp_path, metrics))) == 2 + len(others)
    calibrated = next(row for row in kept["units"][0]["rows"] if row["name"] == "calibrated")
    assert calibrated["measures"]["ece"]["value"] == pytest.approx(0.012)  # the debiased one
    assert [words.split(":")[0] for words in reliability.warnings([cut, kept, none])] == ["Promise none"] * 2


# --- a training


def test_curves_are_thinned_and_what_is_not_finite_left_out(tmp_path: Path):
    spots = [(step, float(step)) for step in range(5000)]
    few = training.thinned(spots)
    assert len(few) <= training.MAX_CURVE_POINTS + 1 and few[0] == spots[0] and few[-1] == spots[-1]
    assert training.thinned([(1, float("nan")), (2, 1.0)]) == [(2, 1.0)]
    assert training.curves(tmp_path) == []
    run = made.run(tmp_path / "run")
    assert len(training.curves(run)) == 4
    (run / "metrics.jsonl").write_text('{"step": 10, "loss": 0.0, "lines_per_s": 5}\n{"step": 20, "loss"')
    assert [chart["title"].split()[0] for chart in training.curves(run)] == ["Loss", "Lines"]


def test_provenance(tmp_path: Path):
    run = made.run(tmp_path / "run", world=8)
    found = training.provenance(run)
    assert [(start["world"], start["hosts"], start["took"]) for start in found["starts"]] == [("8", 2, "30 min")] * 2
    assert "node0" not in json.dumps(found)  # how many hosts, not which
    assert found["trained"]["fingerprint"] == "0123456789abcdef" and "alphabet" not in found["asked"]
    (run / "provenance.json").unlink()
    assert training.provenance(run)["starts"] == []


# --- lines


@given(st.text(max_size=12), st.text(max_size=12))
def test_lines_are_aligned(reference: str, hypothesis: str):
    import unicodedata

    found = pairs(reference, hypothesis)
    assert "".join(above for _, above, _ in found) == unicodedata.normalize("NFC", reference)
    assert "".join(below for _, _, below in found) == unicodedata.normalize("NFC", hypothesis)
    for kind, above, below in found:
        assert (
            kind
            == {(1, 1): "same" if above == below else "sub", (1, 0): "del", (0, 1): "ins"}[bool(above), bool(below)]
        )
        assert kind == "same" or max(len(above), len(below)) == 1


def test_words_can_be_wrapped():
    assert pairs("le chat dort", "le chatt dor") == [
        *(("same", word, word) for word in ("le", " ", "chat")), ("ins", "", "t"),
        *(("same", word, word) for word in (" ", "dor")), ("del", "t", "")]  # fmt: skip


# --- several runs


def test_efficiency_is_that_of_the_same_reader(tmp_path: Path):
    runs = [made.run(tmp_path / f"ctc-{ranks}", 0.08, ranks, speed, ranks) for ranks, speed in ((1, 100), (4, 360))]
    runs.append(made.run(tmp_path / "attention", 0.08, 4, 50, model="attention"))
    rows = comparison.view(runs, None)["rows"]
    assert rows[0]["efficiency"] == 1 and rows[1]["efficiency"] == pytest.approx(0.9, rel=0.05)
    assert rows[2]["efficiency"] is None  # nothing to hold it against
    view = comparison.view(runs[2:], None)
    assert view["scaling"] == [] and "efficiency" not in [metric["name"] for metric in view["metrics"]]
    titles = [chart["title"] for chart in comparison.view(runs, None)["scaling"]]
    assert [title.split()[0] for title in titles] == ["Lines", "Efficiency,", "CER,", "Waiting,"]


def test_names_are_short_and_different(tmp_path: Path):
    paths = [tmp_path / "a" / "ctc", tmp_path / "b" / "ctc"]
    assert comparison.names_of(paths) == ["a/ctc", "b/ctc"] and comparison.names_of(paths[:1]) == ["ctc"]


def test_settings_that_differ_and_runs_that_lack_something(tmp_path: Path):
    one, two = made.run(tmp_path / "one", lr=0.1), made.run(tmp_path / "two", lr=0.2, augment="light")
    (two / "evaluation" / "val" / "metrics.json").unlink()
    (two / "metrics.jsonl").unlink()
    view = comparison.view([one, two], None)
    assert [(line["name"], line["values"]) for line in view["settings"]] == [
        ("augment", ["\u2013", "light"]), ("lr", ["0.1", "0.2"])]  # fmt: skip
    assert "two has no evaluation yet." in view["warnings"] and view["paired"]["rows"][0]["reason"] == "no evaluation"
    assert html.render("comparison.html", **view)
    with pytest.raises(ValueError, match="no evaluation that is whole"):
        comparison.view([one, two], "val")
