"""Values of settings: a file means what is written there; an empty word and null are refused."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cli.command_line import VERBS, parse
from jobs.cli.config_files import typed
from jobs.cli.settings import Leaf, leaves


def settings_of(verb: str, path: Path, text: str):
    path.write_text(text, encoding="utf-8")
    return parse([verb, "--config", str(path)])[1]


def leaves_of_verbs() -> Iterator[tuple[str, Leaf]]:
    for verb in VERBS:
        module = importlib.import_module(f"jobs.{verb}")
        found = [module.Settings] if hasattr(module, "Settings") else [cls for cls, _ in module.ACTIONS.values()]
        yield from ((verb, leaf) for cls in found for leaf in leaves(cls))


def test_values_of_a_file_mean_what_is_written_there(tmp_path: Path):
    """The types of YAML 1.1 would make 28800 of the time and eight of the seed, and refuse the names."""
    text = "time: 8:00:00\nseed: 010\ndata: {text: 007, where: [2020]}\ngpus: [4, 1, 1]\n"
    scaled = settings_of("scale", tmp_path / "a.yaml", text)
    assert (scaled.on.time, scaled.train.seed, scaled.train.data.text) == ("8:00:00", 10, "007")
    assert scaled.gpus == [1, 4] and scaled.train.data.where == ["2020"]
    named = settings_of("train", tmp_path / "b.yaml", "run: 2024\ndata: {text: 'null'}\n")
    assert named.run == Path("2024") and named.data.text == "null"
    with pytest.raises(ValueError, match=r"a.yaml: gpus: 'x': write numbers of ranks as 1,2,4,8"):
        settings_of("scale", tmp_path / "a.yaml", "gpus: x")


def test_a_folder_and_a_pipe_as_a_file_of_settings(tmp_path: Path, monkeypatch):
    with pytest.raises(ValueError, match="a folder; give a file"):
        parse(["train", "--config", str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ctc").mkdir()  # a run's folder, by the name of a recipe
    assert parse(["train", "--config", "ctc"])[1].schedule.steps == 20_000
    reading, writing = os.pipe()  # as of --config <(sed …)
    os.write(writing, b"seed: 7")
    os.close(writing)
    assert parse(["train", "--config", f"/dev/fd/{reading}"])[1].seed == 7
    os.close(reading)


def test_nothing_is_refused_where_a_value_is_needed():
    for verb, leaf in leaves_of_verbs():
        if leaf.may_be_none:
            assert typed(leaf, None, "here") is None, (verb, leaf.key)
        else:
            with pytest.raises(ValueError, match=r"^here: "):
                typed(leaf, None, "here")


def test_an_empty_word_is_no_path(capsys):
    """As of a variable of the shell that is not set: it would be the folder that one is in."""
    for argv in (["train", "--run", ""], ["train", ""], ["train", "--data.dataset", ""], ["stats", ""]):
        with pytest.raises(SystemExit) as end:
            parse(argv)
        assert end.value.code == 2 and "an empty path" in capsys.readouterr().err


def test_a_name_that_is_not_utf_8_is_refused_at_once(capsys):
    """It was a UnicodeEncodeError when it came to stand in a file."""
    with pytest.raises(SystemExit):
        parse(["train", "--run", os.fsdecode(b"runs/caf\xe9")])
    assert "the name is not UTF-8" in capsys.readouterr().err
    assert parse(["train", "--run", "runs/café"])[1].run == Path("runs/café")
