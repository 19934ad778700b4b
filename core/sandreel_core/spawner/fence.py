"""The fence around an org's network: which packets may leave a sandbox, as firewall rules. Pure.

An internal network of the engine keeps sandboxes from other networks, but (20.10, tried) neither from any address of
its host nor from each other. So a sandbox may reach the doors of its network (NATS, gateway, egress proxy), each one
address and port, and nothing else: not the host, not a neighbour, not another org, not a metadata service.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from sandreel_core.errors import Misconfigured

# Names of chains have at most 28 characters, of interfaces 15 (both of the kernel).
_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z")
# With some 1.5 KiB of rules each they stay below the 2 MiB that a program's arguments may have.
MAX_NETWORKS = 1000
_CHUNK = 500  # rules, of at most 110 bytes
# Whoever holds the lock of the firewall's tables is waited for so long.
LOCK_WAIT_S = 10
# A sandbox is created with this resolver: the engine's own (127.0.0.11) then asks within the sandbox's namespace, where
# nobody listens, instead of asking for it on the host, which would be a way out (CVE-2024-29018).
SANDBOX_DNS = "127.0.0.1"
# The engine waits in vain for that answer, and a program that looks a name up itself instead of using the proxy waits with
# it: 10 s by the resolver's own defaults, 1 s so (measured). Names of the network itself are answered at once.
SANDBOX_DNS_OPTIONS = ("timeout:1", "attempts:1")


@dataclass(frozen=True, slots=True)
class Door:
    """One address and TCP port that sandboxes of a network may reach."""

    name: str
    address: IPv4Address
    port: int


@dataclass(frozen=True, slots=True)
class OrgNetwork:
    """An org's internal network. `bridge` is its interface on the host. Raises Misconfigured for what is none."""

    name: str
    bridge: str
    subnet: IPv4Network
    doors: tuple[Door, ...] = ()

    def __post_init__(self) -> None:
        if not _BRIDGE.match(self.bridge):
            raise Misconfigured(f"network {self.name[:80]!r} has no interface of its own: {self.bridge[:40]!r}")
        for door in self.doors:
            if door.address not in self.subnet or not 0 < door.port <= 65535:
                raise Misconfigured(f"{door.name} at {door.address}:{door.port} is not on network {self.name[:80]!r}")


def of_inspection(found: Mapping[str, Any], ports: Mapping[str, int]) -> OrgNetwork:
    """A network as the engine describes it (`GET /networks/{id}`), with a door for each container that serves it.

    ports  by the container's name. Raises Misconfigured when one of them is not in the network, or it has not one IPv4 range
    """
    name = str(found["Name"])
    options = found.get("Options") or {}
    bridge = options.get("com.docker.network.bridge.name") or f"br-{str(found['Id'])[:12]}"
    inside = {str(each["Name"]): str(each["IPv4Address"]) for each in (found.get("Containers") or {}).values()}
    missing = sorted(ports.keys() - inside.keys())
    if missing:
        raise Misconfigured(f"network {name[:80]!r} has no {', '.join(missing)} in it")
    try:
        ranges = [IPv4Network(each["Subnet"]) for each in found["IPAM"]["Config"] if ":" not in each["Subnet"]]
        doors = tuple(Door(who, IPv4Interface(inside[who]).ip, ports[who]) for who in sorted(ports))
    except (KeyError, TypeError, ValueError) as error:
        raise Misconfigured(f"network {name[:80]!r} has no addresses that can be read: {error}") from error
    if len(ranges) != 1:
        raise Misconfigured(f"network {name[:80]!r} has {len(ranges)} IPv4 ranges, not one")
    return OrgNetwork(name, str(bridge), ranges[0], doors)


@dataclass(frozen=True, slots=True)
class Chains:
    """The two chains of an installation: what is for the host, and what it would pass on."""

    host: str
    through: str


def chains(installation: str) -> Chains:
    mark = hashlib.sha256(installation.encode()).hexdigest()[:12]
    return Chains(f"SANDREEL-H-{mark}", f"SANDREEL-T-{mark}")


def raising(installation: str, networks: Sequence[OrgNetwork]) -> tuple[str, ...]:
    """argv that makes the installation's chains exactly this, in one commit a family, and puts them first.

    It needs sh, iptables and NET_ADMIN in the host's network namespace. A second run changes nothing, rules of others are
    neither read nor written, and there is no moment in which a sandbox that was fenced is not. Networks that are not
    named any more lose their rules. Raises Misconfigured for more than MAX_NETWORKS.
    """
    if len(networks) > MAX_NETWORKS:
        raise Misconfigured(f"{len(networks)} networks of orgs are more than the {MAX_NETWORKS} that can be fenced")
    named = chains(installation)
    return _argv(named, _rules_4(named, networks), _rules_6(named, networks), keep=True)


