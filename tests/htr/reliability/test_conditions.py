"""The same numbers in production as in calibration, and production under other conditions refused."""

import json
import shutil
from pathlib import Path

import evaluated
import pyarrow.parquet as pq
import pytest

import htr.reliability.conditions
from htr.code_digest import cutting_code
from htr.forms.template import digest_of_forms
from htr.reliability.conditions import OF_FORMS
from htr.reliability.promise import files_of
from htr.reliability.units import codes, fit_scores
from jobs.cli.command_line import main
from jobs.evaluation.results import Evaluation


def read_both(trained: Path, dataset, folder: Path, amp: str) -> tuple[dict, dict]:
    """-> by key text and signals, as evaluate has them and as transcribe has them."""
    run = folder / "run"
    if not run.exists():
        run.mkdir()
        (run / "model").symlink_to(trained / "model")
        for name in ("config.yaml", "data.json"):
            (run / name).symlink_to(trained / name)
    asked = [str(dataset.folder), "--device", "cpu", "--amp", amp]
    name, out = f"x-{amp}", folder / f"{amp}.parquet"
    assert main(["evaluate", *asked, "--run", str(run), "--split", "train", "--name", name]) == 0
    assert main(["transcribe", *asked, "--model", str(run), "--split", "train", "--out", str(out)]) == 0
    table = Evaluation.read(run / "evaluation" / name).table
    signals = [column for column in table.column_names if column.startswith("signal_")]
    one = {row["key"]: (row["hypothesis"], *(row[s] for s in signals)) for row in table.to_pylist()}
    parts = [pq.read_table(path) for path in (folder / f"{amp}.parquet.parts").glob("*.parquet")]
    two = {row["key"]: (row["text"], *(row[s][0] for s in signals)) for part in parts for row in part.to_pylist()}
    return one, two


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_transcribe_reads_as_evaluate_does(trained: Path, dataset, tmp_path: Path, amp: str):
    """Batches of other lines are padded otherwise, and their sums rounded otherwise: in bf16 to some 3 digits."""
    one, two = read_both(trained, dataset, tmp_path, amp)
    assert one.keys() == two.keys() and len(one) > 20
    apart = [abs(a - b) / max(abs(a), 1) for key in one for a, b in zip(one[key][1:], two[key][1:], strict=True)]
    assert max(apart) < (1e-4 if amp == "off" else 0.05)
    same = sum(one[key][0] == two[key][0] for key in one)
    assert same >= 0.95 * len(one)


@pytest.fixture(scope="module")
def promised(untrained, tmp_path_factory) -> Path:
    """A folder of images beside a promise for this very reader, greedy, in float32, batches of 16, on a CPU."""
    folder = tmp_path_factory.mktemp("promised")
    table = evaluated.lines(0, 60).drop_columns(["signal_top_share"])  # which greedy readings do not have
    columns = [table[name].to_numpy().astype(float) for name in ("exact", "edits", "characters")]
    scores, _ = fit_scores(table, *columns, codes(table, "certificate"))
    made = htr.reliability.conditions.conditions(
        htr.reader.digest_of_model(untrained / "model"), "greedy", None, "off", 16, "cpu"
    )
    note = {"conditions": made, "unit": "line", "loss": "wrong", "alpha": 0.1, "delta": 0.05, "threshold": 2.0}
    for name, content in files_of(scores, {}, note | {"promise": "so much"}, {}).items():
        (folder / name).write_bytes(content)
    return folder


def transcribe(promised: Path, untrained: Path, images: Path, out: Path, *options: object) -> int:
    asked = ["transcribe", images, "--model", untrained, "--out", out, "--promise", promised, "--device", "cpu"]
    return main([*map(str, asked), *map(str, options)])


@pytest.fixture
def images(tmp_path: Path, draw) -> Path:
    import cv2

    (tmp_path / "lines").mkdir()
    cv2.imwrite(str(tmp_path / "lines" / "a.png"), draw("abc", 40))
    return tmp_path / "lines"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--amp", "bf16"), "amp bf16 in place of off"),
        (("--amp", "off", "--batch", 8), "batch 8 in place of 16"),
    ],
)
def test_an_option_that_changes_readings_is_refused(promised, untrained, images, tmp_path, capsys, options, said):
    assert transcribe(promised, untrained, images, tmp_path / "o.csv", *options) == 1
    assert f"the promise was made for other readings ({said})" in capsys.readouterr().err
    assert not (tmp_path / "o.csv.parts").exists()  # before anything is read


@pytest.mark.parametrize("name", ["reading_code", "PASSES"])
def test_code_or_passes_that_change_readings_are_refused(
    promised, untrained, images, tmp_path, capsys, monkeypatch, name
):
    real = htr.reliability.conditions.conditions

    def changed(*about):
        if name == "PASSES":
            return real(*about, passes=2)
        monkeypatch.setattr(htr.reliability.conditions, "reading_code", lambda: "f" * 16)
        return real(*about)

    monkeypatch.setattr(htr.reliability.conditions, "conditions", changed)
    assert transcribe(promised, untrained, images, tmp_path / "o.csv", "--amp", "off") == 1
    said = {"PASSES": "(passes 2 in place of 1)", "reading_code": f"(code {'f' * 16} in place of"}[name]
    assert said in capsys.readouterr().err


