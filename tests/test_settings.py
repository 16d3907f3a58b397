"""Settings from options, dotted options and files: one meaning, whatever the spelling, and one line where wrong."""

import errno
import importlib
import json
import os
import subprocess
import sys
from dataclasses import MISSING
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.cli import command_line
from jobs.cli.command_line import STAGES, VERBS, main, parse
from jobs.cli.config_files import RECIPES, read_settings, to_yaml
from jobs.cli.options import argv_of
from jobs.cli.settings import build, leaves
from jobs.training.config import TrainConfig, check_resumable, read_run
from shards.open_shards import OpenShards

CHECKOUT = Path(__file__).parent.parent
FEW = ["--config", "smoke-test", "--steps", "8", "--log-every", "1", "--amp", "off", "--device", "cpu"]


def train(*argv: object) -> TrainConfig:
    return parse(["train", *map(str, argv)])[1]


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# --- spelling


def test_every_setting_has_an_option_and_a_dotted_name():
    values = {"float": "0.25", "int": "3", "str": "a", "Path": "a/b"}
    for leaf in leaves(TrainConfig):
        if leaf.kind is bool:
            spellings = [[f"--{leaf.flag}"], [f"--{leaf.key}"]]
        else:
            choices = getattr(leaf.kind, "__args__", ())
            value = choices[-1] if choices else values[leaf.kind.__name__]
            spellings = [[value]] if leaf.meta.positional else [[f"--{leaf.flag}", value]]
            spellings.append([f"--{leaf.key}", value])
        found = [leaf.of(train(*words)) for words in spellings if words[0] != "--run" or "." not in leaf.key]
        assert found[0] == found[1] != leaf.default, leaf.key


def test_options_win_over_files_and_later_files_over_earlier(tmp_path: Path):
    one = write(tmp_path / "one.yaml", "optim: {lr: 1e-4, clip: 2}\nschedule: {steps: 7}\n")
    two = write(tmp_path / "two.yaml", "optim:\n  lr: 3e-4\n")
    config = train("--optim.clip", "5", "--config", one, "--config", two)
    assert (config.optim.lr, config.optim.clip, config.schedule.steps) == (3e-4, 5.0, 7)
    assert train("--config", one, "--lr", "1").optim.lr == 1.0


def test_a_switch_of_a_file_can_be_taken_back(tmp_path: Path):
    on = write(tmp_path / "on.yaml", "runtime: {deterministic: true, amp: off}\n")
    config = train("--config", on)
    assert config.runtime.deterministic and config.runtime.amp == "off"
    assert not train("--config", on, "--no-deterministic").runtime.deterministic
    assert not train("--config", on, "--no-runtime.deterministic").runtime.deterministic


