"""Training: the same losses whatever the world, kill and resume, and what is refused with one clear message."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from bed import DIES, jobs_but, wait_for, waits
from safetensors.torch import load_file

from htr.metrics.error_rates import Errors
from htr.reader import Reader
from jobs.cli.command_line import main
from jobs.distributed.signals import Decision, SignalHandler
from jobs.training.config import DataConfig, RuntimeConfig, ScheduleConfig, TrainConfig
from jobs.training.requeueing import CHAINED, why_not_again
from jobs.training.trainer import Trainer
from shards.index import read_index

CHECKOUT = Path(__file__).parents[2]
FEW = ["--size", "tiny", "--batch", "6", "--steps", "20", "--warmup", "5", "--log-every", "1", "--amp", "off"]
PLAIN = [*FEW, "--dropout", "0", "--teacher-noise", "0", "--device", "cpu", "--evaluate-every", "1000"]


@pytest.fixture(scope="module")
def data(dataset) -> Path:
    return dataset.folder


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def jobs(*argv: object, **options) -> subprocess.CompletedProcess:
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jobs", *map(str, argv)]
    return subprocess.run(command, cwd=CHECKOUT, env=environ, capture_output=True, text=True, **options)


@pytest.mark.parametrize("model", ["ctc", "attention"])
def test_one_rank_and_two_give_the_same_losses(data: Path, tmp_path: Path, model: str):
    # a low rate: Adam turns the last bit of a gradient near zero into a whole step of the rate's size
    options = ["--model", model, *PLAIN, "--lr", "2e-4"]
    assert main(["train", str(data), "--run", str(tmp_path / "1"), *options]) == 0
    where = ["--cluster", "local", "--gpus-per-node", 0, "--tasks-per-node", 2]
    done = jobs("submit", "train", *where, data, "--run", tmp_path / "2", *options)
    assert done.returncode == 0, done.stderr
    for ranks in (1, 2):
        assert json.loads((tmp_path / str(ranks) / "status.json").read_text(encoding="utf-8"))["world"] == ranks
    one, two = (losses(tmp_path / str(ranks)) for ranks in (1, 2))
    assert len(one) == len(two) == 20
    assert one[:3] == pytest.approx(two[:3], rel=1e-5)
    assert one == pytest.approx(two, rel=1e-3)
    assert min(one) < 0.97 * one[0]  # and it learns, so that equal losses mean something


def test_killed_and_resumed_is_the_run_that_never_was_killed(data: Path, tmp_path: Path):
    options = [*FEW, "--device", "cpu", "--checkpoint-every", "4", "--evaluate-every", "1000"]  # with dropout
    assert main(["train", str(data), "--run", str(tmp_path / "whole"), *options]) == 0
    command = [*jobs_but(10, DIES), "train", data, "--run", tmp_path / "cut", *options]
    done = subprocess.run(
        list(map(str, command)), cwd=CHECKOUT, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "cut" / "lock.json").exists()  # it was killed in the middle
    assert (tmp_path / "cut" / "checkpoints" / "last.pt").readlink() == Path("step-000008.pt")
    assert main(["train", str(data), "--run", str(tmp_path / "cut"), *options]) == 0
    assert losses(tmp_path / "cut")[-8:] == losses(tmp_path / "whole")[-8:]
    names = [run / "model" / "weights.safetensors" for run in (tmp_path / "whole", tmp_path / "cut")]
    assert names[0].read_bytes() == names[1].read_bytes()


DEV = [*FEW, "--device", "cpu", "--checkpoint-every", "4", "--evaluate-every", "5"]  # dev is read four times


def cut_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The training ends with an error once it has taken this step, without a checkpoint of it."""
    run_step = Trainer.run_step

    def cut(self, *args):
        if self.step == step:
            raise ValueError("cut here")
        return run_step(self, *args)

    monkeypatch.setattr(Trainer, "run_step", cut)


def dev_lines(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["dev_cer"] for line in lines if "dev_cer" in line}


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(["train", str(data), "--run", str(folder), *DEV]) == 0
    assert list(dev_lines(folder)) == [5, 10, 15, 20]
    return folder