def test_another_model_and_device_are_refused(promised, untrained, images, tmp_path, capsys):
    note, kept = promised / "promise.json", (promised / "promise.json").read_text(encoding="utf-8")
    for name, value in (("weights", "0" * 16), ("decode", "beam"), ("decoding", "1" * 16), ("device", "cuda")):
        content = json.loads(kept)
        content["conditions"][name] = value
        note.write_text(json.dumps(content))
        try:
            assert transcribe(promised, untrained, images, tmp_path / "o.csv", "--amp", "off") == 1
        finally:
            note.write_text(kept)
        assert f"in place of {value})" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["alphabet", "encoder", "delay"])
def test_a_model_that_reads_otherwise_with_the_same_weights_is_refused(
    promised, untrained, images, tmp_path, capsys, part
):
    """An alphabet in which one letter has become another reads other texts: the weights alone do not say so."""
    shutil.copytree(untrained / "model", tmp_path / "other" / "model")
    path = tmp_path / "other" / "model" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    last = config["alphabet"][-1]
    config["alphabet"] = config["alphabet"][:-1] + chr(ord(last) + 1) if part == "alphabet" else config["alphabet"]
    changed = {"alphabet": config["alphabet"], "encoder": config["encoder"] | {"dropout": 0.123}, "delay": 3.5}
    path.write_text(json.dumps(config | {part: changed[part]}), encoding="utf-8")
    assert transcribe(promised, tmp_path / "other", images, tmp_path / "o.csv", "--amp", "off") == 1
    assert "the promise was made for other readings (weights " in capsys.readouterr().err


@pytest.mark.parametrize("name", OF_FORMS)
def test_fields_cut_in_another_way_are_refused(promised, untrained, images, tmp_path, capsys, name):
    """By another edition of the template, by other code, or with rulings removed: of a data set made of scans."""
    note, kept = promised / "promise.json", (promised / "promise.json").read_text(encoding="utf-8")
    content = json.loads(kept)
    content["conditions"] |= {"forms": digest_of_forms(), "rulings": "keep", "cutting": cutting_code()} | {name: "x"}
    note.write_text(json.dumps(content))
    try:
        asked = (promised, untrained, images)
        assert transcribe(*asked, tmp_path / "f.csv", "--amp", "off", "--unit", "field") == 1
        assert f"other readings ({name} " in capsys.readouterr().err
        assert transcribe(*asked, tmp_path / "l.csv", "--amp", "off") == 0  # lines come as they were cut
    finally:
        note.write_text(kept)


def test_an_evaluation_says_how_its_fields_were_cut(tmp_path: Path, trained: Path):
    """The same names as transcribe's, of a data set made of scans."""
    from htr.synth.simulate import simulate

    table = simulate(tmp_path / "scans", 3, 3, severity="light")
    made = ["preprocess", table, "--unit", "field", "--out", tmp_path / "data", "--rulings", "remove", "--shares"]
    assert main([*map(str, made), "val=1"]) == 0
    run = shutil.copytree(trained, tmp_path / "run", symlinks=True)  # other tests have that one, too
    asked = ["evaluate", tmp_path / "data", "--run", run, "--split", "val", "--device", "cpu", "--name", "cut"]
    assert main(list(map(str, asked))) == 0
    found = Evaluation.read(run / "evaluation" / "cut").conditions
    assert [found[name] for name in OF_FORMS] == [digest_of_forms(), "remove", cutting_code()]


def test_the_same_conditions_are_accepted(promised, untrained, images, tmp_path):
    assert transcribe(promised, untrained, images, tmp_path / "o.csv", "--amp", "off") == 0
    assert len((tmp_path / "o.csv").read_text(encoding="utf-8").splitlines()) == 2


def test_a_promise_of_the_old_test_is_refused_with_its_reason(promised, untrained, images, tmp_path, capsys):
    old = tmp_path / "old"
    old.mkdir()
    for file in promised.iterdir():
        content = json.loads(file.read_text(encoding="utf-8"))
        (old / file.name).write_text(json.dumps(content | {"format": 1}))
    assert transcribe(old, untrained, images, tmp_path / "o.csv", "--amp", "off") == 1
    assert "whose test did not hold: the bound of a group's loss was estimated): calibrate again" in (
        capsys.readouterr().err
    )


def test_evaluations_of_an_older_version_promise_nothing(tmp_path: Path, capsys):
    sizes = dict.fromkeys(("dev", "calibration", "test"), 40)
    run = evaluated.run(tmp_path / "run", sizes)
    for split in sizes:
        path = run / "evaluation" / split / "evaluation.json"
        asked = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({n: v for n, v in asked.items() if n not in ("device", "code", "passes")}))
    parts = ["--fit", "dev", "--choose", "calibration", "--judge", "test"]
    assert main(["calibrate", "--run", str(run), *parts, "--alpha", "0.2", "--name", "x"]) == 1
    assert "does not say under what device, passes, code it was read" in capsys.readouterr().err
    assert not (run / "reliability" / "x").exists()