def test_a_setting_that_was_renamed_is_still_read(tmp_path: Path):
    """The config.yaml of a run of an older version, and its option."""
    assert train("--config", write(tmp_path / "old.yaml", "runtime: {threads: 3}\n")).runtime.workers == 3
    assert train("--threads", "3").runtime.workers == 3
    assert parse(["scale", "--threads", "3"])[1].train.runtime.workers == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {lrr: 1}", "no setting optim.lrr, did you mean optim.lr?"),
        ("lr: 1", "no setting lr, did you mean optim.lr?"),
        ("shedule: {steps: 1}", "no setting shedule, did you mean"),
        ("optim: {lr: fast}", "optim.lr: 'fast' is not a number"),
        ("data: {batch: 2.5}", "data.batch: 2.5 is not a whole number"),
        ("data: {where: a=1}", "data.where: 'a=1' is not a list, each a text"),
        ("model: {size: huge}", "model.size: 'huge' is not one of tiny, small, mid, base, large"),
        ("model: {freeze: 1}", "model.freeze: 1 is not true or false"),
        ("runtime: {workers: true}", "runtime.workers: True is not a whole number"),
        ("model: ctc", "model is a group of settings"),
        ("- 1", "settings are written NAME: VALUE"),
        ("seed: 1\nseed: 2", "the key seed is given twice"),
        ("optim.lr: 1\noptim: {lr: 2}", "optim.lr is given twice, in two spellings"),
        ("runtime: {threads: 2, workers: 3}", "runtime.workers is given twice, in two spellings"),
        ("optim: {lr: }", "optim.lr: null is not a number"),
        ("data: {mix: null}", "data.mix: null is not a list, each a text"),
        ("run: ''", "run: '' is not a path"),
        ("schedule: {steps: 1:30}", "schedule.steps: '1:30' is not a whole number"),
        ("runtime: {micro_batch: some}", "runtime.micro_batch: some is no number of lines"),
        ("a: [", "line"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, capsys, text: str, message: str):
    path = write(tmp_path / "experiment.yaml", text)
    assert main(["train", "--config", str(path)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and str(path) in line and message in line


def test_a_wrong_option_names_the_nearest(capsys):
    for wrong, right in (("--optim.lrr", "--optim.lr"), ("--warm-up", "--warmup"), ("--confg", "--config")):
        with pytest.raises(SystemExit) as end:
            parse(["train", wrong, "3"])
        assert end.value.code == 2
        [line] = capsys.readouterr().err.splitlines()
        assert f"unrecognized arguments: {wrong}" in line and f"did you mean {right}?" in line
    assert main(["train", "--config", "smoke"]) == 1
    assert "did you mean smoke-test?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian", "ds"], "did you mean train?"),
        (["train", "ds", "--model", "atention"], "did you mean attention?"),
        (["train", "ds", "--steps", "many"], "--steps: invalid int value: 'many'"),
        (["train", "ds", "--optim.lr"], "--optim.lr: expected one argument"),
        (["template", "chekc"], "did you mean check?"),
        (["template", "new", "a.png", "--outt", "b"], "did you mean --out?"),
        (["submit", "trin", "ds"], "did you mean train?"),
        (["preprocess"], "the following arguments are required: source"),
    ],
)
def test_a_wrong_command_line_is_one_line(capsys, argv: list[str], said: str):
    with pytest.raises(SystemExit) as end:
        parse(argv)
    [line] = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and said in line and "--help)" in line


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["train", "--log-every", "0"], "--log-every 0: give 1 or more"),
        (["train", "--runtime.checkpoint_every", "-1"], "--checkpoint-every -1: give 1 or more"),
        (["train", "--batch", "0"], "--batch 0: give 1 or more"),
        (["train", "--lr", "nan"], "--lr nan: give more than 0, 1000 at most"),
        (["train", "--clip", "0"], "--clip 0.0: give more than 0"),
        (["train", "--ema", "1.5"], "--ema 1.5: give 0 to 1"),
        (["train", "--seed", "-1"], "--seed -1: give 0 to 9223372036854775807"),
        (["tune", "--order", "8"], "--order 8: give 1 to 7"),
        (["align", "d", "--run", "r", "--to", "words", "--batch", "0"], "--batch 0: give 1 or more"),
        (["submit", "train", "--steps", "0"], "--steps 0: give 1 or more"),
    ],
)
def test_a_number_that_a_setting_cannot_have_is_one_line(capsys, argv: list[str], said: str):
    assert main(argv) == 1
    assert capsys.readouterr().err.splitlines() == [f"error: {said}"]


def test_a_number_of_a_file_is_checked_as_one_of_the_command_line_is(tmp_path: Path, capsys):
    path = write(tmp_path / "never.yaml", "runtime: {log_every: 0}\n")
    assert main(["train", "--config", str(path)]) == 1
    assert capsys.readouterr().err == "error: --log-every 0: give 1 or more\n"
    assert train("--config", path, "--log-every", "5").runtime.log_every == 5  # which wins


def test_defaults_and_recipes_are_within_their_bounds():
    for verb in VERBS:
        module = importlib.import_module(f"jobs.{verb}")
        for cls in [module.Settings] if hasattr(module, "Settings") else [cls for cls, _ in module.ACTIONS.values()]:
            for leaf in leaves(cls):
                if leaf.bounds and leaf.default not in (None, MISSING):
                    assert leaf.within(leaf.default), leaf.key


