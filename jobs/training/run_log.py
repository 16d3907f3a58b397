"""The first and last line of a training's start, for people: in the job's log, and in RUN/logs/train.log itself, since
srun and tee may lose a job's last ones."""

import contextlib
import platform
import time
from pathlib import Path

from jobs.cli.console import log
from shards import files


def tell(run: Path, job: str, message: str) -> None:
    log(f"train: {message}")
    append(run, job, message)


def append(run: Path, job: str, message: str) -> None:
    """A line in RUN/logs/train.log; where it can't be written, none."""
    with contextlib.suppress(OSError):
        (run / "logs").mkdir(exist_ok=True)
        with open(run / "logs" / "train.log", "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} job {job}: {message}\n")


def first_line(run: Path, known: dict, at: str, resumed: bool) -> str:
    """Who trains what, where, from which step. `known`: the facts of this start; `at`: step 40 of 100."""
    hosts = known.get("hosts") or [platform.node()]
    ranks = f"{known.get('world', 1)} rank{'s' * (known.get('world', 1) > 1)} on {', '.join(hosts)}"
    going = f"resumed at {at}" if resumed else f"from {at}"
    return f"{run}: {ranks}, {known.get('device')}, data set {known.get('folder')}, {going}"


def last_line(run: Path, state: dict) -> str:
    """How it ended, what is kept, what to do next. `state`: of status.json."""
    # here, since it comes with torch, which takes seconds: a hang's end needs none of it
    from jobs.training.checkpoint import step_of, steps

    how, reason = state.get("state"), state.get("reason") or ""
    written = steps(run / "checkpoints")
    kept = f"checkpoint of step {step_of(written[0])} written" if written else "no checkpoint was written"
    if how == "finished":
        following = f"next: python -m jobs evaluate --run {files.in_shell(run)}"
    elif "queued again" in reason or "chain goes on" in reason:
        following = "nothing is to be done"
    else:
        following = "the same command goes on" + " there" * bool(written)
    return "; ".join([f"{how}, {reason}" if reason else f"{how}", kept, following])
