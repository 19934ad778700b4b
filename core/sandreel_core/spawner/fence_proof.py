"""When a fence counts as proven: what a probe is to try, and the one verdict from what was seen on both sides. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from msgspec import Struct

from sandreel_core.spawner.fence import OrgNetwork


class FenceProof(Struct, frozen=True, kw_only=True):
    """What a probe found. Proven: everything was tried, nothing got out, and what must be reached was.

    holes    sentences: what was reached and should not have been, or what could not be tried
    tried    attempts, of every kind
    """

    network: str
    proven: bool
    holes: tuple[str, ...]
    tried: int
    took_s: float


# Metadata services of clouds, and public addresses that answer nearly everywhere.
FAR_AWAY: tuple[tuple[str, str, int], ...] = (
    ("metadata (AWS, Google, Azure, OpenStack)", "169.254.169.254", 80),
    ("metadata of AWS tasks", "169.254.170.2", 80),
    ("metadata of Alibaba", "100.100.100.200", 80),
    ("Azure's service for machines", "168.63.129.16", 80),
    ("metadata of Oracle", "192.0.0.192", 80),
    ("metadata of AWS, IPv6", "fd00:ec2::254", 80),
    ("the internet", "1.1.1.1", 443),
    ("a public resolver", "8.8.8.8", 53),
)
# What listens on hosts: SSH, DNS, web, portmap, the engine, NATS, Kubernetes. Only an answer of any kind counts.
HOST_PORTS = (22, 53, 80, 111, 443, 2375, 2376, 4222, 6443, 8222, 10250)
MAX_WITNESS_ADDRESSES = 512


@dataclass(frozen=True, slots=True)
class Witness:
    """Somebody who really listens where a sandbox must not come, and said where: the host, a neighbour, another network."""

    what: str
    addresses: tuple[str, ...]
    tcp: int
    udp: int


def attempts(network: OrgNetwork, witnesses: Sequence[Witness]) -> list[dict[str, Any]]:
    """What the probe is to try, each {what, kind: tcp | udp | ping, host, port, door}."""
    found: list[dict[str, Any]] = []

    def add(what: str, kind: str, host: str, port: int = 0, *, door: bool = False) -> None:
        found.append({"what": what, "kind": kind, "host": host, "port": port, "door": door})

    for witness in witnesses:
        for address in witness.addresses:
            add(witness.what, "tcp", address, witness.tcp)
            add(witness.what, "udp", address, witness.udp)
            add(witness.what, "ping", address)
        for everybody in (network.subnet.broadcast_address, IPv4Address("224.0.0.1")):
            add(f"{witness.what}, as one of all", "udp", str(everybody), witness.udp)
    for port in HOST_PORTS:
        add("the host", "tcp", str(next(network.subnet.hosts())), port)
    for what, address, port in FAR_AWAY:
        add(what, "tcp", address, port)
        add(what, "udp", address, port)
    open_doors = {(door.address, door.port) for door in network.doors}
    for door in network.doors:
        add(door.name, "tcp", str(door.address), door.port, door=True)
    for opened in sorted({door.address for door in network.doors}):
        for port in HOST_PORTS:
            if (opened, port) not in open_doors:
                add("another port of a door", "tcp", str(opened), port)
    return found


def judge(
    network: str,
    asked: Sequence[Mapping[str, Any]],
    outcomes: Sequence[str],
    own: Mapping[str, str],
    arrivals: Mapping[str, int],
    problems: Sequence[str],
    took_s: float,
) -> FenceProof:
    """One verdict from what was seen on both sides.

    outcomes  of each attempt, in order: `open`, `answered` (somebody refused it), `blocked`
    own       what the probe found out about itself: `raw` and `dns` (see the probe)
    arrivals  how many packets each witness saw
    problems  what could not be tried
    """
    holes = list(problems)
    if len(outcomes) != len(asked):
        holes.append(f"the probe answered {len(outcomes)} of {len(asked)} attempts")
    for attempt, outcome in zip(asked, outcomes, strict=False):
        where = f"{attempt['what']} ({attempt['kind']} {attempt['host']}{_port(attempt)})"
        if attempt["door"] and outcome != "open":
            holes.append(f"{where} must be reached and is {outcome}: a dead network proves nothing")
        elif not attempt["door"] and outcome != "blocked":
            holes.append(f"{where} is {outcome}")
    holes += [f"{count} packets arrived at {what}" for what, count in arrivals.items() if count]
    if own.get("raw") != "refused":
        holes.append("raw packets can be made")
    if own.get("dns") not in ("own", "refused"):
        holes.append(f"questions to the engine's resolver are {own.get('dns', 'not tried')}: it may carry data out")
    return FenceProof(network=network, proven=not holes, holes=tuple(holes), tried=len(outcomes), took_s=took_s)


def _port(attempt: Mapping[str, Any]) -> str:
    return f" port {attempt['port']}" if attempt["port"] else ""
