"""What the proxy is told, as documents in one small stream: whose address is whose, and who may reach what.

`egress.place.<address>`                 the session that has this address now, or nobody; written by the spawner
`egress.rules[.<org>[.<session>]]`       an allowlist; written by operators

The newest body of each subject counts, and every proxy follows them all: so a change needs no restart, reaches every
replica, and is still there after one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address

import msgspec
from msgspec import Struct

from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus, Stored, Stream
from sandreel_core.contract.message import Id, Org
from sandreel_core.egress.address import Address
from sandreel_core.egress.rules import Allowlist, RulesDocument, Scope, allowlist, read_document
from sandreel_core.errors import Conflict, Malformed, Unavailable
from sandreel_core.ids import check_id, check_org

EGRESS = "EGRESS"
# An org's network has 61 addresses and a place has some hundred bytes: room for thousands of orgs and of lists.
MAX_BYTES = 64 << 20
MAX_CONFLICTS = 16
_PLACE, _RULES = "egress.place.", "egress.rules"


def documents(*, replicas: int = 1) -> Stream:
    return Stream(name=EGRESS, subjects=("egress.>",), max_bytes=MAX_BYTES, per_subject=1, replicas=replicas)


class Place(Struct, frozen=True):
    """Who has an address: one boot of one session."""

    org: Org
    session: Id
    boot_id: str


class PlaceDocument(Struct, frozen=True, kw_only=True, omit_defaults=True):
    place: Place | None = None


class Table:
    """The documents as one proxy knows them. `broken`: lists that cannot be read, and what is wrong with each."""

    def __init__(self) -> None:
        self.places: dict[Address, Place] = {}
        self.lists: dict[Scope, Allowlist] = {}
        self.broken: dict[Scope, str] = {}

    def apply(self, stored: Stored) -> None:
        """Take one document. Raises Malformed, with what was known before still in place."""
        if stored.subject.startswith(_PLACE):
            self._place(stored)
        else:
            self._rules(stored)

    def _place(self, stored: Stored) -> None:
        address = _address(stored.subject)
        try:
            place = msgspec.json.decode(stored.body, type=PlaceDocument).place
        except msgspec.DecodeError as error:
            self.places.pop(address, None)  # whoever had it may be gone, and nobody's connections are told as another's
            raise Malformed(f"{stored.subject} cannot be read: {error}") from error
        if place is None:
            self.places.pop(address, None)
        else:
            self.places[address] = place

    def _rules(self, stored: Stored) -> None:
        scope = _scope(stored.subject)
        try:
            found = read_document(stored.body)
        except Malformed as error:
            self.broken[scope] = str(error)
            self.lists.setdefault(scope, allowlist(()))
            raise Malformed(f"the allowlist of {scope} cannot be read: {error}") from error
        self.broken.pop(scope, None)
        if found is None:
            self.lists.pop(scope, None)
        else:
            self.lists[scope] = found


class Register:
    """The pen of those documents. Every method raises Unavailable."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def place(self, address: Address, place: Place) -> None:
        """`address` is this boot's from now on. To be stored before anything runs there."""
        await self._bus.append(_place(address), msgspec.json.encode(PlaceDocument(place=place)))

    async def withdraw(self, address: Address, boot: Place) -> None:
        """The boot has ended: nobody has its address, unless somebody was given it since. Idempotent."""
        subject = _place(address)
        for _ in range(MAX_CONFLICTS):
            stored = await self._bus.last(EGRESS, subject)
            if stored is None or _read(stored) != boot:
                return
            try:
                await self._bus.append(subject, msgspec.json.encode(PlaceDocument()), expected=stored.sequence)
            except Conflict:
                continue
            return
        raise Unavailable(f"{subject} is changed all the time")

    async def settle(self, look: Callable[[], Awaitable[Mapping[Address, Place]]]) -> int:
        """Make the places agree with what the backend has; how many were changed. What is written meanwhile stays: so the
        backend is looked at after the register, for what was written before that runs."""
        found: dict[Address, tuple[Place | None, int]] = {}
        async with kept(self._bus, EGRESS, [f"{_PLACE}*"]) as messages:
            async for stored in messages:
                found[_address(stored.subject)] = (_read(stored), stored.sequence)
        wanted, changed = await look(), 0
        for address in found.keys() | wanted.keys():
            place, sequence = found.get(address, (None, 0))
            if place == wanted.get(address):
                continue
            body = msgspec.json.encode(PlaceDocument(place=wanted.get(address)))
            try:
                await self._bus.append(_place(address), body, expected=sequence)
            except Conflict:
                continue
            changed += 1
        return changed

    async def allow(self, scope: Scope, patterns: list[str] | None, *, actor: str = "") -> None:
        """Set a list; None takes it away. Raises Malformed for a pattern or a name that is none."""
        allowlist(patterns or ())
        try:
            document = msgspec.convert({"allow": patterns, "actor": actor}, RulesDocument)
        except msgspec.ValidationError as error:
            raise Malformed(f"the list: {error}") from error
        await self._bus.append(_rules(scope), msgspec.json.encode(document))

    async def rules(self) -> dict[Scope, RulesDocument | str]:
        """Every list that there is; a sentence in the place of one that cannot be read."""
        found: dict[Scope, RulesDocument | str] = {}
        async with kept(self._bus, EGRESS, [_RULES, f"{_RULES}.>"]) as messages:
            async for stored in messages:
                try:
                    read_document(stored.body)
                    found[_scope(stored.subject)] = msgspec.json.decode(stored.body, type=RulesDocument)
                except Malformed as error:
                    found[_scope(stored.subject)] = str(error)
        return {scope: each for scope, each in found.items() if isinstance(each, str) or each.allow is not None}


def _place(address: Address) -> str:
    return _PLACE + str(address).replace(".", "-")


def _address(subject: str) -> Address:
    try:
        return ip_address(subject.removeprefix(_PLACE).replace("-", "."))
    except ValueError as error:
        raise Malformed(f"{subject[:120]!r} names no address") from error


def _read(stored: Stored) -> Place | None:
    try:
        return msgspec.json.decode(stored.body, type=PlaceDocument).place
    except msgspec.DecodeError:
        return None


def _rules(scope: Scope) -> str:
    if not scope.org:
        return _RULES
    tokens = [_RULES, check_org(scope.org), *([check_id("session", scope.session)] if scope.session else [])]
    return ".".join(tokens)


def _scope(subject: str) -> Scope:
    tokens = subject.split(".")
    if not subject.startswith(_RULES) or not 2 <= len(tokens) <= 4:
        raise Malformed(f"{subject[:120]!r} is no document of the egress proxy")
    org, session = (*tokens[2:], "", "")[:2]
    return Scope(check_org(org) if org else "", check_id("session", session) if session else "")