@pytest.mark.parametrize("step", [7, 11, 17])
def test_a_resume_between_readings_of_dev_is_as_if_undisturbed(data, tmp_path, undisturbed, step):
    """Before and after a checkpoint that dev was read since: the same losses, errors on dev, best and model."""
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        cut_after(patch, step)
        assert main(["train", str(data), "--run", str(run), *DEV]) == 1
    assert main(["train", str(data), "--run", str(run), *DEV]) == 0
    assert losses(run)[-3:] == losses(undisturbed)[-3:] and dev_lines(run) == dev_lines(undisturbed)
    states = [torch.load(folder / "checkpoints" / "last.pt", weights_only=True) for folder in (run, undisturbed)]
    assert states[0]["best"] == states[1]["best"] and states[0]["evaluated"] == states[1]["evaluated"] == 20
    for name in ("best.pt", "last.pt"):
        assert len({(folder / "checkpoints" / name).readlink() for folder in (run, undisturbed)}) == 1
    models = [(folder / "model" / "weights.safetensors").read_bytes() for folder in (run, undisturbed)]
    assert models[0] == models[1]


def test_a_run_that_began_without_a_scale_of_losses_goes_on_in_fp16(data, tmp_path, undisturbed, monkeypatch):
    run = shutil.copytree(undisturbed, tmp_path / "run", symlinks=True)
    monkeypatch.setattr("jobs.training.trainer.precision", lambda *_: (contextlib.nullcontext, "fp16"))
    assert main(["train", str(data), "--run", str(run), *DEV]) == 0


def errors_on_dev(monkeypatch: pytest.MonkeyPatch, lines: int, *rates: float) -> None:
    """Each reading of dev finds the next of these rates."""
    each = iter([rate for rate in rates for _ in range(lines)])
    monkeypatch.setattr(
        "jobs.training.trainer.compare", lambda *_: Errors(characters=1000, edits=round(1000 * next(each)))
    )


def best_step(run: Path) -> int:
    """Of the checkpoint called best, and of the model beside it: the same one."""
    step = Reader.load(run / "model").config["step"]
    assert (run / "checkpoints" / "best.pt").readlink() == Path(f"step-{step:06d}.pt")
    return step


def test_the_best_step_is_that_of_the_fewest_errors_so_far(data: Path, tmp_path: Path, monkeypatch):
    lines = read_index(data).lines["dev"]
    errors_on_dev(monkeypatch, lines, 0.5, 0.6, 0.55, 0.52)  # better than the one before, not than the first
    assert main(["train", str(data), "--run", str(tmp_path / "run"), *DEV]) == 0
    assert best_step(tmp_path / "run") == 5


def test_a_resumed_run_remembers_its_best_step(data: Path, tmp_path: Path):
    lines, run = read_index(data).lines["dev"], tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        cut_after(patch, 9)
        errors_on_dev(patch, lines, 0.5)
        assert main(["train", str(data), "--run", str(run), *DEV]) == 1
    with pytest.MonkeyPatch.context() as patch:
        errors_on_dev(patch, lines, 0.6, 0.55, 0.7)
        assert main(["train", str(data), "--run", str(run), *DEV]) == 0
    assert best_step(run) == 5 and list(dev_lines(run).values()) == [0.5, 0.6, 0.55, 0.7]


def test_each_step_of_each_rank_has_its_own_random_numbers():
    seeds = []
    for seed, step, rank in itertools.product((1, 2), (0, 1, 5), (0, 1, 300)):
        world = SimpleNamespace(rank=rank, ask=lambda received: lambda: {"stop": 0, "limit": 0}, on_root=None)
        training = SimpleNamespace(
            config=TrainConfig(
                seed=seed, schedule=ScheduleConfig(steps=20, warmup=5),
                runtime=RuntimeConfig(log_every=100, checkpoint_every=100, evaluate_every=0),
            ),
            world=world, signals=SimpleNamespace(received=None), step=step, saved=0, rate=0.1, model=None,
            evaluation_due=lambda: False,
            optimizer=SimpleNamespace(param_groups=[]), average=SimpleNamespace(update_parameters=lambda model: None),
            train_step=SimpleNamespace(step=lambda _batch, _step, seed: seeds.append(seed)),
            training_data=SimpleNamespace(dev=None),
        )  # fmt: skip
        Trainer.run_step(training, None, None, SimpleNamespace(advance=lambda *_: None, note=""))
    assert len(seeds) == len(set(seeds)) == 18


