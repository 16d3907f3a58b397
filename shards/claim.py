"""A claim: many tasks need the result of one piece of work; one does it, the others wait.

The claim only saves work. Nothing that is right may hang on it: two tasks that both believe to hold it must commit the
same result.
"""

import contextlib
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from shards import files

STALE_AFTER_S = 60.0  # seconds without a heartbeat until a claim's holder is taken for dead


def take_turns(
    claim: Path, ready: Callable[[], bool], work: Callable[[], None], stale: float = STALE_AFTER_S, poll: float = 1.0
) -> None:
    """Return once `ready()` is true, after `work()` here or elsewhere.

    The holder of the file `claim` works; when it dies, somebody takes over: on its own node at once, elsewhere after
    `stale` seconds. A ValueError of `work()`, the fault of its input, is raised in all who waited for it too.
    """
    failed = claim.with_name(f"{claim.name}.failed")
    began = None  # to wait, by the clock of the storage: nodes' own clocks differ
    silence = Silence()
    while not ready():
        with hold(claim, stale / 6) as held:
            if began is not None and (reason := newer(failed, began)):
                raise ValueError(reason)
            if held:
                if not ready():
                    try:
                        work()
                    except ValueError as error:
                        with contextlib.suppress(OSError):
                            files.replace(failed, str(error))
                        raise
                failed.unlink(missing_ok=True)
                return
        began = began or clock(claim)
        quiet = silence.of(claim) or 0.0
        # what looks old is left once it was not seen to beat for a while; what looks young, too, after longer
        looks_left = quiet > stale / 4 and clock(claim) - (modified(claim) or math.inf) > stale
        if quiet > stale or looks_left or died_here(claim):
            remove(claim)
        else:
            time.sleep(poll)


class Silence:
    """For how long claims were not seen to beat, in seconds of this machine's steady clock, whatever other clocks say.
    Some storage stamps a file by the clock of the node that writes it, and clocks differ, by hours too.
    """

    def __init__(self):
        self.seen: dict[Path, tuple[float, float]] = {}  # the time of the claim's file, when that was first seen

    def of(self, claim: Path) -> float | None:
        """0 where it beat since the last call, and at the first one; None where there is no claim."""
        beat, now = modified(claim), time.monotonic()
        if beat is None:
            return None
        if beat != self.seen.get(claim, (None,))[0]:
            self.seen[claim] = beat, now
        return now - self.seen[claim][1]


def abandoned(claims: Iterable[Path], seconds: float) -> set[Path]:
    """The claims whose holders are gone: processes of this node that ended, and what does not beat for `seconds`. All
    are watched at once; it returns as soon as each was seen to beat."""
    silence = Silence()
    quiet = {claim for claim in claims if silence.of(claim) is not None}
    since = time.monotonic()
    while unsure := {claim for claim in quiet if not died_here(claim)}:
        time.sleep(min(0.2, seconds / 6))
        quiet -= {claim for claim in unsure if not silence.of(claim)}
        if time.monotonic() - since > seconds:
            break
    return quiet


def seen_to_beat(paths: Iterable[Path], seconds: float, unknown: dict[Path, OSError] | None = None) -> set[Path]:
    """Those of these files that are touched within so many seconds. All are watched at once; one that is removed
    doesn't beat. Those that can't be asked at the end are put into `unknown`; without it their error is raised.
    """
    failed: dict[Path, OSError] = {}
    before = {path: beat for path in paths if (beat := asked(path, failed)) is not None}
    deadline, beating = time.monotonic() + seconds, set()
    while before:
        time.sleep(min(0.2, seconds))
        errors: dict[Path, OSError] = {}
        now = {path: asked(path, errors) for path in before}
        beating |= {path for path, beat in now.items() if beat not in (before[path], None)}
        before = {path: beat for path, beat in before.items() if path in errors or now[path] == beat}
        if time.monotonic() >= deadline:
            failed |= errors
            break
    if unknown is None and failed:
        raise next(iter(failed.values()))
    if unknown is not None:
        unknown |= failed
    return beating


def asked(path: Path, failed: dict[Path, OSError]) -> float | None:
    """As `modified`; where that raises, None, and the error is put into `failed`."""
    try:
        return modified(path)
    except OSError as error:
        failed[path] = error
        return None


@contextlib.contextmanager
def hold(claim: Path, beat: float) -> Iterator[bool]:
    """-> whether the claim is ours; then its time is renewed every `beat` seconds until the end, when it is removed."""
    try:
        handle = os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
    except FileExistsError:
        yield False
        return
    try:
        with files.named(claim):
            os.write(handle, f"{socket.gethostname()} {os.getpid()} {namespace()}".encode())
    except OSError:  # a full disk: who can't say that it works doesn't
        os.close(handle)
        claim.unlink(missing_ok=True)
        raise
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(beat):
            with contextlib.suppress(OSError):
                os.utime(handle)  # by the storage's clock

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield True
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(claim)):  # else somebody took us for dead
                os.unlink(claim)
        os.close(handle)


def clock(claim: Path) -> float:
    """The time on the storage where the claim lies, in seconds since 1970: the time of a file that is made there
    now."""
    probe = private(claim)
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
        return os.stat(probe).st_mtime
    finally:
        probe.unlink(missing_ok=True)


def clock_or_own(place: Path) -> float:
    """The same; this machine's time where no file may be made there."""
    try:
        return clock(place)
    except OSError:
        return time.time()


def modified(path: Path) -> float | None:
    """When the file was last written or touched, in seconds since 1970; None where there is none."""
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return None


def namespace() -> str:
    """In which process ids mean what they mean here: this start of this kernel, and the container's own there, if this
    is one. Host names tell less: containers and nodes may share one. Empty where the system does not say.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def died_here(claim: Path) -> bool:
    """Whether the holder was a process of this node and is no more; of a container's processes nobody else can tell."""
    try:
        host, pid, *of = claim.read_text(encoding="utf-8").split()
        if host == socket.gethostname() and " ".join(of) == namespace():
            os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):  # the claim went away, or is being written; another user's process
        return False
    return False


def newer(path: Path, time: float) -> str:
    """The file's content if it was written after `time`."""
    written = modified(path)
    return path.read_text(encoding="utf-8") if written is not None and written > time else ""


def remove(claim: Path) -> None:
    """Remove a claim whose holder is gone. It is renamed to a private name first: of several processes that find it so,
    one alone removes it."""
    away = private(claim)
    with contextlib.suppress(FileNotFoundError):
        os.rename(claim, away)
        os.unlink(away)


def private(claim: Path) -> Path:
    """A name beside the claim that no other process has."""
    return claim.with_name(f"{claim.name}.{secrets.token_hex(8)}.tmp")
