"""The lifeline: which rank is lost. Each rank keeps its connection to rank 0 from the rendezvous; both ends send beats.

A process that dies closes its connection at once. One that is stopped, or whose node has failed, sends no more beats,
and counts as lost after `silent_after` seconds. Rank 0 tells the others. So every rank ends with the same line, which
names the lost rank and its host, whatever the library of collectives reports.

At the end of the work the ranks leave together. A rank that has its last sum would close its connections of Gloo, and a
rank that is still in that sum would take this for the end of a process. So each says goodbye, and stays until all have.

A process that is alive but takes no step is not noticed here, since its thread goes on sending beats. The watchdog ends
such a process, and also a rank that waits inside a kernel of NCCL, where it can't react (see watchdog.py).
"""

import contextlib
import os
import selectors
import socket
import sys
import threading
import time

BEAT_S = 2.0  # between two beats
VERDICT_WITHIN_S = 5.0  # wait for rank 0 to name the lost rank, once a collective has failed
LEAVE_WITHIN_S = 30.0  # wait for the goodbyes of all: rank 0 may write files when the others are done
GRACE_S = 10.0  # wait for the main thread to raise the verdict; after that it is printed


class Lifeline:
    """A thread of this rank. `links`: connections by rank: of rank 0 to all others, of another rank {0: …}."""

    def __init__(self, rank: int, hosts: list[str], links: dict[int, socket.socket], silent_after: float) -> None:
        """`hosts`: the host of each rank. `silent_after`: seconds without a beat after which a rank is lost."""
        self.rank, self.hosts, self.links, self.silent_after = rank, hosts, dict(links), silent_after
        self.verdict = ""  # which rank was lost first, and how
        self.known, self.ended, self.noticed = threading.Event(), threading.Event(), threading.Event()
        self.staying = set(self.links)  # the peers that have not said goodbye
        self.over = threading.Event()  # there is no peer to wait for: all have said goodbye, or one is lost
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
        """The thread: receive and send beats until the end."""
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
                if (
                    now - before > 3 * BEAT_S
                ):  # this process itself was stopped, and has yet to read what came meanwhile
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
                    with contextlib.suppress(OSError):  # of a log that takes no line
                        print(f"error: {self.verdict}", file=sys.stderr, flush=True)

    def receive(self, link: socket.socket) -> bytes:
        """-> the next bytes; b"" where the connection has ended."""
        try:
            return link.recv(65536)
        except OSError:
            return b""

    def hear(self, line: bytes) -> bool:
        """Take a line of a peer -> whether it is a goodbye."""
        if line.startswith(b"lost "):
            _, rank, why = line.decode().split(" ", 2)
            self.lose(int(rank), why)
        return line == b"bye"

    def lose(self, rank: int, why: str) -> None:
        """Note the first rank that is lost; rank 0 tells the others."""
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
        """-> the lost rank and why, in words, after a short wait for it to be known; "" if none is."""
        self.known.wait(VERDICT_WITHIN_S)
        self.noticed.set()
        return self.verdict

    def close(self, failed: bool) -> None:
        """End the thread. `failed`: without a goodbye, so that the others notice; otherwise after `leave`."""
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
        """Say goodbye, and wait until all others have. Rank 0 receives theirs, and is the last to say it."""
        if self.rank:
            self.send(b"bye\n")
        self.over.wait(LEAVE_WITHIN_S)
        if not self.rank:
            self.send(b"bye\n")

    def drop(self) -> None:
        """Close the connections; also in a forked child, which would keep that of a dead rank open."""
        for link in [*self.links.values(), *self.wake]:
            with contextlib.suppress(OSError):
                link.close()
