"""Who is lost: each rank keeps the connection to rank 0 by which they met, and both ends beat on it.

A process that dies closes its connection at once, whoever waits for whom. One that is stopped, or whose node is gone,
beats no more; after `silent_after` seconds it counts as lost. Rank 0 tells the others. So every rank ends with the same
line, which names a rank and its host, whatever a library of collectives says of it, or does not.

At the end of the work the ranks leave together. A rank that has its last sum closes its connections of Gloo, and one
that is still in that sum would take this for the end of a process. So each says goodbye, and stays until all have.

A process that lives and takes no step is not noticed here: its thread goes on beating. The watchdog ends that one, and
a rank that waits inside a kernel of NCCL's, where it comes to no verdict (see watchdog.py).
"""

import contextlib
import os
import selectors
import socket
import sys
import threading
import time

BEAT_S = 2.0  # between two signs of life
VERDICT_WITHIN_S = 5.0  # for rank 0's word on who was lost, once a collective has failed
LEAVE_WITHIN_S = 30.0  # for the goodbyes of all: rank 0 may have files to write when the others are done
GRACE_S = 10.0  # for the main thread to come to the verdict and raise it; then it is at least printed


class Lifeline:
    """A thread of this rank. `links`: rank 0's connections by rank; another's to rank 0, as {0: …}."""

    def __init__(self, rank: int, hosts: list[str], links: dict[int, socket.socket], silent_after: float) -> None:
        """`hosts`: of each rank."""
        self.rank, self.hosts, self.links, self.silent_after = rank, hosts, dict(links), silent_after
        self.verdict = ""  # which rank was lost first, and how
        self.known, self.ended, self.noticed = threading.Event(), threading.Event(), threading.Event()
        self.staying = set(self.links)  # the peers that have not said goodbye
        self.over = threading.Event()  # nobody is to be waited for: all have said goodbye, or one is lost
        if not self.staying:
            self.over.set()
        self.lock = threading.Lock()  # of what is sent: the main thread says goodbye
        self.wake = socket.socketpair()
        for link in self.links.values():
            link.settimeout(1.0)
        os.register_at_fork(after_in_child=self.drop)
        self.thread = threading.Thread(target=self.watch, daemon=True, name="lifeline")
        self.thread.start()

    def watch(self) -> None:
        heard = dict.fromkeys(self.links, time.monotonic())
        pieces = dict.fromkeys(self.links, b"")
        before = beat = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self.wake[0], selectors.EVENT_READ, None)
            for peer, link in self.links.items():
                selector.register(link, selectors.EVENT_READ, peer)
            while not self.ended.is_set():
                for key, _ in selector.select(BEAT_S / 2):
                    if key.data is None:
                        continue
                    data = self.receive(key.fileobj)
                    if data:
                        heard[key.data] = time.monotonic()
                        *lines, pieces[key.data] = (pieces[key.data] + data).split(b"\n")
                        gone = [self.hear(line) for line in lines]
                    if not data or any(gone):  # the end of a process, or its goodbye: it still waits for ours
                        selector.unregister(key.fileobj)
                        heard.pop(key.data, None)
                        if not data:
                            self.lose(key.data, "ended")
                        self.staying.discard(key.data)
                        if not self.staying:
                            self.over.set()
                now = time.monotonic()
                if now - before > 3 * BEAT_S:  # this process itself was stopped, and has not read yet what came
                    heard = dict.fromkeys(heard, now)
                before = now
                if now - beat >= BEAT_S:
                    beat = now
                    self.send(b".\n")
                for peer, last in list(heard.items()):
                    if now - last > self.silent_after:
                        self.lose(peer, f"has given no sign of life for {self.silent_after:.0f} s")
                        heard.pop(peer)
                if self.known.is_set() and now - self.since > GRACE_S and not self.noticed.is_set():
                    self.noticed.set()
                    print(f"error: {self.verdict}", file=sys.stderr, flush=True)

    def receive(self, link: socket.socket) -> bytes:
        """Empty at its end."""
        try:
            return link.recv(65536)
        except OSError:
            return b""

    def hear(self, line: bytes) -> bool:
        """Whether the peer says goodbye."""
        if line.startswith(b"lost "):
            _, rank, why = line.decode().split(" ", 2)
            self.lose(int(rank), why)
        return line == b"bye"

    def lose(self, rank: int, why: str) -> None:
        if self.known.is_set():
            return
        self.verdict = f"rank {rank} on {self.hosts[rank]} {why}; if that comes again, --exclude={self.hosts[rank]}"
        self.since = time.monotonic()
        if self.rank == 0:
            self.send(f"lost {rank} {why}\n".encode())
        self.known.set()
        self.over.set()

    def send(self, line: bytes) -> None:
        with self.lock:
            for link in list(self.links.values()):
                with contextlib.suppress(OSError):
                    link.sendall(line)

    def blame(self) -> str:
        """Who was lost; empty where nobody was, after a short wait for rank 0's word."""
        self.known.wait(VERDICT_WITHIN_S)
        self.noticed.set()
        return self.verdict

    def close(self, failed: bool) -> None:
        """`failed`: without a goodbye, so that the others hear of an end too early. Else with theirs, see `leave`."""
        if failed and self.rank == 0 and self.known.is_set():
            time.sleep(0.1)  # the others hear the verdict before they see rank 0 end
        if not failed:
            self.leave()
        self.noticed.set()
        self.ended.set()
        with contextlib.suppress(OSError):
            self.wake[1].send(b".")
        self.thread.join(5.0)
        self.drop()

    def leave(self) -> None:
        """Say goodbye, and wait until all others have: rank 0 hears them, and is the last to say it."""
        if self.rank:
            self.send(b"bye\n")
        self.over.wait(LEAVE_WITHIN_S)
        if not self.rank:
            self.send(b"bye\n")

    def drop(self) -> None:
        """Also in a forked child, which would hold a dead rank's connection open."""
        for link in [*self.links.values(), *self.wake]:
            with contextlib.suppress(OSError):
                link.close()
