"""The ways between nodes, tried by the doctor: by connecting, over the interface that ranks would take and others."""

import socket
import threading
import time
from contextlib import suppress

from jobs.distributed.network import Settings, bind, choose_interface, interfaces, is_loopback
from jobs.distributed.network import listen as listen_at
from jobs.distributed.placement import Placement

CONNECT_TIMEOUT_S = 5.0  # of an interface that ranks would not take
MAX_WAYS = 6  # interfaces beside it that are tried: containers and bridges may be many


def listen(token: str) -> dict:
    """Answer with the token at a port of the site's, at the address that ranks would take. Raises DistributedError."""
    settings = Settings.find()
    interface, address = choose_interface(Placement.find(), settings.interface)
    ports = f"{settings.ports[0]}-{settings.ports[-1]}" if settings.ports else "any"
    return {"interface": interface, "address": address, "port": serve(address, settings, token), "ports": ports}


def listen_everywhere(token: str, network: dict) -> dict[str, list]:
    """The same at every other interface: name to address and port."""
    settings, found = Settings.find(), interfaces().items()
    others = [(name, at) for name, at in found if not is_loopback(at) and at != network.get("address")]
    return {name: [address, serve(address, settings, token)] for name, address in others[:MAX_WAYS]}


def serve(address: str, settings: Settings, token: str) -> int:
    """Answer at a free port of this address from now on, in a thread. -> the port."""
    server = bind(address, settings.ports, listen_at)

    def answer() -> None:
        while True:
            connection, _ = server.accept()
            with suppress(OSError), connection:
                connection.sendall(token.encode())

    threading.Thread(target=answer, daemon=True).start()
    return server.getsockname()[1]


def reach(network: dict, peer: dict) -> float:
    """Seconds until the other node answered. Its answer must be its own: container bridges have the same address on
    every node."""
    if "error" in network or "error" in peer["network"]:
        raise ValueError("no interface to go by")
    return ask(network["address"], peer["network"]["address"], peer["network"]["port"], peer["token"], 10)


def other_ways(ways: dict[str, list], peer: dict) -> list[str]:
    """The interfaces of this node over which the other node answers, at its interface of the same name."""
    theirs, found = peer["network"].get("ways", {}), []
    for name in ways if "error" not in theirs and "error" not in ways else ():
        if name in theirs:
            with suppress(OSError, ValueError):
                ask(ways[name][0], *theirs[name], peer["token"], CONNECT_TIMEOUT_S)
                found.append(name)
    return found


def ask(ours: str, theirs: str, port: int, token: str, timeout: float) -> float:
    """Seconds until the answer came. Raises OSError, or ValueError where something else than the probe answers."""
    began = time.monotonic()
    with socket.create_connection((theirs, port), timeout, (ours, 0)) as connection, connection.makefile() as stream:
        if stream.read() != token:
            raise ValueError(f"somebody else answers at {theirs}")
    return round(time.monotonic() - began, 4)
