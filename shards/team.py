"""The workers of a rank: processes that make batches in memory which they share with it, or a thread of its own.

Pixels never pass a pipe: a batch lies in a region of a memory file that all have mapped, and is given back when the
last tensor that looks at it is gone.
"""

import contextlib
import mmap
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Pipe
from pathlib import Path

import numpy as np

from shards.batcher import AugmentConfig, DamagedText
from shards.open_shards import MAX_OPEN, OpenShards, others
from shards.worker import IGNORED, NOTE_BYTES, Desk, Memory

GRAIN = mmap.ALLOCATIONGRANULARITY
PIECE_BYTES = 32 << 20  # by which the shared memory grows, at least: pages that nobody writes to take no memory


class Region:
    """A piece of the shared memory, for a batch at a time. `offset`: in all of it, `place`: in what is mapped here."""

    def __init__(self, mapped: mmap.mmap, place: int, offset: int, size: int):
        self.mapped, self.place, self.offset, self.size = mapped, place, offset, size

    def batch(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.frombuffer(self.mapped, np.uint8, int(np.prod(shape)), self.place).reshape(shape)


class Regions:
    """Of a memory file without a name: nothing is left of it when the last of its processes has ended."""

    def __init__(self, workers: int, pin: Callable[[np.ndarray], None] | None = None):
        self.handle = os.memfd_create("batches", os.MFD_CLOEXEC)
        self.pin = pin
        self.end = self.mapped_to = 0
        self.free: dict[int, list[Region]] = {}
        self.notes = self.take(NOTE_BYTES * workers)  # what each worker reads now

    def take(self, size: int) -> Region:
        """One of the next of eight sizes an octave."""
        grain = max(1 << max(size.bit_length() - 4, 0), GRAIN)
        size = -(-max(size, 1) // grain) * grain
        if self.free.get(size):
            return self.free[size].pop()
        if self.end + size > self.mapped_to:
            self.grow(size)
        offset, self.end = self.end, self.end + size
        return Region(self.mapped, offset - self.start, offset, size)

    def grow(self, size: int) -> None:
        """In large pieces: a mapping holds an open file."""
        self.start, self.end = self.mapped_to, self.mapped_to
        self.mapped_to += max(size, PIECE_BYTES)
        os.ftruncate(self.handle, self.mapped_to)
        self.mapped = mmap.mmap(self.handle, self.mapped_to - self.start, offset=self.start)
        if self.pin:
            self.pin(np.frombuffer(self.mapped, np.uint8))

    def give_back(self, region: Region) -> None:
        self.free.setdefault(region.size, []).append(region)


class Team:
    """So many workers; 0: a thread of this process, for what is small. A context; streams take turns with it.

    Of the streams that are open at once each hears of its own batches alone. For one thread.
    """

    def __init__(self, workers: int, pin: Callable[[np.ndarray], None] | None = None):
        """`pin`: makes memory one that a device copies from by itself; called once for each piece."""
        self.size = max(workers, 1)
        self.streams = 0
        self.said: dict[int, deque] = {}
        self.regions = Regions(self.size, pin)
        self.members: list[Process | Thread] = []
        most_open = MAX_OPEN // self.size
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, self.regions.handle)
            self.selector = stack.enter_context(selectors.DefaultSelector())
            for number in range(self.size):
                handle = self.regions.handle
                member = Process(handle, number, most_open) if workers else Thread(handle, most_open)
                stack.callback(member.close)
                self.members.append(member)
                if workers:
                    self.selector.register(member.connection, selectors.EVENT_READ, number)
            others.append(self.shards_under_way)
            stack.callback(others.remove, self.shards_under_way)
            self.stack = stack.pop_all()

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.stack.close()

    def open_stream(self, look: AugmentConfig, kept: list[Path | None]) -> int:
        """-> the number of a stream."""
        self.streams += 1
        self.said[self.streams] = deque()
        for member in self.members:
            member.send((self.streams, "open", look, kept))
        return self.streams

    def end(self, stream: int) -> None:
        """Once no worker is at a batch of it any more."""
        with contextlib.suppress(OSError):  # of a worker that has ended
            for number in range(self.size):
                self.tell(number, stream, "close")
            left = self.size
            while left:
                self.said[stream] or self.receive()
                left -= self.said[stream].popleft()[1] == "closed"
        del self.said[stream]

    def tell(self, member: int, stream: int, what: str, *given) -> None:
        self.members[member].send((stream, what, *given))

    def hear(self, stream: int):
        """-> (worker's number, what it has made next for this stream). Raises DamagedText, and what went wrong in a
        worker."""
        while not self.said[stream]:
            self.receive()
        member, what, given = self.said[stream].popleft()
        if what == "damaged":
            raise DamagedText(given)
        if what == "failed":
            raise given
        return member, given

    def receive(self) -> None:
        """Wait until something is said, and leave it to the stream that it is for."""
        if isinstance(self.members[0], Thread):
            heard = [(0, self.members[0].answers.get())]
        else:
            heard = [(key.data, self.members[key.data].receive()) for key, _ in self.selector.select()]
        for member, (stream, what, given) in heard:
            if stream in self.said:
                self.said[stream].append((member, what, given))

    def shards_under_way(self) -> list[str]:
        notes = self.regions.notes.batch((self.size, NOTE_BYTES))
        return [name for note in notes for name in note.tobytes().split(b"\0")[0].decode().split()]

    def cpu_seconds(self) -> float:
        """That the worker processes have had since they began."""
        return sum(member.cpu_seconds() for member in self.members)


class Process:
    """A worker as a process: a new program, so that no lock of a thread, no CUDA and no Horovod comes along."""

    def __init__(self, memory: int, number: int, most_open: int):
        self.connection, theirs = Pipe()
        handles = theirs.fileno(), memory
        paths = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "shards.worker", *map(str, (*handles, number, most_open))]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)  # until it ignores them itself
        try:
            self.process = subprocess.Popen(command, pass_fds=handles, stdin=subprocess.DEVNULL, env=environ)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def send(self, message: tuple) -> None:
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise self.ended() from None

    def receive(self) -> tuple:
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self.ended() from None

    def ended(self) -> OSError:
        code = self.process.wait()
        why = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit status {code}"
        hint = ": the node has too little memory for so many --workers" if code == -signal.SIGKILL else ""
        return OSError(f"a worker that decodes images was ended by {why}{hint}")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.connection.close()  # what it waits for: it ends
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:  # in a read that storage does not answer
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)


class Thread:
    """The same work in this process, one message after the other."""

    def __init__(self, memory: int, most_open: int):
        self.desk = Desk(Memory(memory), OpenShards(most_open))
        self.answers: queue.SimpleQueue = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.work, name="stream", daemon=True)
        self.thread.start()

    def work(self) -> None:
        for said in self.desk.answers():
            self.answers.put(said)

    def send(self, message: tuple) -> None:
        self.desk.put(message)

    def cpu_seconds(self) -> float:
        return 0.0

    def close(self) -> None:
        self.desk.put(None)
        self.thread.join()


def given_out(regions: Regions, region: Region, array: np.ndarray) -> np.ndarray:
    """The region's array, which gives it back when nothing looks at it any more."""
    weakref.finalize(array, regions.give_back, region).atexit = False
    return array
