"""A process that makes parts of batches: python -m shards.worker CONNECTION MEMORY NUMBER OPEN (see shards.team).

It is started as a new program, not forked: nothing of a process with threads, Horovod or CUDA is inherited. It ends
when the other end of its connection is closed, however that process ended; signals are for that one to answer.
"""

import mmap
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection

import cv2
import numpy as np

from shards.batcher import Batcher, DamagedText
from shards.open_shards import OpenShards, shards_under_way
from shards.ready import ReadyLines

NOTE_BYTES = 256  # at the memory's beginning, of each worker: the shards that it reads now
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Memory:
    """Batches, shared with the process that asked for them; it grows there."""

    def __init__(self, handle: int):
        self.handle = handle
        self.mapped: mmap.mmap | None = None

    def batch(self, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        if self.mapped is None or offset + count > len(self.mapped):
            self.mapped = mmap.mmap(self.handle, os.fstat(self.handle).st_size)
        return np.frombuffer(self.mapped, np.uint8, count, offset).reshape(shape)


class Desk:
    """What is told to a worker, and what it answers; a message is (stream, what, …)."""

    def __init__(self, memory: Memory, shards: OpenShards):
        self.memory, self.shards = memory, shards
        self.messages: queue.SimpleQueue = queue.SimpleQueue()
        self.batchers: dict[int, Batcher] = {}
        self.ended: set[int] = set()  # streams whose batches nobody waits for

    def put(self, message: tuple | None) -> None:
        if message and message[1] == "close":
            self.ended.add(message[0])  # at once, before the batches that were asked for
        if message and message[1] == "make":
            for part in message[2]:
                self.messages.put((*message[:2], *part))
        else:
            self.messages.put(message)

    def answers(self) -> Iterator[tuple]:
        while (message := self.messages.get()) is not None:
            stream, what, *given = message
            try:
                said = self.answer(stream, what, *given)
            except DamagedText as error:
                said = "damaged", error.args[0]
            except Exception as error:
                said = "failed", error
            if said:
                yield stream, *said
        for batcher in self.batchers.values():
            batcher.close()
        self.shards.close()

    def answer(self, stream: int, what: str, *given) -> tuple | None:
        if what == "open":
            look, kept = given
            ready = {folder: ReadyLines(folder, look.height) for folder in {*kept} if folder}
            self.batchers[stream] = Batcher(look, [ready.get(folder) for folder in kept], self.shards)
        elif what == "close":
            self.batchers.pop(stream).close()
            self.ended.discard(stream)
            return "closed", None
        elif stream in self.ended:
            return None
        elif what == "share":
            self.batchers[stream].take(*given)
        elif what == "begin":
            self.batchers[stream].begin(*given)
        elif what == "release":
            self.batchers[stream].release(*given)
        elif what == "make":
            part, offset, shape = given
            return "made", self.batchers[stream].make(part, self.memory.batch(offset, shape))
        return None


def write_note(place: np.ndarray) -> None:
    """The shards that this process reads now, for who waits for it."""
    names = " ".join(shards_under_way()).encode()[: NOTE_BYTES - 1]
    place[: len(names) + 1] = np.frombuffer(names + b"\0", np.uint8)


def receive(connection: Connection, desk: Desk) -> None:
    """Always ready to be told something: else two that tell each other much would wait for ever."""
    while True:
        try:
            desk.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)


def main() -> None:
    for each in IGNORED:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)  # see shards.team
    handle, place, number, most_open = map(int, sys.argv[1:])
    cv2.setNumThreads(1)
    memory = Memory(place)
    note = memory.batch(NOTE_BYTES * number, (NOTE_BYTES,))
    connection, desk = Connection(handle), Desk(memory, OpenShards(most_open, lambda: write_note(note)))
    threading.Thread(target=receive, args=(connection, desk), daemon=True).start()
    for said in desk.answers():
        try:
            connection.send(said)
        except OSError:  # nobody is there any more
            os._exit(0)


if __name__ == "__main__":
    main()
