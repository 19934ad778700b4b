"""Where a client wants to go: HOST:PORT as it stands in a request, read strictly. Pure.

What two programs could read differently is refused before anybody resolves it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address

from sandreel_core.egress.address import Address, parse
from sandreel_core.errors import Malformed

MAX_NAME = 253  # RFC 1035, without the root's dot
# An underscore is in no host's name by the book, but in names that are served.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_PORT = re.compile(r"[0-9]{1,5}\Z")
# Whatever ends like a number is an address for some resolvers: the rule of https://url.spec.whatwg.org/#ends-in-a-number-checker.
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")


@dataclass(frozen=True, slots=True)
class Target:
    """`host` is lower case, without a dot at its end and without brackets; `address` is set when it is a literal one."""

    host: str
    port: int
    address: Address | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if isinstance(self.address, IPv6Address) else f"{self.host}:{self.port}"


def read_target(text: str, default_port: int | None = None) -> Target:
    """`example.com:443`, `192.0.2.1:443`, `[2001:db8::1]:443`. Raises Malformed, which quotes at most 80 characters."""
    host, port = _split(text)
    if port is None:
        if default_port is None:
            raise Malformed(f"{_quoted(text)} names no port")
        number = default_port
    elif not _PORT.match(port) or not 0 < (number := int(port)) <= 65535:
        raise Malformed(f"the port of {_quoted(text)} is none of 1 to 65535")
    if text.startswith("["):
        address = parse(host)
        if not isinstance(address, IPv6Address) or address.scope_id is not None:
            raise Malformed(f"{_quoted(text)} holds no IPv6 address in its brackets")
        return Target(str(address), number, address)
    return Target((name := read_name(host)), number, parse(name))


def read_name(text: str) -> str:
    """A host's name, or an IPv4 address, in the one spelling that is compared. Raises Malformed."""
    name = text.lower().removesuffix(".")
    if not name or len(name) > MAX_NAME:
        raise Malformed(f"{_quoted(text)} is no host's name: it has 1 to {MAX_NAME} characters")
    if parse(name) is not None and ":" not in name:
        return name
    labels = name.split(".")
    if not all(_LABEL.match(label) for label in labels):
        raise Malformed(f"{_quoted(text)} is no host's name: labels of a-z, 0-9, - and _ (IDNA in its ASCII form)")
    if _NUMBER.match(labels[-1]):
        raise Malformed(f"{_quoted(text)} ends like a number, but is no address in dotted decimal form")
    return name


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise Malformed(f"{_quoted(text)} is not HOST:PORT")
        return host, rest[1:] if rest else None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _quoted(text: str) -> str:
    return repr(text[:80])
