"""Evaluation: every line once, the same result whatever the tasks, and what it refuses."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from htr.metrics.error_rates import Errors, compare
from htr.metrics.words import unseen, words_in
from htr.synth.simulate import simulate
from jobs.cli.command_line import main
from jobs.evaluation.comparison import paired
from jobs.evaluation.metrics import rates
from jobs.transcribe import PRETRAINED


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory) -> Path:
    """A CTC run of a few steps, tuned."""
    folder = tmp_path_factory.mktemp("runs") / "ctc"
    shutil.copytree(trained, folder)
    assert main(["tune", "--run", str(folder), "--most", "4", "--device", "cpu"]) == 0
    return folder


def evaluate(run: Path, name: str, *options: object) -> int:
    options = map(str, options)
    return main(["evaluate", "--run", str(run), "--split", "train", "--device", "cpu", "--name", name, *options])


def as_task(monkeypatch, task: int, tasks: int) -> None:
    for name, value in (("ID", task), ("COUNT", tasks), ("MIN", 0), ("MAX", tasks - 1), ("STEP", 1)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))


def test_result_does_not_depend_on_the_tasks(run: Path, dataset, monkeypatch, capsys):
    assert evaluate(run, "one") == 0
    for task in (2, 0, 1):
        as_task(monkeypatch, task, 3)
        assert evaluate(run, "three") == 0
        assert (run / "evaluation" / "three" / "metrics.json").exists() == (task == 1)  # the last one merges
    one, three = (run / "evaluation" / name for name in ("one", "three"))
    assert (one / "metrics.json").read_bytes() == (three / "metrics.json").read_bytes()
    parts = sorted(path.name for path in (one / "parts").iterdir())
    assert len(parts) > 2
    assert all((one / "parts" / name).read_bytes() == (three / "parts" / name).read_bytes() for name in parts)
    # the figures are those of the lines, each once
    rows = [row for name in parts for row in pq.read_table(one / "parts" / name).to_pylist()]
    assert sorted(row["key"] for row in rows) == sorted(dataset.samples("train")["key"].to_pylist())
    total = sum((compare(row["reference"], row["hypothesis"]) for row in rows), Errors())
    metrics = json.loads((one / "metrics.json").read_text(encoding="utf-8"))
    timing = json.loads((one / "timing.json").read_text(encoding="utf-8"))  # beside them, since no two runs are as fast
    assert timing["lines"] == total.lines and 0 < timing["lines_per_s"] < timing["decoding_lines_per_s"]
    assert len(timing["cores"]) == 1
    assert (metrics["lines"], metrics["cer"], metrics["wer"]) == (total.lines, total.cer, total.wer)
    assert sum(part["lines"] for part in metrics["by"]["field"].values()) == total.lines
    said = capsys.readouterr()
    assert not [row for row in rows if row["reference"] in said.out + said.err]


def test_second_run_does_only_what_is_missing(run: Path):
    assert evaluate(run, "again") == 0
    folder = run / "evaluation" / "again"
    before = (folder / "metrics.json").read_bytes()
    first, *others = sorted((folder / "parts").iterdir())
    times = [path.stat().st_mtime_ns for path in others]
    first.unlink()
    (folder / "metrics.json").unlink()
    assert evaluate(run, "again") == 0
    assert (folder / "metrics.json").read_bytes() == before
    assert [path.stat().st_mtime_ns for path in others] == times


def test_where_selects_lines(run: Path, dataset):
    assert evaluate(run, "field", "--where", "field=Ia") == 0
    metrics = json.loads((run / "evaluation" / "field" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["lines"] == dataset.samples("train")["field"].to_pylist().count("Ia") > 0


def fails(capsys, *argv: object) -> str:
    assert main([str(part) for part in argv]) == 1
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_another_question_under_the_same_name(run: Path, capsys):
    assert evaluate(run, "name") == 0
    said = fails(capsys, "evaluate", "--run", run, "--split", "dev", "--name", "name", "--device", "cpu")
    assert "was begun with another split" in said


def test_a_data_set_that_was_made_anew_from_other_images(run: Path, dataset, tmp_path: Path, capsys):
    """Its rows and so its fingerprint are the same: parts of the one are no parts of the other."""
    data = shutil.copytree(dataset.folder, tmp_path / "lines")
    assert evaluate(run, "anew", data) == 0
    path = data / "index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["shards"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(index))
    said = fails(capsys, "evaluate", data, "--run", run, "--split", "train", "--name", "anew", "--device", "cpu")
    assert "anew was begun on other shards: the data set was made anew since" in said
    note = run / "evaluation" / "anew" / "evaluation.json"
    older = {name: value for name, value in json.loads(note.read_text()).items() if name != "index"}
    note.write_text(json.dumps(older))
    assert evaluate(run, "anew", data) == 0  # one of an older version does not know its shards


def test_dataset_of_another_alphabet(run: Path, dataset, tmp_path: Path, capsys):
    shutil.copytree(dataset.folder, tmp_path / "other")
    path = tmp_path / "other" / "index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(index | {"alphabet": index["alphabet"] + "\u017f"}))
    assert main(["evaluate", str(tmp_path / "other"), "--run", str(run), "--device", "cpu", "--name", "other"]) == 0
    said = capsys.readouterr().err
    assert "can't write" in said and "(U+017F): each one in a text is an error" in said


def test_accepted_references_are_no_errors(run: Path, tmp_path: Path):
    """Of a table that has what was read as an expansion of what was typed, nothing is left to count."""
    assert evaluate(run, "typed", "--split", "train") == 0
    parts = (run / "evaluation" / "typed" / "parts").glob("*.parquet")
    rows = [row for path in parts for row in pq.read_table(path).to_pylist()]
    wrong = next(row for row in rows if row["edits"] and row["hypothesis"].strip())
    table = tmp_path / "table.csv"
    table.write_text(f'abbreviation,expansion\n"{wrong["reference"]}","{wrong["hypothesis"].strip()}"\n')
    assert evaluate(run, "accepted", "--split", "train", "--abbreviations", str(table)) == 0
    typed, accepted = (
        json.loads((run / "evaluation" / name / "metrics.json").read_text(encoding="utf-8"))
        for name in ("typed", "accepted")
    )
    assert "abbreviations" not in typed["normalised"] and accepted["edits"] == typed["edits"]
    for one, other in (("abbreviations", "as_is"), ("lenient_abbreviations", "lenient")):
        assert accepted["normalised"][one]["edits"] < typed["normalised"][other]["edits"]


def test_no_run_no_model_no_dataset(run: Path, tmp_path: Path, capsys):
    assert "not a run folder" in fails(capsys, "evaluate", "--run", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    shutil.copy(run / "config.yaml", tmp_path / "empty")
    assert "no model here" in fails(capsys, "evaluate", "--run", tmp_path / "empty", "--device", "cpu")
    assert "no data set here" in fails(capsys, "evaluate", tmp_path / "nothing", "--run", run)


def test_shard_cut_short(run: Path, dataset, tmp_path: Path, capsys):
    shutil.copytree(dataset.folder, tmp_path / "cut")
    tar = next((tmp_path / "cut").glob("train-*.tar"))
    tar.write_bytes(tar.read_bytes()[:700])
    said = fails(
        capsys, "evaluate", tmp_path / "cut", "--run", run, "--split", "train", "--name", "cut", "--device", "cpu"
    )
    assert f"{tar.name}: cut short or changed" in said
    assert not (run / "evaluation" / "cut" / "metrics.json").exists()


# --- decoding


def lines_of(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((folder / "parts").iterdir())])


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def test_greedy_and_beam_are_different_evaluations_with_signals_of_their_own(run: Path, dataset):
    for decode in ("greedy", "beam"):
        assert main(["evaluate", "--run", str(run), "--split", "dev", "--device", "cpu", "--decode", decode]) == 0
    greedy, beam = run / "evaluation" / "dev-000003", run / "evaluation" / "dev-000003-beam"
    names = {
        folder: {name for name in lines_of(folder).column_names if name.startswith("signal_")}
        for folder in (greedy, beam)
    }
    plain = ("likelihood", "greedy", "least_word", "least_character", "frames", "blank", "width", "length")
    assert names[greedy] == {f"signal_{name}" for name in plain}
    assert names[greedy] | {"signal_top_share", "signal_agreement"} <= names[beam]
    for row in lines_of(beam).to_pylist():
        of_words = [value for name, value in row.items() if name.startswith("word_signal_")]
        sizes = {len(values) for values in (row["word_confidence"], *of_words)}
        assert len(of_words) >= 3 and sizes == {len(row["hypothesis"].split())}
    for folder in (greedy, beam):
        table = lines_of(folder)
        for name in {"confidence", *names[folder]} - {"signal_width", "signal_length"}:
            assert 0 <= pc.min(table[name]).as_py() <= pc.max(table[name]).as_py() <= 1
    asked = metrics_of(beam)
    assert asked["decode"] == "beam" and len(asked["decoding"]) == 16 and metrics_of(greedy)["decode"] == "greedy"


def test_another_decoding_is_another_question(run: Path, tmp_path: Path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evaluation", "checkpoints"))
    asked = ["evaluate", "--run", copy, "--split", "dev", "--device", "cpu", "--decode", "beam", "--name", "x"]
    assert main(list(map(str, asked))) == 0
    path = copy / "decoding" / "weights.json"
    note = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(note | {"delay": note["delay"] + 1}))
    assert "was begun with another decoding" in fails(capsys, *asked)
    path.write_text(json.dumps(note | {"model": {"weights": "0" * 16, "step": 1}}))
    assert "tuned for other weights, those of step 1" in fails(capsys, *asked)
    shutil.rmtree(copy / "decoding")
    assert "run python -m jobs tune" in fails(capsys, *asked)


# --- what the figures are


def test_intervals_and_words_unseen_in_training(run: Path, dataset, capsys):
    assert main(["evaluate", "--run", str(run), "--split", "dev", "--device", "cpu", "--name", "figures"]) == 0
    folder = run / "evaluation" / "figures"
    metrics, table = metrics_of(folder), lines_of(folder)
    low, high = metrics["interval"]["cer"]
    assert low <= metrics["cer"] <= high
    assert metrics["interval"]["groups"] == len(set(table["certificate"].to_pylist())) > 1
    train = run / "evaluation" / "train"
    assert evaluate(run, "train") == 0
    assert metrics_of(train)["unseen"] == {"words": 0, "missed": 0, "rate": None}  # it has seen them all
    known = words_in(lines_of(train)["reference"].to_pylist())
    pairs = zip(table["reference"].to_pylist(), table["hypothesis"].to_pylist(), strict=True)
    counts = [unseen(reference, hypothesis, known) for reference, hypothesis in pairs]
    assert metrics["unseen"]["words"] == sum(words for words, _ in counts) > 0  # each certificate has its number
    assert metrics["unseen"]["missed"] == sum(missed for _, missed in counts)
    assert "words unseen in training" in capsys.readouterr().out
    assert rates(dict.fromkeys(("edits", "characters", "words", "word_edits", "exact"), 0), 2)["cer"] is None  # blanks


def test_words_are_left_out_where_the_training_data_have_gone(run: Path, dataset, tmp_path: Path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evaluation", "checkpoints"))
    config = (copy / "config.yaml").read_text(encoding="utf-8")
    (copy / "config.yaml").write_text(config.replace(str(dataset.folder), str(tmp_path / "gone")))
    asked = ["evaluate", str(dataset.folder), "--run", str(copy), "--split", "dev", "--device", "cpu", "--name", "x"]
    assert main(asked) == 0
    assert metrics_of(copy / "evaluation" / "x")["unseen"] is None
    assert "no rate of words unseen in training (" in capsys.readouterr().err


def test_against_another_evaluation(run: Path, dataset, capsys):
    for name in ("one", "two"):
        assert evaluate(run, name) == 0
    one, two = run / "evaluation" / "one", run / "evaluation" / "two"
    path = sorted((two / "parts").iterdir())[0]
    table = pq.read_table(path)
    better = pc.subtract(table["edits"], 1)
    pq.write_table(table.set_column(table.column_names.index("edits"), "edits", better), path)
    found = paired(one, two)
    lines, characters = len(lines_of(one)), pc.sum(lines_of(one)["characters"]).as_py()
    assert found["difference"] == pytest.approx(len(table) / characters) and found["lines"] == lines
    assert found["low"] <= found["difference"] <= found["high"] and found["groups"] > 1
    assert 0 < found["p"] <= 1 and set(found["by"]) == {"field"}
    assert sum(row["lines"] for row in found["by"]["field"].values()) == lines
    assert all(row["q"] >= row["p"] for row in found["by"]["field"].values())
    assert evaluate(run, "one", "--against", two) == 0
    assert (
        f"points ({100 * found['low']:+.2f} to {100 * found['high']:+.2f}), p {found['p']:.2g}, {lines}"
        in capsys.readouterr().out
    )
    stored = json.loads((one / "against-ctc-two.json").read_text(encoding="utf-8"))
    assert stored == found | {"against": str(two)}
    assert ": too few" in stored["warning"]


def test_what_cannot_be_compared(run: Path, tmp_path: Path, capsys):
    for name, options in (("one", ()), ("ones", ("--where", "field=Ia")), ("others", ("--where", "field=Ib"))):
        assert evaluate(run, name, *options) == 0
    one, ones, others = (run / "evaluation" / name for name in ("one", "ones", "others"))
    same = paired(one, ones)
    assert same["difference"] == same["low"] == same["high"] == 0 and same["lines"] == len(lines_of(ones))
    alone = len(lines_of(one)) - len(lines_of(ones))
    assert same["warning"].startswith(f"{alone} lines are in one of the two evaluations alone, and are left out; ")
    assert "alone" not in paired(one, one)["warning"]
    with pytest.raises(ValueError, match="have no line in common"):
        paired(ones, others)
    shutil.copytree(one, tmp_path / "changed")
    path = sorted((tmp_path / "changed" / "parts").iterdir())[0]
    table = pq.read_table(path)
    empty = pa.array([""] * len(table))
    pq.write_table(table.set_column(table.column_names.index("reference"), "reference", empty), path)
    with pytest.raises(ValueError, match=f"different references of {len(table)} lines"):
        paired(one, tmp_path / "changed")
    asked = ["evaluate", "--run", run, "--split", "train", "--device", "cpu", "--name", "one", "--against"]
    assert "no evaluation that is whole" in fails(capsys, *asked, tmp_path / "none")
    said = fails(capsys, "evaluate", "--run", run, "--where", "level=part", "--device", "cpu")
    assert "evaluate reads line, field, blank" in said


# --- fields of several lines


@pytest.fixture(scope="module")
def of_fields(trained, tmp_path_factory) -> tuple[Path, Path]:
    """A run whose model reads, and fields of certificates, some of several lines with one text."""
    folder = tmp_path_factory.mktemp("fields")
    shutil.copytree(trained, folder / "run")
    shutil.rmtree(folder / "run" / "model")
    shutil.copytree(PRETRAINED / "model", folder / "run" / "model")
    source = simulate(folder / "source", 4, 5, severity="light")
    asked = ["preprocess", str(source), "--unit", "field", "--out", str(folder / "data"), "--shares", "train=1"]
    assert main(asked) == 0
    return folder / "run", folder / "data"


def parts_of(run: Path, name: str) -> list[dict]:
    """Their rows, keys in order."""
    tables = [pq.read_table(path) for path in sorted((run / "evaluation" / name / "parts").iterdir())]
    return pa.concat_tables(tables, promote_options="default").sort_by("key").to_pylist()


def test_a_field_of_several_lines_is_read_as_transcribe_reads_it(of_fields, tmp_path: Path, capsys):
    run, data = of_fields
    assert evaluate(run, "fields", data, "--amp", "off") == 0
    rows = parts_of(run, "fields")
    several = [row for row in rows if row["level"] == "field"]
    assert several and {row["level"] for row in rows} == {"field", "line"}
    out = tmp_path / "read.parquet"
    asked = ["transcribe", str(data), "--model", str(run), "--out", str(out), "--device", "cpu", "--workers", "1"]
    assert main([*asked, "--amp", "off"]) == 0
    read = {row["certificate"] + row["field"]: row["text"] for row in pq.read_table(out).to_pylist()}
    assert {row["certificate"] + row["field"]: row["hypothesis"] for row in rows}.items() <= read.items()
    assert all(" " in row["hypothesis"] for row in several)
    for row in several:
        assert len(row["line_words"]) == len(row["line_signal_frames"]) > 1
        assert sum(row["line_words"]) == len(row["hypothesis"].split()) == len(row["word_right"])
        assert row["signal_frames"] in row["line_signal_frames"]
    assert all(row["line_words"] is None for row in rows if row["level"] == "line")
    metrics = json.loads((run / "evaluation" / "fields" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["fields"] == metrics["lines"] == len(rows) and metrics["levels"] == ["field", "line"]
    assert metrics["by"]["level"]["field"]["lines"] == len(several)
    assert not [row for row in rows if row["reference"] in capsys.readouterr().err]


@pytest.mark.parametrize("levels", [["line"], ["field"], ["blank", "field"]])
def test_the_levels_that_are_asked_for(of_fields, levels: list[str]):
    run, data = of_fields
    options = [option for level in levels for option in ("--where", f"level={level}")]
    assert evaluate(run, "-".join(levels), data, *options) == 0
    rows = parts_of(run, "-".join(levels))
    assert {row["level"] for row in rows} == set(levels)
    if "blank" in levels:
        metrics = json.loads((run / "evaluation" / "blank-field" / "metrics.json").read_text(encoding="utf-8"))
        assert metrics["blank"]["lines"] == sum(row["level"] == "blank" for row in rows)


def test_what_to_compare_with_is_looked_at_first(trained, dataset, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run", symlinks=True)
    evaluate = ["evaluate", str(dataset.folder), "--run", str(run), "--device", "cpu"]
    assert main([*evaluate, "--split", "dev", "--name", "one"]) == 0
    capsys.readouterr()
    for wrong in (run, run / "evaluation" / "two"):
        assert main([*evaluate, "--split", "val", "--name", "three", "--against", str(wrong)]) == 1
        said = capsys.readouterr().err
        assert "no evaluation that is whole" in said and f"there are: {run / 'evaluation' / 'one'}" in said
    assert not (run / "evaluation" / "three").exists()
    note = run / "evaluation" / "one" / "evaluation.json"
    note.write_text(note.read_text().replace('"greedy"', '"beam"'))
    assert main([*evaluate, "--split", "dev", "--against", str(run / "evaluation" / "one")]) == 1
    assert "decoding" in capsys.readouterr().err  # it takes beam, which this run was not tuned for
