"""Rendezvous of the ranks before their library starts: every rank reports the same error, in bounded time.

A failing hvd.init() is no exception but an abort, minutes later. So the ranks check everything before. Rank 0 listens
on its interface and publishes its address in FOLDER/rendezvous/KEY.json on shared storage. The others read the file,
connect, and send who they are, or their error. Rank 0 answers all with one verdict: the address of the library's own
server, or one error for all. The connections stay open, to notice when a rank ends (jobs/distributed/lifeline.py).

A token in the file (mode 0600) signs every message and is never sent. Other senders are ignored: other jobs at the same
port, port scans. Nothing of the data passes here.
"""

import secrets
import selectors
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from jobs.distributed.messages import MAX_MESSAGE_BYTES, check, publish, read, sign
from jobs.distributed.network import Settings, addresses, bind, choose_interface, listen, shown
from jobs.distributed.placement import DistributedError, Placement

LATE_FAILURE_WAIT_S = 2.0  # after a first error rank 0 waits so long for others, to report all of them at once


@dataclass(frozen=True)
class About:
    """What a rank tells of itself. `error`: why it can't take part, "" if it can."""

    device: str = "cpu"
    gpu: str = ""  # unique name of the GPU it takes
    versions: dict[str, str] = field(default_factory=dict)
    error: str = ""


class Server(Protocol):
    """The rendezvous server of a library of collectives (see jobs.distributed.collectives)."""

    port: int

    def stop(self) -> None: ...


# Serve(address, ports, hosts, allowed addresses): starts such a server
Serve = Callable[[str, range | None, list[tuple[str, int]], set[str]], Server]


@dataclass(frozen=True)
class Rendezvous:
    """All ranks have met, and their library may start. Call `close` when it has.

    `links`: connections by rank, of rank 0 to each other rank, of another rank to rank 0. `server`: of rank 0.
    """

    hosts: tuple[tuple[str, int], ...]
    interface: str
    address: str
    port: int
    links: dict[int, socket.socket] = field(default_factory=dict)
    server: Server | None = None
    close: Callable[[], None] = lambda: None


def rendezvous_of_ranks(place: Placement, folder: Path, settings: Settings, about: About, serve: Serve) -> Rendezvous:
    """Wait for all ranks. Raises a DistributedError if they can't work together, the same one on every rank."""
    file = folder / "rendezvous" / f"{place.key}.json"
    try:
        interface, address = choose_interface(place, settings.interface)
    except DistributedError as error:
        interface, address = "", ""
        about = About(about.device, about.gpu, about.versions, "; ".join(filter(None, [str(error), about.error])))
    hello = {
        **{name: getattr(place, name) for name in ("rank", "size", "host", "local_rank", "local_size")},
        **vars(about),
        "addresses": [address for known in addresses().values() for address in known],
    }
    if place.rank == 0:
        return _lead(file, settings, hello, interface, address, serve)
    return _join(file, settings, hello, interface, address)


# --- rank 0


def _lead(file: Path, settings: Settings, hello: dict, interface: str, address: str, serve: Serve) -> Rendezvous:
    hellos, sockets, token = {0: hello}, {}, secrets.token_hex(32)
    verdict: dict = {}
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not address:  # no rank can connect: the error is published in the file
            raise DistributedError(*_told([hello]))
        with closing(bind(address, settings.ports, listen)) as listener:
            port = listener.getsockname()[1]
            publish(file, {"address": address, "port": port, "interface": interface, "token": token})
            problems = _collect(listener, token, file, settings.timeout, hellos, sockets)
        problems += disagreements(hellos)
        if problems:
            raise DistributedError("; ".join(problems))
        hosts = Counter(hellos[rank]["host"] for rank in sorted(hellos))
        allowed = {address for said in hellos.values() for address in said["addresses"]}
        server = serve(address, settings.ports, list(hosts.items()), allowed)
        verdict = {"hosts": list(hosts.items()), "address": address, "port": server.port}
    except (DistributedError, OSError) as error:
        verdict = {"error": str(error) if isinstance(error, DistributedError) else f"{_who(hello)}: {error}"}
        with suppress(OSError):
            publish(file, verdict)  # for ranks that come late
        raise DistributedError(verdict["error"]) from None
    finally:
        for connection in sockets:
            with suppress(OSError):
                connection.settimeout(5)
                connection.sendall(sign(token, verdict or {"error": "rank 0 was stopped while the ranks met"}))
            if "port" not in verdict:
                connection.close()

    def close() -> None:
        server.stop()
        for leftover in file.parent.glob(f"{file.stem}.*"):
            leftover.unlink(missing_ok=True)

    links = {hello["rank"]: connection for connection, hello in sockets.items()}
    return Rendezvous(tuple(hosts.items()), interface, address, server.port, links, server, close)


