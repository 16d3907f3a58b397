"""Rendezvous of the ranks before their library starts: what is wrong is said on every rank, in bounded time.

A failing hvd.init() is no exception but an abort, minutes later. So rank 0 listens on its interface and publishes
where in FOLDER/rendezvous/KEY.json on shared storage; the others find the file, connect, and say who they are or what
is wrong with them. Rank 0 answers all with one verdict: where the library's own server is, or one error for everybody.
The connections stay open for those who want to know when another rank ends (jobs/distributed/lifeline.py).

A token in the file (mode 0600) signs every message and never travels: strangers, another job that came by the same
port, a port scan are ignored. Nothing of the data passes here.
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

LATE_FAILURE_WAIT_S = 2.0  # that rank 0 waits for the others once something is wrong, to tell all of it at once


@dataclass(frozen=True)
class About:
    """What a rank tells of itself; `error` is what keeps it from taking part."""

    device: str = "cpu"
    gpu: str = ""  # unique name of the GPU it takes
    versions: dict[str, str] = field(default_factory=dict)
    error: str = ""


class Server(Protocol):
    """What a library's processes find each other by (see jobs.distributed.collectives)."""

    port: int

    def stop(self) -> None: ...


# Serve(address, ports, hosts, allowed addresses): begins to listen
Serve = Callable[[str, range | None, list[tuple[str, int]], set[str]], Server]


@dataclass(frozen=True)
class Rendezvous:
    """The ranks have met: their library may start. `close` it when it has.

    `links`: of rank 0 a connection to each other rank, of another one to rank 0. `server`: rank 0's.
    """

    hosts: tuple[tuple[str, int], ...]
    interface: str
    address: str
    port: int
    links: dict[int, socket.socket] = field(default_factory=dict)
    server: Server | None = None
    close: Callable[[], None] = lambda: None


def rendezvous_of_ranks(place: Placement, folder: Path, settings: Settings, about: About, serve: Serve) -> Rendezvous:
    """Wait for all ranks of the world; a DistributedError if they cannot work together, the same one on every rank."""
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
        if not address:  # nobody can reach us: what is wrong stands in the file instead
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
            publish(file, verdict)  # for those that come late
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
    """Fill `hellos` (by rank) and `sockets` (to hello) until all ranks are there; what went wrong."""
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
    if missing and deadline == latest:  # else we stopped early, and the rest may well be on its way
        answered = ", ".join(dict.fromkeys(hello["host"] for hello in hellos.values()))
        ranks = f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
        problems.append(f"{ranks} did not start within {timeout:g} s (nodes that answered: {answered})")
    return problems + _told(list(unreached.values()))


def _hear(selector, key: selectors.SelectorKey, token: str, hellos: dict, sockets: dict) -> list[str]:
    """Read what came on one connection: a hello, a piece of one, the end of a rank that had said hello, or garbage."""
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
    """What ranks that could not reach us left in the folder; what an earlier start left has another token."""
    for path in file.parent.glob(f"{file.stem}.rank-*.error"):
        note = read(path)
        if note and note["token"] == token:
            yield note


def disagreements(hellos: dict[int, dict]) -> list[str]:
    """What the ranks that answered report or contradict each other in; empty if they can work together."""
    first, nodes = hellos[0], defaultdict(list)
    wrong = [hellos[rank] for rank in sorted(hellos)]  # not as they came: it reads the same each time
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
        # only once all are there can a node have the wrong number of ranks
        if len(hellos) == first["size"] and {hello["local_size"] for hello in group} != {len(group)}:
            wrong += [{**hello, "error": f"counts {hello['local_size']} ranks on its node"} for hello in group]
        if len({hello["local_rank"] for hello in group}) < len(group):
            wrong += [{**hello, "error": "shares its local rank with another"} for hello in group]
    return _told(wrong)


# --- the other ranks


def _join(file: Path, settings: Settings, hello: dict, interface: str, address: str) -> Rendezvous:
    deadline = time.monotonic() + settings.timeout
    patience = min(15.0, settings.timeout / 3)  # for an address that does not answer: it may be of an earlier start
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
                # rank 0 looks for it, collects what others have left, and answers in its own file
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
    """Rank 0's verdict, and the connection to it; an OSError if it cannot be reached, a DistributedError if it falls
    silent afterwards.
    """
    where, heard = (note["address"], note["port"]), bytearray()
    connection = socket.create_connection(where, min(5.0, patience), (source, 0) if source else None)
    try:
        connection.sendall(sign(note["token"], hello))
        connection.settimeout(wait)  # rank 0 has its own time limit for the ranks that are still missing
        # by bytes that are there, no more: what comes after it is another's to read. A list of hosts may be long
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


# --- small things that both need


def _who(hello: dict) -> str:
    return f"rank {hello['rank']} on {hello['host']}"


def _told(hellos: list[dict]) -> list[str]:
    """The errors that ranks report, each once, with those who report it."""
    errors = defaultdict(list)
    for hello in hellos:
        if hello["error"]:
            errors[hello["error"]].append(_who(hello))
    more = {error: f" and {len(who) - 3} more" if len(who) > 3 else "" for error, who in errors.items()}
    return [f"{', '.join(who[:3])}{more[error]}: {error}" for error, who in errors.items()]