def test_recipes_are_right_and_say_what_they_are_for():
    names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    assert names == ["attention", "certificates", "ctc", "demo-attention", "demo-ctc", "finetuning", "smoke-test"]
    for name in names:
        assert (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").startswith("# "), name
        build(TrainConfig, read_settings(TrainConfig, name))


# --- written and read again


def test_settings_are_the_same_from_their_file_and_their_command_line(tmp_path: Path):
    argv = ["data/a", "--where", "a=1", "--where", "b=", "--lr", "1e-5", "--freeze", "--workers", "3", "--text", "t: #"]
    config = train(*argv)
    assert train("--config", write(tmp_path / "a.yaml", to_yaml(config, "why"))) == config
    assert train(*argv_of(config)) == config
    automatic = train("data/a", "--micro-batch", "auto")
    assert train(*argv_of(automatic)) == automatic


def test_a_runs_own_file_gives_the_same_losses(dataset, tmp_path: Path):
    first, again = tmp_path / "first", tmp_path / "again"
    assert main(["train", str(dataset.folder), "--run", str(first), *FEW, "--optim.lr", "1e-3"]) == 0
    assert main(["train", "--config", str(first / "config.yaml"), "--run", str(again)]) == 0
    assert len(losses(first)) == 8 and losses(first) == losses(again)
    ours, theirs = (
        (run / "config.yaml").read_text(encoding="utf-8").replace(str(run), "RUN") for run in (first, again)
    )
    assert ours == theirs and "batch: 8" in ours


def test_a_run_of_before_these_files_is_still_known(dataset, tmp_path: Path):
    run, options = tmp_path / "run", [str(dataset.folder), *FEW]
    assert main(["train", *options, "--run", str(run)]) == 0
    known = read_run(run)
    old = {name: value for name, value in known.items() if name != "config"}
    (run / "config.json").write_text(json.dumps(old))
    (run / "config.yaml").unlink()
    (run / "data.json").unlink()
    assert read_run(run) == known
    assert main(["train", *options, "--run", str(run)]) == 0 and (run / "config.yaml").exists()
    assert main(["train", *options, "--run", str(run), "--lr", "7"]) == 1


def test_what_may_change_on_resume_is_said_at_the_field(tmp_path: Path):
    fixed = {leaf.key for leaf in leaves(TrainConfig) if leaf.meta.fixed}
    assert fixed == {
        "seed", "data.split", "data.where", "data.blanks", "data.batch", "data.batch_by", "model.architecture",
        "model.size", "model.height", "model.recurrent_stride", "model.freeze", "optim.name", "optim.lr", "optim.ema",
        "schedule.steps", "schedule.warmup", "schedule.guide",
    }  # fmt: skip
    (tmp_path / "config.json").write_text('{"lr": 0.5, "threads": 9, "dataset": "abc"}')
    with pytest.raises(ValueError, match=r"is a run of lr '0.5', asked was '0.002'"):
        check_resumable(tmp_path, TrainConfig(), {"dataset": "abc"})
    with pytest.raises(
        ValueError, match=r"is a run of dataset 'abc', asked was 'other': .* each --mix, .*in the order"
    ):
        check_resumable(tmp_path, TrainConfig(), {"dataset": "other"})


# --- the verbs


def test_help_groups_the_verbs_and_needs_no_torch(capsys):
    assert list(STAGES) == ["data", "training", "evaluation", "production", "operations"]
    for verb in [None, *VERBS]:
        with pytest.raises(SystemExit) as end:
            parse([*([verb] if verb else []), "--help"])
        assert end.value.code == 0
        told = capsys.readouterr().out
        assert (f"python -m jobs {verb}" in told) if verb else all(f"\n{stage}:\n" in told for stage in STAGES)
    for verb in ("train", "evaluate", "scale"):
        code = (
            "import sys; from jobs.cli.command_line import main\n"
            f"try: main(['{verb}', '--help'])\nfinally: print(*sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=250)
        assert "jobs.cli.settings" in done.stdout.split() and not {"torch", "jsonargparse"} & set(done.stdout.split())


@pytest.mark.parametrize("module, said", [("torch.nn", "torch.nn is not installed in"), ("jobs.lost", None)])
def test_another_python_without_our_packages_is_one_line(module: str, said: str | None, monkeypatch, capsys):
    def lost(*_):
        raise ModuleNotFoundError(f"No module named '{module}'", name=module)

    monkeypatch.setattr("jobs.stats.main", lost)
    if said is None:  # one of ours: a fault, with its place
        with pytest.raises(ModuleNotFoundError):
            main(["stats", "data"])
        return
    assert main(["stats", "data"]) == 1
    line = capsys.readouterr().err
    assert said in line and ". slurm/env.sh" in line and line.count("\n") == 1


def test_scale_and_submit_take_a_trainings_file(tmp_path: Path, capsys):
    path = write(tmp_path / "e.yaml", "optim: {lr: 7e-4}\nschedule: {steps: 5}\ndata: {dataset: d}\n")
    scaled = parse(["scale", "--config", str(path), "--gpus", "1,2"])[1]
    assert scaled.train.optim.lr == 7e-4 and scaled.steps == 60 and scaled.gpus == [1, 2]
    assert "schedule.steps is ignored" in capsys.readouterr().err
    asked = ["submit", "train", "--config", str(path), "--nodes", "2", "--dry-run", "--run", str(tmp_path / "r")]
    assert main(asked) == 0
    assert "--lr 0.0007" in capsys.readouterr().out.replace("'", "")  # what the file says now, whatever becomes of it


def test_a_shard_that_is_gone_is_told_of_with_what_to_do(tmp_path: Path, monkeypatch, capsys):
    def train(_):
        OpenShards().read(tmp_path / "train-00000.tar", 0, 1)

    monkeypatch.setattr("jobs.train.main", train)
    assert main(["train"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "train-00000.tar" in line and line.endswith("remove its .json, and the same preprocess makes it again")


def test_ctrl_c_is_one_line(capsys, monkeypatch):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.cli.command_line.parse", interrupted)
    assert main(["stats", "data"]) == 130
    assert capsys.readouterr().err == "interrupted: what is whole is kept, the same command goes on\n"


def test_what_arrow_quotes_of_a_table_is_not_said(capsys, monkeypatch):
    def fail(_):
        pa.array(["l'arrêt de Dupont"]).cast(pa.float64())

    monkeypatch.setattr("jobs.stats.main", fail)
    assert main(["stats", "data"]) == 1
    said = capsys.readouterr().err
    assert "Dupont" not in said and "a table holds what can't be read" in said and said.count("\n") == 1


@pytest.mark.parametrize("convert", [float, int, np.float64, lambda cell: np.array([cell]).astype(float)])
def test_what_python_quotes_of_a_cell_is_not_said(capsys, monkeypatch, convert):
    monkeypatch.setattr("jobs.stats.main", lambda _: convert("l'arrêt de Dupont"))
    assert main(["stats", "data"]) == 1
    said = capsys.readouterr().err
    assert "Dupont" not in said and said.startswith("error: ") and said.count("\n") == 1


def test_a_warning_of_ours_is_a_message_and_others_keep_their_place():
    ours = Path(command_line.__file__).parents[1] / "audit.py"
    assert command_line.one_line(UserWarning("a note"), UserWarning, str(ours), 3) == "a note\n"
    for filename, kind in ((str(ours), DeprecationWarning), ("/site-packages/jobs/x.py", UserWarning)):
        assert f"{filename}:3: {kind.__name__}: a note" in command_line.one_line(kind("a note"), kind, filename, 3)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EACCES, errno.EROFS])
def test_an_error_of_storage_says_what_and_where_and_what_to_do(capsys, monkeypatch, number: int):
    def fail(_):
        raise OSError(number, os.strerror(number), "data/plan.json")

    monkeypatch.setattr("jobs.stats.main", fail)
    assert main(["stats", "data"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{os.strerror(number)}: 'data/plan.json': " in said