def taking_down(installation: str) -> tuple[str, ...]:
    """argv that removes the installation's chains, if they are there."""
    named = chains(installation)
    gone = [f"-X {named.host}", f"-X {named.through}"]
    return _argv(named, gone, gone, keep=False)


def _rules_4(named: Chains, networks: Sequence[OrgNetwork]) -> list[str]:
    rules = []
    for each in sorted(networks, key=lambda network: network.bridge):
        into, within = f"-A {named.host} -i {each.bridge}", f"-A {named.through} -i {each.bridge} -o {each.bridge}"
        answers = "-m conntrack --ctstate RELATED,ESTABLISHED"
        rules += [f"{into} {answers} -j RETURN", f"{within} {answers} -j ACCEPT"]
        for door in sorted(each.doors, key=lambda door: (door.address, door.port)):
            where = f"-d {door.address}/32 -p tcp -m tcp --dport {door.port}"
            # Of the host's own rules too, so RETURN; between sandboxes the engine's would drop it, so ACCEPT.
            rules += [f"{into} {where} -j RETURN", f"{within} {where} -j ACCEPT"]
        # Prohibited, not reset: a program is told at once, and a probe tells it from somebody who answered.
        reject = "-j REJECT --reject-with icmp-admin-prohibited"
        rules += [f"{into} {reject}", f"-A {named.through} -i {each.bridge} {reject}"]
        rules += [f"-A {named.through} -o {each.bridge} -j DROP"]
    return rules


def _rules_6(named: Chains, networks: Sequence[OrgNetwork]) -> list[str]:
    """Sandboxes have no IPv6, so all of it is dropped."""
    return [
        rule
        for each in sorted(networks, key=lambda network: network.bridge)
        for rule in (
            f"-A {named.host} -i {each.bridge} -j DROP",
            f"-A {named.through} -i {each.bridge} -j DROP",
            f"-A {named.through} -o {each.bridge} -j DROP",
        )
    ]


# DOCKER-USER is the engine's promise: it comes before the engine's own rules, also after the engine has restarted. The
# variant (nft or legacy) in which it stands is the one that the engine uses; both at once would be two firewalls. Whenever the
# engine makes a network it takes its jump there out and puts it in front again (20.10, seen each time): so ours stands in FORWARD too.
_SCRIPT = """\
set -eu
W={wait}
pick() {{
  for t in "$1" "$1-nft" "$1-legacy"; do
    if "$t" -w $W -S "$2" >/dev/null 2>&1; then echo "$t"; return 0; fi
  done
  return 1
}}
jump() {{
  if "$1" -w $W -C "$2" -j "$3" 2>/dev/null; then echo "-D $2 -j $3"; fi
  {jump}
}}
commit() {{
  {{
    echo '*filter'
    {begin}
    jump "$1" INPUT {host}
    for c in $2; do jump "$1" "$c" {through}; done
    cat
    echo COMMIT
  }} | "$1-restore" -w $W --noflush
}}
rules() {{
  i=0
  for chunk in "$@"; do
    of=6
    if [ $i -lt $N ]; then of=4; fi
    if [ $of = $V ]; then printf '%s\\n' "$chunk"; fi
    i=$((i + 1))
  done
}}
N=$1; shift
T=$(pick iptables DOCKER-USER) || {{ echo 'no chain DOCKER-USER: is this the host of the engine, and is iptables here?' >&2; exit 3; }}
V=4; rules "$@" | commit "$T" 'DOCKER-USER FORWARD'
if [ -e /proc/net/if_inet6 ]; then
  T=$(pick ip6tables INPUT) || {{ echo 'this host has IPv6, and ip6tables does not work' >&2; exit 4; }}
  V=6; rules "$@" | commit "$T" FORWARD
fi
"""


def _argv(named: Chains, rules_4: Sequence[str], rules_6: Sequence[str], *, keep: bool) -> tuple[str, ...]:
    # `:CHAIN` makes a chain, or empties it, within the commit.
    script = _SCRIPT.format(
        wait=LOCK_WAIT_S,
        jump='echo "-I $2 1 -j $3"' if keep else ":",
        begin=f"echo ':{named.host} - [0:0]'; echo ':{named.through} - [0:0]'",
        host=named.host,
        through=named.through,
    )
    four, six = _chunks(rules_4), _chunks(rules_6)
    return ("/bin/sh", "-c", script, "fence", str(len(four)), *four, *six)


def _chunks(rules: Sequence[str]) -> list[str]:
    """One argument may have 128 KiB (the kernel's MAX_ARG_STRLEN), all of them some MiB."""
    return ["\n".join(rules[start : start + _CHUNK]) for start in range(0, len(rules), _CHUNK)]
