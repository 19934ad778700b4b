"""Which hosts a session may reach: lists of patterns for all, for its org and for itself. Pure.

No list: open. With lists, every one of them must have the host, so a session's own can only narrow its org's. A list
that cannot be read allows nothing, unless one that could was there before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from sandreel_core.egress.target import Target, read_name
from sandreel_core.errors import Malformed

MAX_PATTERNS = 1000
MAX_PATTERN = 300  # the longest name with what a pattern adds
MAX_RULES_BYTES = 512 * 1024  # of one document: 1000 patterns of the greatest length, and room


class RulesDocument(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One list as it is stored. `allow` None: this list was taken away; empty: nothing is allowed."""

    allow: Annotated[list[Annotated[str, Meta(max_length=MAX_PATTERN)]], Meta(max_length=MAX_PATTERNS)] | None = None
    actor: Annotated[str, Meta(max_length=256)] = ""


@dataclass(frozen=True, slots=True)
class Allowlist:
    """`exact` names and addresses; `below`: what ends with one of these names and a dot before it."""

    exact: frozenset[str]
    below: frozenset[str]
    everything: bool = False

    def allows(self, host: str) -> bool:
        if self.everything or host in self.exact:
            return True
        cut = host.find(".")
        while cut >= 0:
            if host[cut + 1 :] in self.below:
                return True
            cut = host.find(".", cut + 1)
        return False


NOTHING = Allowlist(frozenset(), frozenset())


def allowlist(patterns: Iterable[str]) -> Allowlist:
    """`example.com` is that name (or address) alone, `*.example.com` all below it, `*` everything. Raises Malformed."""
    exact, below, everything = set[str](), set[str](), False
    for pattern in patterns:
        text = pattern.strip()
        if text == "*":
            everything = True
        elif text.startswith("*."):
            below.add(_name(pattern, text[2:]))
        else:
            exact.add(_name(pattern, text))
    return Allowlist(frozenset(exact), frozenset(below), everything)


def read_document(body: bytes) -> Allowlist | None:
    """None: there is no list (any more). Raises Malformed, which names the pattern or the field."""
    if len(body) > MAX_RULES_BYTES:
        raise Malformed(f"the list has {len(body)} bytes, over the limit of {MAX_RULES_BYTES}")
    try:
        document = msgspec.json.decode(body, type=RulesDocument)
    except msgspec.DecodeError as error:
        raise Malformed(f"not a list of patterns: {error}") from error
    return None if document.allow is None else allowlist(document.allow)


class Scope(Struct, frozen=True):
    """Whose list: everybody's (both empty), an org's, or a session's."""

    org: str = ""
    session: str = ""

    def __str__(self) -> str:
        return f"{self.org}/{self.session}" if self.session else self.org or "everybody"


def refused_by(lists: Mapping[Scope, Allowlist], org: str, session: str, target: Target) -> Scope | None:
    """The first list that does not have the target's host; None: all that there are have it."""
    for scope in (Scope(), Scope(org), Scope(org, session)):
        found = lists.get(scope)
        if found is not None and not found.allows(target.host):
            return scope
    return None


def _name(pattern: str, text: str) -> str:
    try:
        if ":" in text:
            return str(IPv6Address(text.removeprefix("[").removesuffix("]")))
        return read_name(text)
    except (Malformed, ValueError) as error:
        raise Malformed(
            f"pattern {pattern[:80]!r} is none of: a host's name, *.NAME for all below it, an address, * ({error})"
        ) from error
