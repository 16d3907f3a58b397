"""A run has one owner: RUN/lock.json says which process of which job, and nobody else finishes a file of the run.

The lock is linked into place, with a heartbeat as its time of change. Its holder writes through a folder of its own,
RUN/.writer-TOKEN, and who takes the run over first takes the folders of all others away: one that was taken for dead
and wakes up again can finish no file. Lines are appended to files that are linked there too, and that a next owner
copies: what an earlier one still adds goes to a file that nobody reads.
"""

import contextlib
import os
import platform
import secrets
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from jobs.cli.console import log
from shards import files
from shards.claim import clock_or_own, modified, namespace, seen_to_beat

BEAT_INTERVAL_S = 5.0  # seconds between heartbeats
WATCHED_BEATS = 3  # that a lock is watched for, where clocks say that it is old
STALE_AFTER_S = 60.0  # seconds after the last one until a run counts as left
FENCE = ".writer-"
UNKNOWN = {"job": "?", "host": "?", "pid": 0, "birth": ""}


class RunLock:
    """Of this process. Raises ValueError, here and in every write, when the run is another job's.

    `patient`: wait until the heartbeat of a job that was killed counts as old, instead of being refused at once.
    """

    def __init__(self, folder: Path, job: str, patient: bool = False):
        self.folder, self.job, self.patient = folder, job, patient
        self.owner, self.path = owner_of(job), folder / "lock.json"
        self.fence = folder / f"{FENCE}{self.owner['token']}"
        self.ended = threading.Event()
        self.take()

    def take(self) -> None:
        with files.attempt_at(self.path) as attempt:
            files.write_synced(attempt, files.to_json(self.owner))
            now = attempt.stat().st_mtime  # the file server's clock, not this node's
            while True:
                try:
                    os.link(attempt, self.path)
                    break
                except FileExistsError:
                    self.clear_stale(now)
        for other in self.folder.glob(f"{FENCE}*"):
            away = files.temporary(other)
            with contextlib.suppress(FileNotFoundError):
                other.rename(away)  # at once, whatever is being written there
            shutil.rmtree(away, ignore_errors=True)
        self.fence.mkdir(mode=0o750)

    def give_back(self) -> None:
        """If it is still this job's."""
        self.ended.set()
        shutil.rmtree(self.fence, ignore_errors=True)
        with contextlib.suppress(OSError, ValueError):
            if self.is_ours():
                self.path.unlink()

    def is_ours(self) -> bool:
        return read_lock(self.path) == self.owner

    def assert_owner(self) -> None:
        """Before every write. Raises ValueError when another job has the run, or its folder is gone."""
        for _ in range(20):  # one that takes it for a dead job's may have it aside for a moment
            if (held := read_lock(self.path)) or not self.fence.is_dir():
                break
            time.sleep(0.1)
        if held == self.owner:
            return
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder}: the run's folder was removed or renamed while this job worked in it")
        who = f"job {held['job']} on {held['host']} has" if held else "its lock.json is gone, another job may have"
        raise ValueError(f"{self.folder}: {who} taken it over while this job did not beat: nothing more is written")

    # --- what the owner writes

    def replace(self, path: Path, content: bytes | str) -> None:
        """A file of the run, whole or not at all."""
        self.assert_owner()
        try:
            files.replace(path, content, self.fence)
        except FileNotFoundError:
            self.assert_owner()
            raise

    def append(self, path: Path, line: str) -> None:
        """A line at the end of a file directly in the run's folder."""
        self.assert_owner()
        own = self.fence / path.name
        try:
            if not own.exists() or not path.exists() or not own.samefile(path):
                self.adopt(path, own)
            with files.named(path), open(own, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except FileNotFoundError:
            self.assert_owner()
            raise

    def adopt(self, path: Path, own: Path) -> None:
        """Make the file, with what earlier owners wrote there, one that none of them has open."""
        attempt, second = self.fence / f".{path.name}", self.fence / f".{path.name}.2"
        with files.named(path):
            files.write_synced(attempt, path.read_bytes() if path.exists() else b"")
        os.link(attempt, second)
        os.replace(second, path)
        os.replace(attempt, own)

    # --- whose it is

    def clear_stale(self, now: float) -> None:
        """Move a lock aside that nobody holds any more. Raises ValueError when somebody does."""
        owner, age = read_lock(self.path), 0.0
        with contextlib.suppress(FileNotFoundError):
            age = now - self.path.stat().st_mtime
        if owner is None:  # gone since
            return
        if not (self.succeeds(owner) or died_here(owner) or not self.lives(owner, age)):
            raise ValueError(
                f"{self.folder}: job {owner['job']} on {owner['host']} works in this run folder (heartbeat "
                f"{max(age, 0):.0f} s ago): wait for it, cancel it, or give another --run"
            )
        aside = files.temporary(self.path)
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
            if read_lock(aside) != owner:  # another job was quicker: this is its lock
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink()

    def succeeds(self, owner: dict) -> bool:
        """Whether Slurm has started that job again: as this one. Two steps of one allocation are two jobs here."""
        if owner["job"] != self.job or self.job.startswith("local"):
            return False
        return self.owner["restart"] > owner.get("restart", 0)

    def lives(self, owner: dict, age: float) -> bool:
        """Whether the lock's holder beats. `age` of its last beat, by clocks that may differ: nobody is taken for dead
        who is seen to beat, and who seems young by an hour is watched for a while, too.
        """
        if age <= STALE_AFTER_S and not self.patient and age > -STALE_AFTER_S:
            return True
        seconds = STALE_AFTER_S - max(age, 0.0)
        if age > STALE_AFTER_S:
            seconds = min(WATCHED_BEATS * BEAT_INTERVAL_S, STALE_AFTER_S)
        log(f"train: {self.folder}: waiting {seconds:.0f} s for a sign of job {owner['job']} on {owner['host']}")
        return bool(seen_to_beat([self.path], seconds))

    def keep_beating(self) -> None:
        """In a thread, until the lock is given back."""
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()

    def _beat(self) -> None:
        while not self.ended.wait(BEAT_INTERVAL_S):
            with contextlib.suppress(OSError, ValueError):
                if self.is_ours():
                    os.utime(self.path)


def owner_of(job: str) -> dict:
    """What a lock says of its holder: this process. `token`: of this very start, whatever else comes again."""
    owner = {"job": job, "restart": int(os.environ.get("SLURM_RESTART_COUNT") or 0)}
    owner |= {"step": os.environ.get("SLURM_STEP_ID", ""), "host": platform.node(), "token": secrets.token_hex(8)}
    return owner | {"pid": os.getpid(), "namespace": namespace(), "birth": birth(os.getpid())}


def died_here(owner: dict) -> bool:
    """Whether the holder was a process of this node and is no more; of a container's processes nobody else can tell."""
    if owner["host"] != platform.node() or owner.get("namespace", namespace()) != namespace():
        return False
    return birth(owner["pid"]) != owner["birth"]


def birth(pid: int) -> str:
    """When a process of this node was started, in clock ticks since boot; empty if there is none. Pids come again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


def read_json(path: Path) -> dict | None:
    """A small file of a run; None where there is none. Raises ValueError with its name for a damaged one."""
    try:
        return files.read_json(path, "put a whole one in its place, or remove it")
    except FileNotFoundError:
        return None


def read_lock(path: Path) -> dict | None:
    """What a lock says of its holder; None where there is none. Of a damaged one nothing is known but that it beats."""
    try:
        held = read_json(path)
    except ValueError:
        held = {}
    return None if held is None else UNKNOWN | held


def beat_age(lock: Path) -> float | None:
    """Seconds since its holder's last beat, by the storage's clock where it can be asked; None when nobody holds it."""
    beat = modified(lock)
    return None if beat is None else clock_or_own(lock) - beat


def seems_to_beat(age: float | None) -> bool:
    """Whether a lock with this `beat_age` is one of a job that lives, as far as clocks tell, which may differ."""
    return age is not None and abs(age) <= STALE_AFTER_S


def living(locks: Iterable[Path], unknown: dict[Path, OSError] | None = None) -> set[Path]:
    """Those whose holders live. Clocks of nodes may differ by hours, and storage may stamp by them: a lock that seems
    to be left is watched for a little longer than from one beat to the next, all of them at once. `unknown`: takes
    those that can't be asked, with the error; without it that is raised.
    """
    ages = {}
    for lock in locks:
        try:
            ages[lock] = beat_age(lock)
        except OSError as error:
            if unknown is None:
                raise
            unknown[lock] = error
    young = {lock for lock, age in ages.items() if seems_to_beat(age)}
    left = {lock for lock, age in ages.items() if age is not None} - young
    return young | seen_to_beat(left, 1.5 * BEAT_INTERVAL_S, unknown)