def _collect(listener, token: str, file: Path, timeout: float, hellos: dict, sockets: dict) -> list[str]:
    """Fill `hellos` (by rank) and `sockets` (socket to hello) until all ranks are there -> errors."""
    size, problems, unreached = hellos[0]["size"], [], {}
    latest = deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ)
        while len(hellos) < size and time.monotonic() < deadline:
            for key, _ in selector.select(timeout=0.2):
                with suppress(OSError):
                    if key.fileobj is listener:
                        connection, _ = listener.accept()
                        connection.setblocking(False)
                        selector.register(connection, selectors.EVENT_READ, bytearray())
                    else:
                        problems += _hear(selector, key, token, hellos, sockets)
            unreached |= {note["rank"]: note for note in _notes(file, token)}
            note = read(file) or {"token": token}
            if note.get("token") != token:
                return [note.get("error", "rank 0 was started twice")]
            if deadline == latest and (problems or unreached or disagreements(hellos)):
                deadline = time.monotonic() + LATE_FAILURE_WAIT_S
    missing = [rank for rank in range(size) if rank not in hellos and rank not in unreached]
    if missing and deadline == latest:  # otherwise it stopped early, and they may still be on their way
        answered = ", ".join(dict.fromkeys(hello["host"] for hello in hellos.values()))
        ranks = f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
        problems.append(f"{ranks} did not start within {timeout:g} s (nodes that answered: {answered})")
    return problems + _told(list(unreached.values()))


def _hear(selector, key: selectors.SelectorKey, token: str, hellos: dict, sockets: dict) -> list[str]:
    """Read from a connection: a hello, a part of one, the end of a rank that had sent one, or garbage -> errors."""
    connection, heard = key.fileobj, key.data
    piece = connection.recv(MAX_MESSAGE_BYTES)
    heard += piece
    known = sockets.get(connection)
    if known and not piece:
        selector.unregister(connection)
        return [f"{_who(known)} ended while it waited for the others"]
    if known or (piece and b"\n" not in heard and len(heard) < MAX_MESSAGE_BYTES):
        return []
    hello = check(token, bytes(heard))
    if hello is None:
        selector.unregister(connection)
        connection.close()
        return []
    sockets[connection] = hello
    hello["addresses"].append(connection.getpeername()[0])
    other = hellos.setdefault(hello["rank"], hello)
    return [] if other is hello else [f"{_who(other)} was started a second time, on {hello['host']}"]


def _notes(file: Path, token: str) -> Iterator[dict]:
    """The error files of ranks that could not connect; files of an earlier start have another token."""
    for path in file.parent.glob(f"{file.stem}.rank-*.error"):
        note = read(path)
        if note and note["token"] == token:
            yield note


def disagreements(hellos: dict[int, dict]) -> list[str]:
    """Errors that ranks report, and contradictions between ranks; [] if they can work together."""
    first, nodes = hellos[0], defaultdict(list)
    wrong = [hellos[rank] for rank in sorted(hellos)]  # by rank, so that the message is always the same
    for hello in wrong[:]:
        nodes[hello["host"]].append(hello)
        if hello["size"] != first["size"]:
            wrong.append({**hello, "error": f"counts {hello['size']} ranks, rank 0 counts {first['size']}"})
        if hello["device"] != first["device"] and not hello["error"] and not first["error"]:
            wrong.append({**hello, "error": f"works on {hello['device']}, rank 0 on {first['device']}"})
        for name, version in hello["versions"].items():
            if version != first["versions"].get(name):
                wrong.append({**hello, "error": f"has {name} {version}, rank 0 has {first['versions'].get(name)}"})
    for group in nodes.values():
        gpus = [hello["gpu"] for hello in group if hello["gpu"]]
        cards = [gpu.partition("/")[0] for gpu in gpus]
        if len(set(gpus)) < len(gpus):
            wrong += [{**hello, "error": "shares its GPU: start as many tasks a node as GPUs"} for hello in group]
        elif len(set(cards)) < len(cards):
            said = "has a part of a card (MIG) that another rank has a part of: NCCL can't sum between these; give one "
            wrong += [{**hello, "error": f"{said}part a card, whole GPUs, or set HTR_SHARED_GPU=1"} for hello in group]
        # the number of ranks on a node can be wrong only when all are there
        if len(hellos) == first["size"] and {hello["local_size"] for hello in group} != {len(group)}:
            wrong += [{**hello, "error": f"counts {hello['local_size']} ranks on its node"} for hello in group]
        if len({hello["local_rank"] for hello in group}) < len(group):
            wrong += [{**hello, "error": "shares its local rank with another"} for hello in group]
    return _told(wrong)


