"""The trainings of a scaling experiment: what scale.json knows of them, and what has become of each."""

import time
from dataclasses import dataclass
from pathlib import Path

from jobs.launch.slurm_state import ENDED, WAITING, Slurm
from jobs.training.run_lock import living, read_json

UNKNOWN_JOB_WAIT_S = 300.0  # seconds after submission in which a job that Slurm does not know yet may still appear
POLL_INTERVAL_S = 5.0  # seconds


@dataclass(frozen=True)
class Training:
    ranks: int
    nodes: int
    ranks_per_node: int
    gpus: bool
    run: Path
    argv: list[str]  # of train, without the run


def submitted(out: Path, known: dict) -> list[Training]:
    """The trainings that scale.json knows. Raises ValueError where none was submitted."""
    if not known:
        raise ValueError(f"{out}: nothing was submitted there (no scale.json): leave out --collect, or give its --out")
    return [
        Training(int(ranks), entry["nodes"], 0, False, out / f"ranks-{ranks}", entry["argv"])
        for ranks, entry in sorted(known.items(), key=lambda item: int(item[0]))
    ]


def is_strong(trainings: list[Training]) -> bool:
    """Whether all sizes have the same global batch (strong scaling)."""
    batches = [training.argv[training.argv.index("--batch") + 1] for training in trainings]
    return len(batches) > 1 and len(set(batches)) == 1


def differs(before: list[str], now: list[str]) -> str:
    gone, new = (" ".join(word for word in one if word not in other) for one, other in ((before, now), (now, before)))
    return f"then {gone or 'fewer'}, now {new or 'fewer'}"


def states_of(trainings: list[Training], known: dict, slurm: Slurm | None = None) -> dict[int, str]:
    """By ranks: done, running, queued, not submitted, or why it has failed. `slurm`: a connection to use again."""
    jobs = {int(ranks): entry for ranks, entry in known.items()}
    words = (slurm or Slurm()).ask(entry["job"] for entry in jobs.values() if entry["cluster"] == "slurm")
    statuses = {training.ranks: read_json(training.run / "status.json") or {} for training in trainings}
    begun = [t for t in trainings if t.ranks in jobs and statuses[t.ranks].get("state") != "finished"]
    alive, found = living(training.run / "lock.json" for training in begun), {}
    for training in trainings:
        entry, status = jobs.get(training.ranks), statuses[training.ranks]
        word = words.get(entry["job"]) if entry else None
        if entry is None:
            found[training.ranks] = "not submitted"
        elif status.get("state") == "finished":
            found[training.ranks] = "done"
        elif training.run / "lock.json" in alive:
            found[training.ranks] = "running"
        elif word in WAITING or (
            word is None and entry["cluster"] == "slurm" and time.time() - entry["at"] < UNKNOWN_JOB_WAIT_S
        ):
            found[training.ranks] = "queued"
        elif word and word not in (*ENDED, "COMPLETED"):
            found[training.ranks] = "running"  # or on its way there
        else:
            why = status.get("reason") or (f"Slurm says {word}" if word else "it left nothing")
            found[training.ranks] = f"job {entry['job']} failed ({why}), logs in {training.run / 'logs'}"
    return found


def wait_for(trainings: list[Training], known: dict) -> None:
    slurm = Slurm()
    while {"running", "queued"} & set(states_of(trainings, known, slurm).values()):
        time.sleep(POLL_INTERVAL_S)
