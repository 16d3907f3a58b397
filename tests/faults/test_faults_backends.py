"""Two ranks on this machine whose gradients Horovod or torch.distributed sums: one dies, is stopped, or sleeps. The
other ends by itself, in bounded time, and the same command goes on; a run may go on under the other library.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from bed import DIES, PATIENT_S, SLEEPS, STOPS, jobs_but

from jobs.distributed.process_group import BACKENDS

CHECKOUT = Path(__file__).parents[2]
STEPS, EVERY = 40, 5
TRAIN = ["--size", "tiny", "--batch", "6", "--warmup", "5", "--log-every", "1", "--amp", "off", "--deterministic"]
TRAIN += ["--device", "cpu", "--checkpoint-every", str(EVERY), "--evaluate-every", "1000", "--steps", str(STEPS)]


class Pair:
    """A training of two ranks, as submitit's local executor starts them: children of one process. `step`, `what`: as
    for jobs_but, of rank 1.
    """

    def __init__(self, data: Path, run: Path, backend: str, step: int = 0, what: str = "pass", **environ: str):
        train = ["train", str(data), "--run", str(run), "--backend", backend, *TRAIN]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SUBMITIT"))}
        inherited |= {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_NTASKS": "2", "OMP_NUM_THREADS": "1"}
        self.run, self.ranks = run, []
        for rank, command in (("0", jobs_but(0, "pass")), ("1", jobs_but(step, what))):
            local = {"SUBMITIT_LOCAL_GLOBALID": rank, "SUBMITIT_LOCAL_LOCALID": rank}
            self.ranks.append(
                subprocess.Popen([*command, *train], cwd=CHECKOUT, env=inherited | local | environ,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            )  # fmt: skip

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        for rank in self.ranks:
            rank.kill()
            rank.wait()
            rank.stderr.close()

    def end(self, rank: int = 0) -> tuple[int, str]:
        """Its exit code, and what it said."""
        said = self.ranks[rank].communicate(timeout=PATIENT_S)[1]
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
    with Pair(dataset.folder, run, backend, 2 * EVERY + 2, DIES) as pair:
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


@contextmanager
def both(dataset, folder: Path, what: str, **environ: str) -> Iterator[dict[str, Pair]]:
    """A pair under each library, at the same time: both wait most of it."""
    with ExitStack() as stack:
        start = lambda backend: Pair(dataset.folder, folder / backend, backend, 3, what, **environ)  # noqa: E731
        yield {backend: stack.enter_context(start(backend)) for backend in BACKENDS}


def test_a_stopped_rank_is_named_on_the_other_in_bounded_time(dataset, tmp_path):
    with both(dataset, tmp_path, STOPS, HTR_PEER_TIMEOUT="20") as pairs:
        ends = {backend: pair.end() for backend, pair in pairs.items()}
    for backend, (code, said) in ends.items():
        assert code == 75 and re.search(r"rank 1 on \S+ ?: stopped answering at step", said), (backend, said)
        assert "no sign of life for 20 s" in said or backend == "horovod"


def test_a_rank_that_sleeps_is_named_by_both(dataset, tmp_path):
    """It answers still: the watchdog is what notices."""
    environ = {"HTR_STEP_TIMEOUT": "20", "HOROVOD_GLOO_TIMEOUT_SECONDS": "600"}
    with both(dataset, tmp_path, SLEEPS, **environ) as pairs:
        ends = {backend: [pair.end(rank) for rank in (0, 1)] for backend, pair in pairs.items()}
    for backend, ((code, said), (other, _)) in ends.items():
        assert code == other == 75, (backend, ends)
        assert "waiting for the others" in said and re.search(r"; rank 1 on \S+: ", said), (backend, said)