def test_a_job_that_took_no_step_is_not_queued_again():
    """Else it would come back for ever, with a time limit that is too short to load the data."""
    told = []
    run = SimpleNamespace(requeues=0, update=told.append)
    for step, again in ((7, False), (8, True)):
        training = SimpleNamespace(run=run, config=TrainConfig(runtime=RuntimeConfig(requeues=3)), step=step, began=7)
        decision, why = Trainer.may_requeue(training, Decision(stop=True, requeue=True))
        assert decision == Decision(stop=True, requeue=again) and ("no step was taken" in why) != again
    assert told == [{"requeues": 1}]


@pytest.mark.parametrize(("chain", "requeues"), [(True, 3), (True, 0), (False, 3), (False, 0)])
def test_a_job_of_a_chain_leaves_the_rest_to_the_next_one(monkeypatch: pytest.MonkeyPatch, chain: bool, requeues: int):
    """At the time limit and after ranks that hung alike, whatever --requeues is."""
    if chain:
        monkeypatch.setenv("HTR_CHAIN", "1")
    run = SimpleNamespace(requeues=0, update=lambda _: None)
    training = SimpleNamespace(run=run, config=TrainConfig(runtime=RuntimeConfig(requeues=requeues)), step=8, began=7)
    decision, why = Trainer.may_requeue(training, Decision(stop=True, requeue=True))
    assert decision == Decision(stop=not chain, requeue=not chain and requeues > 0)
    expected = CHAINED if chain else "" if requeues else "0 of 0 --requeues"
    assert why_not_again(0, requeues, has_stepped=True) == expected
    assert why.startswith(expected or "the job is queued again, 1 of 3")


def test_damaged_newest_checkpoint_is_passed_over(data: Path, tmp_path: Path, capsys):
    options = [*PLAIN, "--checkpoint-every", "10"]
    assert main(["train", str(data), "--run", str(tmp_path / "run"), *options]) == 0
    whole = losses(tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-000020.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    assert main(["train", str(data), "--run", str(tmp_path / "run"), *options]) == 0
    assert "step-000020.pt is damaged" in capsys.readouterr().err
    assert losses(tmp_path / "run")[20:] == whole[10:]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory) -> Path:
    """A trained CTC run, for what follows."""
    folder = tmp_path_factory.mktemp("runs") / "ctc"
    assert main(["train", str(data), "--run", str(folder), *PLAIN]) == 0
    return folder


def fails(capsys, *argv: object) -> str:
    """The one line that a failing command ends with."""
    assert main([str(part) for part in argv]) == 1
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_attention_starts_from_ctc(data: Path, run: Path, tmp_path: Path):
    options = [*PLAIN, "--model", "attention", "--steps", "1"]
    assert main(["train", str(data), "--run", str(tmp_path / "cold"), *options]) == 0
    assert main(["train", str(data), "--run", str(tmp_path / "warm"), *options, "--init-from", str(run)]) == 0
    assert losses(tmp_path / "warm")[0] < losses(tmp_path / "cold")[0]


def test_a_resume_needs_no_weights_to_start_from(data: Path, run: Path, tmp_path: Path, capsys):
    """The run that it once started from may be gone, or another model by now."""
    source, mine = tmp_path / "source", tmp_path / "mine"
    shutil.copytree(run / "model", source)
    command = ["train", str(data), "--run", str(mine), *PLAIN, "--steps", "4", "--init-from", str(source)]
    assert main([*command, "--checkpoint-every", "2"]) == 0
    shutil.rmtree(source)
    (mine / "checkpoints" / "step-000004.pt").unlink()
    capsys.readouterr()
    assert main(command) == 0 and "weights taken" not in capsys.readouterr().err
    assert json.loads((mine / "status.json").read_text(encoding="utf-8"))["step"] == 4
    shutil.rmtree(mine / "checkpoints")
    assert "no model here" in fails(capsys, *command)


