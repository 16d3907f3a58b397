"""From three evaluations to a promise, by the command line."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import evaluated
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from htr.reliability.promise import Promise
from htr.reliability.units import lines_in
from jobs.cli.command_line import main
from jobs.evaluation.promise_files import in_digits
from jobs.evaluation.results import Evaluation, check_right_and_wrong

SIZES = {"dev": 150, "calibration": 600, "test": 300}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return evaluated.run(tmp_path_factory.mktemp("run") / "ctc", SIZES, easy=1.0)


def calibrate(run: Path, *options: object, judge: str = "test") -> int:
    parts = ("--fit", "dev", "--choose", "calibration", "--judge", judge)
    return main(list(map(str, ["calibrate", "--run", run, *parts, *options])))


def note(run: Path, name: str, file: str = "promise.json") -> dict:
    return json.loads((run / "reliability" / name / file).read_text(encoding="utf-8"))


def test_a_promise_of_fields_that_the_third_part_bears_out(run: Path, capsys):
    assert calibrate(run, "--alpha", 0.1, "--name", "fields", "--by", "unit") == 0
    said = capsys.readouterr()
    found = note(run, "fields")
    promise = Promise.load(run / "reliability" / "fields")
    assert found["promise"] in said.out and "at most 10 % differ from the transcription" in found["promise"]
    assert "against the transcription, whose own errors count" in found["assumes"]
    assert found["test"] == "binomial" and found["clusters"] == {"by": "field", "count": 3 * SIZES["calibration"]}
    assert found["needed"] == 29 and found["coverage"] > 0.3
    passed = [step["passed"] for step in found["sequence"]]
    assert all(passed[:-1]) and found["threshold"] == max(s["threshold"] for s in found["sequence"][-2:] if s["passed"])
    coverages = [step["accepted"] for step in found["sequence"]]
    assert coverages == sorted(coverages)  # strict to loose
    # what the promise accepts of the third part is what it was judged by
    table = Evaluation.read(run / "evaluation" / "test").table
    accepted = promise.accept(promise.probability(table), lines_in(table))
    fields = list(zip(table["certificate"].to_pylist(), table["field"].to_pylist(), strict=True))
    chosen = {field for field, kept in zip(fields, accepted, strict=True) if kept}
    judged = found["judged"]
    assert judged["items"] == len(set(fields)) and judged["accepted"] == len(chosen)
    assert judged["low"] <= judged["rate"] <= judged["high"] and judged["rate"] <= 0.1
    assert found["drift"]["p"] > 0.05 and not found["drift"]["warns"] and found["drift"]["against"] == "test"
    assert evaluated.CANARY not in said.out + said.err
    for file in (run / "reliability" / "fields").iterdir():
        assert evaluated.CANARY not in file.read_text(encoding="utf-8") and '"test-1"' not in file.read_text(
            encoding="utf-8"
        )


def test_fields_whose_lines_have_no_texts_of_their_own(run: Path, tmp_path: Path):
    """The promise of fields is as good; that of lines is of texts of one line."""
    for split in SIZES:
        table = evaluated.merged(Evaluation.read(run / "evaluation" / split).table)
        evaluated.write(tmp_path / "evaluation" / split, table, split)
    assert calibrate(tmp_path, "--alpha", 0.1, "--name", "fields", "--by", "unit") == 0
    assert calibrate(run, "--alpha", 0.1, "--name", "apart", "--by", "unit") == 0
    together, apart = note(tmp_path, "fields"), note(run, "apart")
    assert together["judged"]["items"] == apart["judged"]["items"] and together["judged"]["rate"] <= 0.1
    assert together["coverage"] > apart["coverage"] - 0.1
    assert calibrate(tmp_path, "--unit", "line", "--alpha", 0.1, "--name", "lines", "--by", "unit") == 0
    assert note(tmp_path, "lines")["judged"]["items"] == 2 * SIZES["test"]
    figures = note(tmp_path, "lines", "reliability.json")["units"]
    assert figures["line"]["items"] == 2 * SIZES["test"] and figures["field"]["items"] == 3 * SIZES["test"]
    assert figures["word"]["items"] == 3 * 4 * SIZES["test"]


@pytest.mark.parametrize(
    ("options", "test", "clusters"),
    [
        (("--unit", "certificate", "--alpha", "0.3"), "binomial", {"by": "certificate", "count": 600}),
        (("--unit", "field", "--alpha", "0.1"), "betting", {"by": "certificate", "count": 600}),
        (("--unit", "line", "--loss", "cer", "--alpha", "0.02"), "betting", {"by": "certificate", "count": 600}),
    ],
)
def test_what_is_independent_decides_the_test(run: Path, options, test, clusters):
    assert calibrate(run, *options, "--name", "-".join(options[1::2])) == 0
    found = note(run, "-".join(options[1::2]))
    assert found["test"] == test and found["clusters"] == clusters and found["threshold"] is not None
    assert found["judged"]["rate"] <= found["alpha"]
    assert found["per_cluster"] == (None if test == "binomial" else 5)
    assert ("where a certificate counts as at most 5" in found["promise"]) == (test == "betting")
    assert ("a line as at most 30 characters" in found["promise"]) == ("cer" in options)


def test_writers_are_the_unit_where_they_are_known(tmp_path: Path):
    run = evaluated.run(tmp_path / "run", SIZES, writers=60)
    assert calibrate(run, "--alpha", 0.15, "--unit", "line", "--name", "x") == 0
    assert note(run, "x")["clusters"] == {"by": "writer", "count": 60} and note(run, "x")["test"] == "betting"
    assert "other writers of this kind" in note(run, "x")["assumes"]
    assert note(run, "x", "score.json")["fitted"]["by"] == "writer"


def rewritten(run: Path, split: str, change) -> None:
    """The evaluation of this split, each of its writers under another name."""
    folder = run / "evaluation" / split
    for path in (folder / "parts").iterdir():
        table = pq.read_table(path)
        writers = [change(number, name) for number, name in enumerate(table["writer"].to_pylist())]
        pq.write_table(table.set_column(table.column_names.index("writer"), "writer", pa.array(writers)), path)


def test_certificates_of_unknown_writers_are_said_to_be_so(tmp_path: Path):
    run = evaluated.run(tmp_path / "run", SIZES, writers=300)
    rewritten(run, "calibration", lambda number, name: name if number % 4 < 2 else None)
    assert calibrate(run, "--alpha", 0.15, "--unit", "line", "--name", "x") == 0
    found = note(run, "x")
    groups = set(Evaluation.read(run / "evaluation" / "calibration").groups("writer").tolist())
    unknown = sum(group.startswith("certificate ") for group in groups)
    assert unknown > 100 and found["clusters"]["count"] == len(groups)
    assert f"of {len(groups) - unknown} writers and {unknown} certificates of unknown writers" in found["promise"]
    assert "whose writer is not known are taken as of a writer each" in found["assumes"]


def test_a_part_without_writers_promises_nothing_of_writers(tmp_path: Path, capsys):
    run = evaluated.run(tmp_path / "run", SIZES, writers=60)
    rewritten(run, "calibration", lambda number, name: "")
    assert calibrate(run, "--alpha", 0.15, "--name", "x") == 0
    assert note(run, "x")["clusters"] == {"by": "certificate", "count": 600}
    assert calibrate(run, "--alpha", 0.15, "--name", "y", "--by", "writer") == 1
    assert "knows no writer" in capsys.readouterr().err


def test_writers_under_two_spellings_are_one(tmp_path: Path, capsys):
    """Counted as two they would be evidence twice, and might stand in two parts."""
    run = evaluated.run(tmp_path / "run", SIZES, writers=60)
    other = ["{}", " {}", "{} ", "\u00c9{}", "E\u0301{}"]
    rewritten(run, "calibration", lambda number, name: other[number % 3].format(name.upper() if number % 2 else name))
    assert calibrate(run, "--alpha", 0.15, "--unit", "line", "--name", "x") == 0
    assert note(run, "x")["clusters"] == {"by": "writer", "count": 60}
    rewritten(run, "dev", lambda number, name: "Dr  \u00c9. Un" if not number else name)
    rewritten(run, "test", lambda number, name: "DR E\u0301. UN" if not number else name)
    assert calibrate(run, "--alpha", 0.15, "--unit", "line", "--name", "y") == 1
    assert "dev and test have 1 writer in common" in capsys.readouterr().err


def test_no_promise_of_other_writers_where_those_who_plan_choose(tmp_path: Path, capsys):
    run = evaluated.run(tmp_path / "run", SIZES, writers=60)
    rewritten(run, "calibration", lambda number, name: name.replace("calibration-", "dev-"))
    asked = ("--alpha", 0.15, "--unit", "line", "--may-share", "writer")
    assert calibrate(run, *asked, "--name", "x") == 1
    assert "have 60 writers in common" in capsys.readouterr().err
    assert calibrate(run, *asked, "--name", "x", "--by", "certificate") == 0
    assert "other certificates of the same writers" in note(run, "x")["assumes"]


def test_promises_of_one_part_are_counted(run: Path, capsys):
    for number, alpha in enumerate((0.31, 0.32, 0.33)):
        before = len(list((run / "reliability").glob("*/promise.json")))
        # each of two promises that are announced is tested at half of the delta; others are there already
        planned = max(before + 1, 2)
        shared = ("--delta", 0.05 * planned, "--promises", planned)
        assert calibrate(run, "--alpha", alpha, "--name", f"many-{number}", *shared) == 0
        found = note(run, f"many-{number}")
        assert found["delta"] == pytest.approx(0.05) and "with a probability of at least 95 %" in found["promise"]
        assert all(step["p"] <= 0.05 for step in found["sequence"] if step["passed"])
        said, least = capsys.readouterr().err, f"{max(100 - 5 * (before + 1), 0):g} %"
        assert ("more promises were chosen on calibration" in said) == (before > 0)
        if before:
            assert f"{before} more promises" in said and f"all {before + 1} hold together" in said
            assert f"picked when they are known, with {least} at least" in said
    names = {path.parent.name for path in (run / "reliability").glob("*/promise.json")}
    # what was planned together is there: one more is not as good as it would say
    assert calibrate(run, "--alpha", 0.34, "--name", "more", "--promises", len(names)) == 1
    said = capsys.readouterr().err
    assert f"--promises {len(names)}, but {len(names)} promises were chosen on calibration already" in said
    assert ", ".join(sorted(names)) in said and f"give --promises {len(names) + 1} " in said
    assert not (run / "reliability" / "more").exists()
    assert calibrate(run, "--promises", 0) == 1 and "--promises is 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("threshold", "said"),
    [(0.97312, "0.9731"), (0.99996, "0.99996"), (1 - 1e-6, "0.999999"), (1 - 2e-12, "0.999999999998"), (1.0, "1.0000")],
)
def test_a_threshold_below_one_is_never_said_to_be_one(threshold: float, said: str):
    assert in_digits(threshold) == said


def test_nothing_can_be_promised_with_too_few(tmp_path: Path, capsys):
    run = evaluated.run(tmp_path / "run", {"dev": 40, "calibration": 20, "test": 20})
    assert calibrate(run, "--unit", "certificate", "--alpha", 0.02, "--name", "x") == 0
    found = note(run, "x")
    assert found["threshold"] is found["coverage"] is None and found["judged"]["accepted"] == 0
    assert "Nothing can be promised with these data (20 certificates" in capsys.readouterr().out
    assert "at least 149 accepted certificates without an error" in found["promise"]


def test_before_and_after_in_figures(run: Path):
    calibrate(run, "--alpha", 0.2, "--name", "figures")
    found = note(run, "figures", "reliability.json")
    assert set(found["units"]) == {"line", "character", "word", "field", "certificate"}
    for unit, about in found["units"].items():
        before, after = about["scores"]["confidence"], about["scores"]["calibrated"]
        assert after["log_loss"]["value"] < before["log_loss"]["value"], unit
        assert {"ece", "brier", "log_loss", "aurc", "bins", "risk_coverage"} == set(after)
        assert sum(row["items"] for row in after["bins"]) == about["items"]
    line = found["units"]["line"]["scores"]
    assert set(line) == {"confidence", "frames", "calibrated"} and "cer" in line["calibrated"]["risk_coverage"][0]
    assert line["calibrated"]["ece"]["debiased"] < 0.03 < line["confidence"]["ece"]["debiased"]
    assert line["calibrated"]["aurc"]["value"] < line["frames"]["aurc"]["value"]


def test_a_part_that_is_unlike_the_others_is_said(tmp_path: Path, capsys):
    run = evaluated.run(tmp_path / "run", {"dev": 60, "calibration": 100})
    evaluated.write(run / "evaluation" / "later", evaluated.lines(9, 100, easy=-1.0, name="later-"), "test")
    assert calibrate(run, "--alpha", 0.3, "--name", "x", judge="later") == 0
    assert note(run, "x")["drift"]["warns"] and "drift: later is not like calibration" in capsys.readouterr().out


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return evaluated.run(tmp_path_factory.mktemp("small") / "ctc", dict.fromkeys(SIZES, 40))


def test_a_threshold_is_chosen_once(small: Path, capsys):
    run = small
    calibrate(run, "--alpha", 0.25, "--name", "once")
    before = (run / "reliability" / "once" / "promise.json").read_bytes()
    assert calibrate(run, "--alpha", 0.3, "--name", "once") == 1
    assert "this promise exists already and is never replaced" in capsys.readouterr().err
    assert (run / "reliability" / "once" / "promise.json").read_bytes() == before


def test_the_same_parts_give_the_same_files(small: Path):
    run = small
    for name in ("one", "two"):
        calibrate(run, "--alpha", 0.2, "--name", name)
    for file in ("score.json", "promise.json", "reliability.json"):
        assert note(run, "one", file) == note(run, "two", file)


def test_parts_that_share_certificates_and_other_questions_are_refused(small: Path, tmp_path: Path, capsys):
    run = small

    def fails(match: str, *options: object, **parts: str) -> None:
        assert calibrate(run, *options, **parts) == 1
        said = capsys.readouterr().err
        assert match in said and evaluated.CANARY not in said

    fails("calibration have 40 certificates in common", "--name", "x", judge="calibration")
    fails("--loss cer is of lines", "--loss", "cer", "--name", "x")
    fails("both are shares", "--alpha", "2", "--name", "x")
    fails("no evaluation other", "--name", "x", judge="other")
    copy = tmp_path / "other"
    shutil.copytree(run / "evaluation" / "test", copy)
    asked = json.loads((copy / "evaluation.json").read_text(encoding="utf-8"))
    (copy / "evaluation.json").write_text(json.dumps(asked | {"decode": "greedy"}))
    fails("differ in decode", "--name", "x", judge=str(copy))
    assert not (run / "reliability" / "x").exists()


@pytest.mark.parametrize(("exact", "lacks"), [([1, 1, 1], "3 right and 0 wrong"), ([0, 1, 0], "0 right and 2 wrong")])
def test_what_a_part_lacks_to_be_fitted_on_is_said(exact, lacks):
    """Lines 1 and 2 are one field's."""
    table = pa.table({"certificate": ["a", "b", "b"], "field": ["I", "I", "I"]})
    part = SimpleNamespace(name="dev-1", table=table, numbers=lambda _: np.array(exact, float))
    unit = "line" if all(exact) else "field"
    with pytest.raises(ValueError, match=f"dev-1 has {lacks} {unit}s: --fit needs at least one "):
        check_right_and_wrong(part, unit)
    if unit == "field":
        check_right_and_wrong(part, "line")  # of these it has both
