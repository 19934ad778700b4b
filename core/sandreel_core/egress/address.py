"""Which addresses a session may be connected to: those of the public internet, and no others. Pure.

`ipaddress.is_global` is not asked, because what it answers depends on the patch release of Python (3.11.7 still calls
some addresses global that IANA has taken back), and because it takes tunnels (6to4, Teredo, NAT64) at their word.
So IPv4 is "all but these", and IPv6 is "only 2000::/3, and of that all but these".
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# https://www.iana.org/assignments/iana-ipv4-special-registry: whatever is not globally reachable, and what is reserved.
_REFUSED_4: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "a private network"),
    ("100.64.0.0/10", "shared by carriers (CGNAT)"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local, where clouds serve metadata"),
    ("172.16.0.0/12", "a private network"),
    ("192.0.0.0/24", "for protocols"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "a relay of 6to4"),
    ("192.168.0.0/16", "a private network"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    # Global by number, but Azure answers every virtual machine there (DNS, agent, health): metadata by another name.
    ("168.63.129.16/32", "Azure's own service for virtual machines"),
)
_GLOBAL_6 = IPv6Network("2000::/3")
# https://www.iana.org/assignments/iana-ipv6-special-registry, within 2000::/3. All else is outside it: ::1, ::,
# IPv4-mapped and IPv4-compatible ones, NAT64 (64:ff9b::/96, 64:ff9b:1::/48), 100::/64, fc00::/7, fe80::/10, fec0::/10,
# ff00::/8, segment routing (5f00::/16).
_REFUSED_6: tuple[tuple[str, str], ...] = (
    ("2001::/23", "for protocols (Teredo, ORCHID, benchmarks)"),
    ("2001:db8::/32", "for documentation"),
    ("2002::/16", "6to4, which ends at any IPv4 address"),
    ("3fff::/20", "for documentation"),
)
_NETWORKS: tuple[tuple[Network, str], ...] = tuple((ip_network(net), why) for net, why in _REFUSED_4 + _REFUSED_6)


def refusal(address: Address, also: Iterable[Network] = ()) -> str | None:
    """Why nobody may be connected to `address`; None: it is global. `also`: what an operator refuses besides."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return "it has a scope, so it is local"
        if address not in _GLOBAL_6:
            mapped = address.ipv4_mapped
            return "an IPv4 address written as IPv6" if mapped is not None else "not of 2000::/3, the public IPv6"
    for network, why in _NETWORKS:
        if address in network:  # never true for the other version
            return why
    return next(("refused by the operator ([egress] also_refused)" for each in also if address in each), None)


def plain(address: Address) -> Address:
    """Of a client: a listener for both versions sees IPv4 clients as IPv4-mapped ones."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def parse(text: str) -> Address | None:
    """The address that `text` spells, in the one way that everybody reads alike; None for everything else.

    `127.1`, `0x7f000001`, `017700000001` and `2130706433` are none: a resolver would take them for addresses.
    """
    try:
        return ip_address(text)
    except ValueError:
        return None