# --- the other ranks


def _join(file: Path, settings: Settings, hello: dict, interface: str, address: str) -> Rendezvous:
    deadline = time.monotonic() + settings.timeout
    patience = min(15.0, settings.timeout / 3)  # with an address that does not answer: it may be an older one
    tried, since, trouble, left = "", 0.0, hello["error"], {}
    while time.monotonic() < deadline:
        note = read(file)
        if note is None:
            time.sleep(0.3)
            continue
        if "error" in note:
            raise DistributedError(note["error"])
        if note["token"] != tried:
            tried, since = note["token"], time.monotonic()
        try:
            verdict, link = _ask(note, hello, address, patience, settings.timeout + 10)
        except OSError as error:
            trouble = hello["error"] or (
                f"cannot reach rank 0 at {shown(note)} (its {note['interface']}) over {interface}: "
                f"{error.strerror or error}; is HTR_IFACE right, are the ports HTR_PORTS open between the nodes?"
            )
            if time.monotonic() - since > patience and not left:
                left = {"token": tried, "rank": hello["rank"], "host": hello["host"], "error": trouble}
                with suppress(OSError):
                    publish(file.with_suffix(f".rank-{hello['rank']}.error"), left)
                # rank 0 collects the error files of all ranks, and answers in its own file
                deadline = min(deadline, time.monotonic() + LATE_FAILURE_WAIT_S + 3)
            time.sleep(0.3)
            continue
        if "error" in verdict:
            link.close()
            raise DistributedError(verdict["error"])
        hosts = tuple(map(tuple, verdict["hosts"]))
        return Rendezvous(hosts, interface, verdict["address"], verdict["port"], {0: link})
    if trouble:
        raise DistributedError(*_told([{**hello, "error": trouble}]))
    late = f"rank 0 did not start within {settings.timeout:g} s (no {file.name} in {file.parent}:"
    raise DistributedError(f"{late} do all nodes share this folder?)")


def _ask(note: dict, hello: dict, source: str, patience: float, wait: float) -> tuple[dict, socket.socket]:
    """-> the verdict of rank 0, and the connection to it. Raises an OSError if it can't be reached, and a
    DistributedError if it does not answer afterwards.
    """
    where, heard = (note["address"], note["port"]), bytearray()
    connection = socket.create_connection(where, min(5.0, patience), (source, 0) if source else None)
    try:
        connection.sendall(sign(note["token"], hello))
        connection.settimeout(wait)  # rank 0 has its own time limit for the ranks that are still missing
        # read no byte after the verdict: those are for the lifeline. A list of hosts may be long
        while not heard.endswith(b"\n") and len(heard) < MAX_MESSAGE_BYTES * 16:
            ahead = connection.recv(MAX_MESSAGE_BYTES, socket.MSG_PEEK)
            if not ahead:
                break
            heard += connection.recv(ahead.find(b"\n") + 1 or len(ahead))
        verdict = check(note["token"], bytes(heard))
        if verdict is None:
            raise ConnectionError("it closed the connection without an answer")
        return verdict, connection
    except BaseException as error:
        connection.close()
        if not isinstance(error, TimeoutError):
            raise
        raise DistributedError(f"rank 0 at {shown(note)} stopped answering for {wait:g} s") from None


# --- used by both


def _who(hello: dict) -> str:
    return f"rank {hello['rank']} on {hello['host']}"


def _told(hellos: list[dict]) -> list[str]:
    """The errors of these ranks, each once, with the ranks that report it."""
    errors = defaultdict(list)
    for hello in hellos:
        if hello["error"]:
            errors[hello["error"]].append(_who(hello))
    more = {error: f" and {len(who) - 3} more" if len(who) > 3 else "" for error, who in errors.items()}
    return [f"{', '.join(who[:3])}{more[error]}: {error}" for error, who in errors.items()]
