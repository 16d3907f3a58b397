"""Two ranks on this machine whose gradients Horovod or torch.distributed sums: one dies, is stopped, or sleeps. The
other ends by itself, in bounded time, and the same command goes on; a run may go on under the other library.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bed import wait_for

from jobs.distributed.process_group import BACKENDS

CHECKOUT = Path(__file__).parents[2]
STEPS, EVERY = 40, 5
TRAIN = ["--size", "tiny", "--batch", "6", "--warmup", "5", "--log-every", "1", "--amp", "off", "--deterministic"]
TRAIN += ["--device", "cpu", "--checkpoint-every", str(EVERY), "--evaluate-every", "1000", "--steps", str(STEPS)]
# a rank that gets this signal does nothing more; its other threads go on
SLEEPS = "import signal, time\nsignal.signal(signal.SIGRTMIN, lambda *_: time.sleep(10000))\n"


class Pair:
    """A training of two ranks, as submitit's local executor starts them: children of one process."""

    def __init__(self, data: Path, run: Path, backend: str, *options: str, **environ: str):
        command = [sys.executable, "-m", "jobs", "train", str(data), "--run", str(run), "--backend", backend, *TRAIN]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SUBMITIT"))}
        inherited |= {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_NTASKS": "2", "OMP_NUM_THREADS": "1"}
        self.run, self.ranks = run, []
        for rank in ("0", "1"):
            local = {"SUBMITIT_LOCAL_GLOBALID": rank, "SUBMITIT_LOCAL_LOCALID": rank}
            self.ranks.append(
                subprocess.Popen([*command, *options], cwd=CHECKOUT, env=inherited | local | environ,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            )  # fmt: skip

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        for rank in self.ranks:
            rank.kill()
            rank.wait()
            rank.stderr.close()

    def wait_for_step(self, step: int) -> None:
        wait_for(lambda: len(losses(self.run)) >= step or self.ranks[0].poll() is not None, 200)
        assert self.ranks[0].poll() is None, self.ranks[0].stderr.read()

    def end(self, rank: int = 0) -> tuple[int, str]:
        """Its exit code, and what it said."""
        said = self.ranks[rank].communicate(timeout=200)[1]
        return self.ranks[rank].returncode, said

    def finish(self) -> dict[int, float]:
        ends = [self.end(rank) for rank in (0, 1)]
        assert [code for code, _ in ends] == [0, 0], ends
        return losses(self.run)


def losses(run: Path) -> dict[int, float]:
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {line["step"]: line["loss"] for line in map(json.loads, lines) if "loss" in line}


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory) -> dict[int, float]:
    """Losses of the run that nothing happens to."""
    with Pair(dataset.folder, tmp_path_factory.mktemp("whole") / "run", "horovod") as pair:
        return pair.finish()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_rank_ends_the_other_and_the_run_goes_on_under_the_other_library(dataset, tmp_path, whole, backend):
    """The same bits: of two ranks' gradients there is but one sum."""
    run = tmp_path / "run"
    with Pair(dataset.folder, run, backend) as pair:
        pair.wait_for_step(2 * EVERY + 2)
        pair.ranks[1].send_signal(signal.SIGKILL)
        code, said = pair.end()
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code == 1 and len(errors) == 1 and "Traceback" not in said, said
    if backend == "torch":
        assert re.fullmatch(r"error: [a-z _]+: rank 1 on \S+ ended; if that comes again, --exclude=\S+", errors[0])
    else:
        assert errors[0].endswith("another rank ended or stopped answering, its log says why")
    [other] = set(BACKENDS) - {backend}
    with Pair(dataset.folder, run, other) as pair:
        assert pair.finish() == whole and len(whole) == STEPS


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stopped_rank_is_named_on_the_other_in_bounded_time(dataset, tmp_path, backend):
    with Pair(dataset.folder, tmp_path / "run", backend, HTR_PEER_TIMEOUT="20") as pair:
        pair.wait_for_step(3)
        pair.ranks[1].send_signal(signal.SIGSTOP)
        code, said = pair.end()
    assert code == 75 and re.search(r"rank 1 on \S+ ?: stopped answering at step", said), said
    assert "no sign of life for 20 s" in said or backend == "horovod"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rank_that_sleeps_is_named_by_both(dataset, tmp_path, backend):
    """It answers still: the watchdog is what notices."""
    (tmp_path / "sitecustomize.py").write_text(SLEEPS, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), str(CHECKOUT)])
    environ = {"PYTHONPATH": path, "HTR_STEP_TIMEOUT": "20", "HOROVOD_GLOO_TIMEOUT_SECONDS": "600"}
    with Pair(dataset.folder, tmp_path / "run", backend, **environ) as pair:
        pair.wait_for_step(3)
        pair.ranks[1].send_signal(signal.SIGRTMIN)
        ends = [pair.end(rank) for rank in (0, 1)]
    assert [code for code, _ in ends] == [75, 75], ends
    assert "waiting for the others" in ends[0][1] and re.search(r"; rank 1 on \S+: ", ends[0][1]), ends
