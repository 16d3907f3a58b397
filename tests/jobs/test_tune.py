"""Tuning: what the language model is of, what is written, and what is refused."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from htr.decoding import tuning
from htr.decoding.beam import BeamHypothesis, ScoreWeights
from htr.decoding.language import load_language_models
from htr.decoding.tuning import allowed, frequent_words, judge, letters, tune_rescore_weight, with_blanks
from htr.io.sources import read_source
from htr.reader import Reader, weights_of
from jobs import tune as job
from jobs.cli.command_line import main, parse
from jobs.evaluation.texts import config_of, texts_of, trained_on
from shards.index import Index
from shards.loader import Samples
from shards.plan import read_note


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    return tmp_path / "run"


def tune(run: Path, *options: object) -> dict:
    """-> weights.json."""
    words = ["tune", "--run", run, "--device", "cpu", "--order", 4, *options]
    run_verb, config = parse([str(word) for word in words])
    assert run_verb(config) == 0
    return json.loads((run / "decoding" / "weights.json").read_text(encoding="utf-8"))


def test_a_run_is_tuned_and_read_with(run: Path, dataset, capsys):
    note = tune(run, "--split", "train", "--most", 8)
    assert note["model"] == {"weights": weights_of(run / "model"), "step": 3}
    assert sorted(path.name for path in (run / "decoding").iterdir()) == sorted([*note["files"], "weights.json"])
    about = note["tuned"]
    assert about["lines"] == 8 and about["dataset"] == dataset.fingerprint and about["texts"] == dataset.lines["train"]
    assert about["beam"]["cer"] <= about["beam_without_language"]["cer"] and about["beam"]["unseen_words"] == 0
    reader = Reader.load(run / "model", decoding=run / "decoding")
    assert reader.emission_delay == note["delay"] and reader.decoder.searches.weights == ScoreWeights(**note["weights"])
    said = capsys.readouterr()
    assert f"CER greedy {100 * about['greedy']['cer']:.2f} %, tuned {100 * about['beam']['cer']:.2f} %" in said.out
    texts = texts_of(dataset, dataset.samples("train"))
    assert not [text for text in texts if text in said.out + said.err]
    before = {path.name: path.read_bytes() for path in (run / "decoding").iterdir()}
    tune(run, "--split", "train", "--most", 8)
    assert {path.name: path.read_bytes() for path in (run / "decoding").iterdir()} == before
    tune(run, "--split", "train", "--most", 8, "--least", 3)
    assert (run / "decoding" / "language.safetensors").stat().st_size < len(before["language.safetensors"])


def test_more_texts_and_words(run: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "more.txt").write_text("\ufeffzona ophtalmique\n\n  zona  étendu \n")
    (tmp_path / "words.txt").write_text("Xérostomie\nsyndrome de Zieve\n")
    monkeypatch.setattr(job, "MIN_FIELD_TEXTS", 5)
    note = tune(run, "--most", 4, "--text", tmp_path / "more.txt", "--lexicon", tmp_path / "words.txt")
    words = set((run / "decoding" / "lexicon.txt").read_text(encoding="utf-8").split())
    assert {"zona", "xérostomie", "zieve", "choc"} <= words and "ophtalmique" not in words  # one text alone has it
    models = load_language_models(run / "decoding" / "language.safetensors")
    assert note["tuned"]["fields"] == ["II", "Ia", "Ib"] == sorted(set(models) - {""})
    assert models[""].score("zona étendu") > models[""].score("étendu zona")
    assert models[""].score("") > models[""].score("z")  # a line may be blank


def test_new_weights_take_another_decoding_s_texts_and_words(run: Path, tmp_path: Path, capsys):
    (tmp_path / "words.txt").write_text("xérostomie\n")
    tune(run, "--most", 4, "--lexicon", tmp_path / "words.txt")
    other = shutil.copytree(run / "decoding", tmp_path / "other")
    shutil.rmtree(run / "decoding")
    note = tune(run, "--most", 4, "--language", other, "--order", 2)
    before = json.loads((other / "weights.json").read_text(encoding="utf-8"))
    assert note["files"] == before["files"] and note["weights"] == before["weights"]
    assert {name: note["tuned"][name] for name in ("order", "least", "texts")} == {
        name: before["tuned"][name] for name in ("order", "least", "texts")
    }
    words = ["tune", "--run", str(run), "--device", "cpu", "--language"]
    assert main([*words, str(other), "--text", str(tmp_path / "words.txt")]) == 1
    assert "leave out --text and --lexicon" in capsys.readouterr().err
    (other / "lexicon.txt").write_text("other")
    assert main([*words, str(other)]) == 1
    assert "lexicon.txt is not the one that weights.json was written for" in capsys.readouterr().err


def test_weights_of_another_decoding_are_kept(run: Path, tmp_path: Path, monkeypatch):
    tune(run, "--most", 4)
    other = shutil.copytree(run / "decoding", tmp_path / "other")
    path = other / "weights.json"
    note = json.loads(path.read_text(encoding="utf-8"))
    weights = {"alpha": 0.25, "beta": 0.75, "gamma": 0.125, "delta": 0.0}  # as older folders name them
    path.write_text(json.dumps(note | {"weights": weights, "model": {"weights": "0" * 16, "step": 1}}))
    monkeypatch.setattr(tuning, "tune", lambda *args: pytest.fail("a weight was tuned"))
    made = tune(run, "--most", 4, "--language", other, "--keep-weights")
    assert made["weights"] == asdict(ScoreWeights(0.25, 0.75, 0.125)) and made["tuned"]["kept_weights"]
    assert made["model"] == note["model"] and made["files"] == note["files"] and not note["tuned"]["kept_weights"]
    assert set(made["tuned"]["beam"]) == set(note["tuned"]["beam"])
    Reader.load(run / "model", decoding=run / "decoding")
    with pytest.raises(ValueError, match=r"--keep-weights .* name its folder with --language"):
        tune(run, "--keep-weights")


@pytest.fixture
def without_fields(source: Path, tmp_path: Path, build, write_table) -> Index:
    """The same lines, of no known field."""
    folder = shutil.copytree(source.parent, tmp_path / "lines")
    rows = read_source(source)[0].select(["image", "text", "certificate"]).to_pylist()
    return build(tmp_path / "without", write_table(folder / "without.csv", rows))


def test_lines_of_no_known_field_have_the_general_model_alone(
    run: Path, dataset: Index, without_fields: Index, monkeypatch
):
    for name in ("config.yaml", "data.json"):
        content = (run / name).read_text(encoding="utf-8").replace(str(dataset.folder), str(without_fields.folder))
        plans = (read_note(index.folder)["fingerprint"] for index in (dataset, without_fields))
        (run / name).write_text(content.replace(*plans))
    monkeypatch.setattr(job, "MIN_FIELD_TEXTS", 5)
    assert tune(run, "--most", 4)["tuned"]["fields"] == []


def test_a_language_model_that_does_harm_is_given_no_weight(run: Path, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "tune", lambda *args: (ScoreWeights(0.9, 0.9, 0.9), 99.0))
    note = tune(run, "--most", 4)
    assert set(note["weights"].values()) == {0.0} and note["tuned"]["beam"] == note["tuned"]["beam_without_language"]
    assert "makes it no better" in capsys.readouterr().err


def test_the_weight_of_a_models_own_decoder(dataset, tmp_path: Path):
    folder = tmp_path / "attention"
    options = ["--model", "attention", "--size", "tiny", "--steps", "2", "--batch", "8", "--device", "cpu"]
    assert main(["train", str(dataset.folder), "--run", str(folder), *options]) == 0
    note = tune(folder, "--most", 4)
    assert note["weights"]["rescore_weight"] >= 0
    n_best = [[BeamHypothesis([1], text, score, score, 0.0, 0) for text, score in (("a", -1.0), ("b", -1.5))]] * 2
    scores = [[-1.0, -2.0], [-4.0, -1.0]]
    assert tune_rescore_weight(n_best, scores, ["a", "b"]) == (0.2, 0.0)  # the least that rights the second line
    assert tune_rescore_weight(n_best, scores, ["a", "a"]) == (0.0, 0.0)


def test_lines_without_a_text_are_nothing_to_tune_on(run: Path, monkeypatch):
    """As those of --where level=blank: their CER is no number, and no weight is better than another."""
    monkeypatch.setattr(job, "read_dev", lambda *_: [job.Line("", "", "", np.zeros((4, 9), np.float16), None)] * 2)
    with pytest.raises(ValueError, match="none of the 2 lines to tune on has a text"):
        tune(run)


def test_what_cannot_be_tuned(run: Path, dataset, tmp_path: Path):
    for options, match in (
        (("--text", tmp_path / "none.txt"), "none.txt: no such file"),
        (("--where", "colour=red"), "no column colour"),
        (("--order", 9), "order 9"),
        ((tmp_path,), "no data set here"),
    ):
        with pytest.raises(ValueError, match=match):
            tune(run, *options)
    (tmp_path / "latin.txt").write_bytes("décès".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.txt: not UTF-8, at byte 1"):
        tune(run, "--text", tmp_path / "latin.txt")
    with pytest.raises(ValueError, match="not a run folder"):
        tune(tmp_path / "nothing")
    assert not (run / "decoding").exists()


# --- the pieces


def test_texts_that_share_eight_words_with_held_out_ones_are_left_out():
    shared = "un deux trois quatre cinq six sept huit"
    rows = [("Ia", f"zéro {shared}"), ("Ib", "un deux"), ("Ib", "un deux"), ("", shared.upper())]
    assert allowed(rows, [f"{shared} neuf"]) == [("Ib", "un deux")] * 2 and allowed(rows, []) == rows


def test_text_segmentation_of_a_decoding():
    rows = [("Ia", "x")] * 11 + [("II", "y")]
    assert with_blanks(rows) == [*rows, ("Ia", ""), ("Ia", ""), ("II", "")]
    assert letters("L'A.V.C. du 3e jour, E\u0301tat") == ["l", "a", "v", "c", "du", "e", "jour", "état"]
    assert frequent_words(["choc à choc", "Choc septique", "septique", "à pied"]) == {"choc", "septique"}
    found = judge(["choc septique", "AVC"], ["choc septiqve", "AVC"], {"choc"})
    assert found == {"cer": 1 / 16, "wer": 1 / 3, "unseen_words": 2, "unseen_misread": 0.5}
    assert judge(["choc"], ["chic"], {"choc"})["unseen_misread"] is None


def test_texts_are_those_of_the_shards(run: Path, dataset, tmp_path: Path):
    [(index, table)] = trained_on(config_of(run))
    samples = Samples(index.folder, table)
    texts = texts_of(index, table)
    assert texts == [samples.read(row)[1] for row in range(len(samples))] and all(texts)
    assert texts_of(index, table, "field") == table["field"].to_pylist()
    shutil.copytree(index.folder, tmp_path / "cut")
    for path in (tmp_path / "cut").glob("train-*.tar"):
        path.write_bytes(path.read_bytes()[:600])
    config = config_of(run) | {"folder": str(tmp_path / "cut")}
    with pytest.raises(ValueError, match=r"cut short or changed .* sample-") as error:
        texts_of(*trained_on(config)[0])
    assert "c.1" not in str(error.value)