def test_a_decoder_alone_leaves_the_encoder_as_it_was(capsys, data: Path, run: Path, tmp_path: Path):
    attention = ["train", str(data), "--run", str(tmp_path / "a"), "--model", "attention", *PLAIN, "--freeze"]
    assert main(attention) == 1 and "--init-from" in capsys.readouterr().err
    assert main([*attention, "--init-from", str(run), "--ema", "0"]) == 0
    before, after = (load_file(folder / "model" / "weights.safetensors") for folder in (run, tmp_path / "a"))
    shared = [name for name in before if not name.startswith("aux")]
    assert len(shared) > 20 and all(torch.equal(before[name], after[name]) for name in shared)
    assert losses(tmp_path / "a")[-1] < losses(tmp_path / "a")[0]


def test_run_folder_of_another_model(capsys, data: Path, run: Path):
    message = fails(capsys, "train", data, "--run", run, *PLAIN, "--model", "attention")
    assert message.startswith("error: ") and "is a run of model 'ctc', asked was 'attention'" in message
    assert (
        json.loads((run / "status.json").read_text(encoding="utf-8"))["state"] == "finished"
    )  # the other job left no trace


def test_second_job_on_a_run_folder_is_refused(capsys, data: Path, tmp_path: Path):
    options = [*PLAIN, "--steps", "100000"]
    command = [sys.executable, "-m", "jobs", "train", str(data), "--run", str(tmp_path / "run"), *options]
    first = subprocess.Popen(
        command, cwd=CHECKOUT, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        deadline = time.monotonic() + 250
        while not (tmp_path / "run" / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        message = fails(capsys, "train", data, "--run", tmp_path / "run", *options)
        assert "works in this run folder" in message
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()


def test_more_ranks_than_samples_or_no_samples(capsys, data: Path, tmp_path: Path):
    message = fails(capsys, "train", data, "--run", tmp_path / "run", *PLAIN, "--where", "writer=nobody")
    assert "no sample in split 'train'" in message
    message = fails(capsys, "train", data, "--run", tmp_path / "run", *PLAIN, "--where", "nosuch=1")
    assert "no column nosuch" in message
    one = read_index(data).samples("train")["certificate"][0].as_py()
    where = ["--where", f"certificate={one}", "--where", "field=Ia"]
    local = ["--cluster", "local", "--gpus-per-node", 0, "--tasks-per-node", 2]
    done = jobs("submit", "train", *local, data, "--run", tmp_path / "two", *PLAIN, *where)
    assert done.returncode != 0
    assert "1 samples for 2 ranks: use fewer ranks" in done.stderr


def test_no_dataset_and_an_unfinished_one(capsys, data: Path, tmp_path: Path):
    assert "no data set here" in fails(capsys, "train", tmp_path / "nothing", "--run", tmp_path / "run", *PLAIN)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "plan.json").write_bytes((data / "plan.json").read_bytes())
    assert "not whole" in fails(capsys, "train", tmp_path / "half", "--run", tmp_path / "run", *PLAIN)


def test_full_disk_while_a_checkpoint_is_written(capsys, data: Path, tmp_path: Path, monkeypatch):
    from shards import files

    write = files.write_synced

    def full(path: Path, content: bytes | str) -> None:
        if ".pt." in path.name:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(files, "write_synced", full)
    message = fails(capsys, "train", data, "--run", tmp_path / "run", *PLAIN, "--checkpoint-every", "5")
    assert "No space left on device" in message
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    assert json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))["state"] == "failed"


