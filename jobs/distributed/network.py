"""The network between the ranks: which interface leads to the others, by what address, and ports to listen at.

Of an interface its IPv4 address counts. Where it has none, an IPv6 address does that other nodes can name: none of a
link alone (fe80::), which says nothing without the interface's name beside it.
"""

import os
import random
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from jobs.distributed.placement import DistributedError, Placement

# set aside for documentation: the way to them is the default route
ANYWHERE = "192.0.2.1", "2001:db8::1"


@dataclass(frozen=True)
class Settings:
    """What differs from site to site, by environment variables."""

    interface: str = ""  # HTR_IFACE; empty: the one that leads to the other nodes
    ports: range | None = None  # HTR_PORTS, "20000-20999"; empty: any
    timeout: float = 120.0  # HTR_START_TIMEOUT, seconds that ranks wait for each other
    shared_gpu: bool = False  # HTR_SHARED_GPU=1: ranks may share a GPU, and sum over the host's memory without NCCL
    peer_timeout: float = 60.0  # HTR_PEER_TIMEOUT, seconds without a sign of life after which a rank is lost

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the environment; a DistributedError names the variable that makes no sense."""
        ports = environ.get("HTR_PORTS", "")
        first, _, last = ports.partition("-")
        if ports and not (first.isdigit() and last.isdigit() and 0 < int(first) < int(last) < 65536):
            raise DistributedError(f"HTR_PORTS={ports!r} is not a range of ports such as 20000-20999")
        chosen, shared = range(int(first), int(last) + 1) if ports else None, environ.get("HTR_SHARED_GPU", "") == "1"
        patience = _seconds(environ, "HTR_START_TIMEOUT", "120"), _seconds(environ, "HTR_PEER_TIMEOUT", "60")
        return cls(environ.get("HTR_IFACE", ""), chosen, patience[0], shared, patience[1])


def _seconds(environ: Mapping[str, str], name: str, default: str) -> float:
    value = environ.get(name) or default
    if not value.replace(".", "", 1).isdigit() or float(value) <= 0:
        raise DistributedError(f"{name}={value!r} is not a number of seconds")
    return float(value)


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listen(where: tuple[str, int]) -> socket.socket:
    """A server at the address and port, 0: any."""
    return socket.create_server(where, family=family(where[0]))


def shown(where: Mapping) -> str:
    """`where`: with an address and a port."""
    return "[{address}]:{port}".format_map(where) if ":" in where["address"] else "{address}:{port}".format_map(where)


def addresses() -> dict[str, list[str]]:
    """Those of every network interface of this node that is up; first those that count more."""
    import psutil

    up, found = {name for name, stats in psutil.net_if_stats().items() if stats.isup}, {}
    for name, known in psutil.net_if_addrs().items():
        of4, of6 = ([a.address for a in known if a.family == kind] for kind in (socket.AF_INET, socket.AF_INET6))
        both = of4 + [address for address in of6 if not address.lower().startswith("fe80:")]
        if name in up and both:
            found[name] = both
    return found


def interfaces() -> dict[str, str]:
    """The address of every network interface of this node that has one and is up."""
    return {name: known[0] for name, known in addresses().items()}


def choose_interface(place: Placement, asked: str = "") -> tuple[str, str]:
    """(name, address) of the interface that leads to the other ranks, or the one asked for (HTR_IFACE).

    On one node that is the loopback. Else the one on the way to another node, to anywhere, or that this host's name
    resolves to.
    """
    found = addresses()
    listed = ", ".join(f"{name} ({known[0]})" for name, known in found.items()) or "none"
    if asked:
        if asked not in found:
            raise DistributedError(f"HTR_IFACE={asked}: {_why_not(asked)} on {place.host}, it has {listed}")
        return asked, found[asked][0]
    if place.local_size == place.size and "lo" in found:
        return "lo", found["lo"][0]
    others = [host for host, _ in place.hosts or () if host != place.host]
    ways = (own for host in (*others[:1], *ANYWHERE) for own in _ways_to(host))
    for own in (*ways, *_resolve(socket.gethostname())):
        for name, known in found.items():
            if own in known and not is_loopback(own):
                return name, known[0]
    raise DistributedError(
        f"no network interface of {place.host} leads to the other nodes: set HTR_IFACE to one of {listed}"
    )


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _why_not(name: str) -> str:
    """What keeps ranks from meeting over an interface."""
    import psutil

    known = psutil.net_if_addrs().get(name)
    if known is None:
        return "no such network interface"
    if not psutil.net_if_stats()[name].isup:
        return "that network interface is down"
    if any(each.family == socket.AF_INET6 for each in known):
        return "no address at that network interface but one of its link (fe80::), which says nothing elsewhere,"
    return "no address at that network interface"


def _ways_to(host: str) -> Iterator[str]:
    """The addresses of ours that packets to this host would carry; nothing is sent."""
    for address in _resolve(host):
        with suppress(OSError), socket.socket(family(address), socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            yield probe.getsockname()[0]


def _resolve(host: str) -> list[str]:
    """IPv4 first."""
    with suppress(OSError):
        known = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        found = dict.fromkeys(where[0] for kind, *_, where in known if kind in (socket.AF_INET, socket.AF_INET6))
        return sorted(found, key=family)
    return []


def tell_nccl(interface: str, address: str) -> None:
    """To take what the ranks have met on: of several networks it might choose one that leads nowhere. What the user has
    set stays."""
    os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")
    if family(address) == socket.AF_INET6:
        os.environ.setdefault("NCCL_SOCKET_FAMILY", "AF_INET6")


def bind(address: str, ports: range | None, open_at: Callable):
    """`open_at((address, port))` at the first port of the site's range that is free, from a random one on."""
    for port in [0] if ports is None else random.sample(ports, len(ports)):
        with suppress(OSError):
            return open_at((address, port))
    raise DistributedError(f"no free port on {address}" + (f" in HTR_PORTS={ports[0]}-{ports[-1]}" if ports else ""))
