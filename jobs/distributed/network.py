"""The network between the ranks: the interface that leads to the other nodes, its address, and ports to listen at.

The IPv4 address of an interface is used. If it has none, its IPv6 address is, unless it is link-local (fe80::): other
nodes can't use that one.
"""

import os
import random
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from jobs.distributed.placement import DistributedError, Placement

# addresses that are reserved for documentation: packets to them take the default route
ANYWHERE = "192.0.2.1", "2001:db8::1"


@dataclass(frozen=True)
class Settings:
    """Settings of a site, from environment variables."""

    interface: str = ""  # HTR_IFACE; empty: the one that leads to the other nodes
    ports: range | None = None  # HTR_PORTS, "20000-20999"; empty: any
    timeout: float = 120.0  # HTR_START_TIMEOUT, seconds that ranks wait for each other at the start
    shared_gpu: bool = False  # HTR_SHARED_GPU=1: ranks may share a GPU; they sum in the host's memory, without NCCL
    peer_timeout: float = 60.0  # HTR_PEER_TIMEOUT, seconds without an answer after which a rank counts as lost

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the environment. Raises a DistributedError with the variable that is wrong."""
        ports = environ.get("HTR_PORTS", "")
        first, _, last = ports.partition("-")
        if ports and not (
            ports.isascii() and first.isdigit() and last.isdigit() and 0 < int(first) < int(last) < 65536
        ):
            raise DistributedError(f"HTR_PORTS={ports!r} is not a range of ports such as 20000-20999")
        chosen, shared = range(int(first), int(last) + 1) if ports else None, environ.get("HTR_SHARED_GPU", "") == "1"
        patience = _seconds(environ, "HTR_START_TIMEOUT", "120"), _seconds(environ, "HTR_PEER_TIMEOUT", "60")
        return cls(environ.get("HTR_IFACE", ""), chosen, patience[0], shared, patience[1])


def is_number(text: str) -> bool:
    """Whether it is digits, with a point at most: no sign, no exponent, no inf."""
    return text.isascii() and text.replace(".", "", 1).isdigit()


def _seconds(environ: Mapping[str, str], name: str, default: str) -> float:
    value = environ.get(name) or default
    if not is_number(value) or float(value) <= 0:
        raise DistributedError(f"{name}={value!r} is not a number of seconds")
    return float(value)


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listen(where: tuple[str, int]) -> socket.socket:
    """A listening socket at this address and port; port 0: any."""
    return socket.create_server(where, family=family(where[0]))


def shown(where: Mapping) -> str:
    """ADDRESS:PORT, or [ADDRESS]:PORT for IPv6. `where`: has "address" and "port"."""
    return "[{address}]:{port}".format_map(where) if ":" in where["address"] else "{address}:{port}".format_map(where)


def addresses() -> dict[str, list[str]]:
    """The addresses of every network interface of this node that is up, by its name; IPv4 first."""
    import psutil

    up, found = {name for name, stats in psutil.net_if_stats().items() if stats.isup}, {}
    for name, known in psutil.net_if_addrs().items():
        of4, of6 = ([a.address for a in known if a.family == kind] for kind in (socket.AF_INET, socket.AF_INET6))
        both = of4 + [address for address in of6 if not address.lower().startswith("fe80:")]
        if name in up and both:
            found[name] = both
    return found


def interfaces() -> dict[str, str]:
    """The address of every network interface of this node that is up and has one, by its name."""
    return {name: known[0] for name, known in addresses().items()}


def choose_interface(place: Placement, asked: str = "") -> tuple[str, str]:
    """-> name and address of the interface to the other ranks. `asked`: that of the user (HTR_IFACE).

    Where all ranks are on one node it is the loopback. Otherwise the first that is found: the interface of the route to
    another node, that of the default route, or that of the address of this host's name. Raises a DistributedError.
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
    """Why ranks can't meet over an interface, in words."""
    import psutil

    known = psutil.net_if_addrs().get(name)
    if known is None:
        return "no such network interface"
    if not psutil.net_if_stats()[name].isup:
        return "that network interface is down"
    if any(each.family == socket.AF_INET6 for each in known):
        return "no address at that network interface but a link-local one (fe80::), which other nodes can't use,"
    return "no address at that network interface"


def _ways_to(host: str) -> Iterator[str]:
    """The addresses of this node that packets to `host` would come from; nothing is sent."""
    for address in _resolve(host):
        with suppress(OSError), socket.socket(family(address), socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            yield probe.getsockname()[0]


def _resolve(host: str) -> list[str]:
    """The addresses of a host name, IPv4 first; [] where it can't be resolved."""
    with suppress(OSError):
        known = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        found = dict.fromkeys(where[0] for kind, *_, where in known if kind in (socket.AF_INET, socket.AF_INET6))
        return sorted(found, key=family)
    return []


def tell_nccl(interface: str, address: str) -> None:
    """Make NCCL use the network of the rendezvous: of several it might choose one that does not lead to the other
    nodes.

    Variables that the user has set are kept.
    """
    os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")
    if family(address) == socket.AF_INET6:
        os.environ.setdefault("NCCL_SOCKET_FAMILY", "AF_INET6")


def bind(address: str, ports: range | None, open_at: Callable):
    """`open_at((address, port))` at a free port of the site's range, tried in random order; None: at any port.

    Raises a DistributedError where no port is free.
    """
    for port in [0] if ports is None else random.sample(ports, len(ports)):
        with suppress(OSError):
            return open_at((address, port))
    raise DistributedError(f"no free port on {address}" + (f" in HTR_PORTS={ports[0]}-{ports[-1]}" if ports else ""))