def test_modes_and_no_transcription_in_a_log(run: Path, data: Path):
    import tarfile

    texts = set()
    for tar in data.glob("*.tar"):
        with tarfile.open(tar) as archive:
            texts |= {archive.extractfile(m).read().decode() for m in archive if m.name.endswith(".txt")}
    assert texts
    for path in [run, *run.rglob("*")]:
        if not path.is_symlink():
            assert path.stat().st_mode & 0o027 == 0, path  # nothing for others, nothing writable for the group
        if path.suffix in (".json", ".jsonl", ".log", ".out", ".err"):
            content = path.read_text(encoding="utf-8")
            assert not [text for text in texts if len(text) > 3 and text in content], path


def test_several_data_sets_another_optimizer_and_no_average(data: Path, run: Path, tmp_path: Path):
    """Options that make another run, each refused on the folder of the first."""
    more = [["--mix", f"{data}=1:0.5"], ["--optimizer", "adamw"], ["--ema", "0"], ["--blanks", "0.2"]]
    for number, options in enumerate(more):
        folder = tmp_path / str(number)
        assert main(["train", str(data), "--run", str(folder), *PLAIN, *options]) == 0
        assert len(losses(folder)) == 20 and losses(folder)[-1] < losses(folder)[0]
        assert main(["train", str(data), "--run", str(run), *PLAIN, *options]) == 1
    assert losses(tmp_path / "1") != losses(run)
    assert losses(tmp_path / "2") == losses(run)  # the average changes the model that is written, not the training
    weights = [(folder / "model" / "weights.safetensors").read_bytes() for folder in (tmp_path / "2", run)]
    assert weights[0] != weights[1]


def test_a_reader_says_what_it_writes(data: Path, run: Path, tmp_path: Path):
    options = [*PLAIN, "--steps", "2", "--text", "year"]
    assert main(["train", str(data), "--run", str(tmp_path / "years"), *options]) == 0
    configs = [
        json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
        for folder in (tmp_path / "years", run)
    ]
    assert [config["writes"] for config in configs] == ["year", "as written"] and configs[0]["alphabet"] == "02"


def test_conv_reads_without_recurrence(data: Path, tmp_path: Path):
    assert main(["train", str(data), "--run", str(tmp_path / "conv"), *PLAIN, "--model", "conv"]) == 0
    assert losses(tmp_path / "conv")[-1] < losses(tmp_path / "conv")[0]


def signalled(number: signal.Signals, step: int, mark: Path, *argv: object) -> tuple[int, str]:
    """A training in a process of its own that hears this signal after that step -> its exit code, what it said."""
    command = [*jobs_but(step, waits(mark)), "train", *map(str, argv)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=CHECKOUT, env=environ, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: mark.exists() or process.poll() is not None, every=0.02)
        process.send_signal(number)
        said = process.communicate()[1]
    return process.returncode, said


SAME = [*FEW, "--device", "cpu", "--checkpoint-every", "1000", "--evaluate-every", "1000", "--deterministic"]


@pytest.fixture(scope="module")
def same(data: Path, tmp_path_factory) -> Path:
    """The run of SAME that nothing happens to."""
    folder = tmp_path_factory.mktemp("same") / "run"
    assert jobs("train", data, *SAME, "--run", folder).returncode == 0
    return folder


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75)])
def test_a_signal_ends_it_with_a_checkpoint_and_the_rest_is_as_if_undisturbed(
    data: Path, tmp_path: Path, same: Path, number: signal.Signals, code: int
):
    run = tmp_path / "run"
    cut = [*SAME, "--run", run]
    ended, said = signalled(number, 3, tmp_path / "mark", data, *cut, "--workers", 1)
    assert ended == code, said
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    assert status["state"] == "stopped" and not (run / "lock.json").exists()
    assert f"checkpoint of step {status['step']} written" in said and status["step"] == 4
    if number == signal.SIGUSR1:  # there was no Slurm to go back to, and it says so, to who asks later too
        why = "the job is not queued again: this is no job of Slurm; start it again to go on"
        assert said.endswith(f"train: {why}\n") and (run / "logs" / "train.log").read_text().endswith(f"{why}\n")
        assert (status["reason"], status["requeues"]) == (f"time limit: {why}", 0)
    again = jobs("train", data, *cut)
    assert again.returncode == 0 and f"resumed at step {status['step']}" in again.stderr, again.stderr
    states = [torch.load(folder / "checkpoints" / "last.pt", weights_only=True) for folder in (same, run)]
    assert states[0]["step"] == states[1]["step"] == 20
    for name, weights in states[0]["model"].items():
        assert torch.equal(weights, states[1]["model"][name]), name


def test_parts_of_a_batch_teach_what_the_whole_teaches(data: Path, tmp_path: Path):
    for name, more in (("whole", []), ("parts", ["--micro-batch", "2"])):
        assert main(["train", str(data), "--run", str(tmp_path / name), *PLAIN, "--lr", "2e-4", *more]) == 0
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=2e-3)


def test_a_batch_by_ranks_stays_what_the_run_began_with(data: Path, tmp_path: Path):
    from jobs.train import global_batch

    def wanted(**batch: int) -> TrainConfig:
        return TrainConfig(run=tmp_path, data=DataConfig(**batch))

    asked = wanted(batch_per_rank=8)
    assert global_batch(asked, 4) == 32
    (tmp_path / "config.json").write_text('{"batch": 32}')
    assert global_batch(asked, 2) == 32  # with fewer ranks now
    assert global_batch(wanted(), 2) == 32
    with pytest.raises(ValueError, match="not both"):
        global_batch(wanted(batch=6, batch_per_rank=8), 2)


def test_a_signal_in_the_last_step_leaves_a_model_too(data: Path, tmp_path: Path):
    run, options = tmp_path / "run", [*FEW, "--steps", "1", "--device", "cpu", "--evaluate-every", "0"]
    command = ["train", str(data), "--run", str(run), *options]

    def heard(signals: SignalHandler) -> SignalHandler:
        signals.received["stop"] = 1
        return signals

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SignalHandler, "__enter__", heard)
        patch.setattr(SignalHandler, "__exit__", lambda *_: None)
        assert main(command) == 143
    assert (run / "model" / "weights.safetensors").exists()


def test_a_run_that_used_up_its_requeues_ends(data: Path, tmp_path: Path):
    run = tmp_path / "run"
    asked = [data, *FEW, "--device", "cpu", "--run", run, "--requeues", 0]
    ended, said = signalled(signal.SIGUSR1, 1, tmp_path / "mark", *asked)
    assert ended == 143 and "0 of 0 --requeues, start it again" in said


def test_a_resume_under_other_code_is_said(data: Path, tmp_path: Path, capsys):
    run = tmp_path / "run"
    few = ["train", str(data), "--run", str(run), *PLAIN]
    assert main([*few, "--steps", "20"]) == 0 and main(few) == 0
    assert "other code" not in capsys.readouterr().err
    facts = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
    last = facts["starts"][-1]
    assert (last["world"], last["device"], last["cpus"]) == (1, "cpu", len(os.sched_getaffinity(0)))
    facts["starts"][-1]["digest"] = "0123456789ab"
    (run / "provenance.json").write_text(json.dumps(facts))
    assert main(few) == 0
    assert "of other code (digest 0123456789ab, now" in capsys.readouterr().err


def test_no_room_for_checkpoints_is_said_before_the_first_step(data: Path, tmp_path: Path, capsys, monkeypatch):
    for free, files, message in ((1000, 10**6, "MiB are free"), (10**9, 7, "only 7 more files")):
        room = SimpleNamespace(f_bavail=free, f_frsize=4096, f_files=10**6, f_favail=files)
        monkeypatch.setattr("jobs.training.checkpoint.os.statvfs", lambda folder, room=room: room)
        assert main(["train", str(data), "--run", str(tmp_path / "run"), *PLAIN]) == 1
        assert message in capsys.readouterr().err and not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_precision_that_the_device_lacks_is_refused_before_a_run_is_begun(data: Path, tmp_path: Path, capsys):
    message = fails(capsys, "train", data, "--run", tmp_path / "run", *PLAIN, "--amp", "fp16")
    assert "fp16 needs a GPU" in message and not (tmp_path / "run").exists()
