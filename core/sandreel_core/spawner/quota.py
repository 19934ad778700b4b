"""Quotas: one document a scope with the sessions that hold its slots, changed by compare-and-set.

A slot is taken before the event that needs it is appended, so creates in flight count. What a crash in
between leaves is taken back by `settle`, which makes the documents agree with the log.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from sandreel_core.bus.installed import ROLES, SLOTS
from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus, Stream
from sandreel_core.contract.message import Owner
from sandreel_core.errors import Conflict, Refused, Unavailable
from sandreel_core.session import Session
from sandreel_core.spawner.backend import Key

MAX_RETRIES = 32
# A slot without an active session is spared so long: its event may be on its way.
IN_FLIGHT_S = 60.0


def slots(*, replicas: int = 1) -> Stream:
    """The stream of the documents: the newest body of each subject counts."""
    # `closed`: which boots are closed (closing.py); `home`: home.py; `roles`: who answers for himself (bus/installed.py)
    subjects = ("slot.>", "closed.>", "home", ROLES)
    return Stream(name=SLOTS, subjects=subjects, max_bytes=256 * 1024 * 1024, per_subject=1, replicas=replicas)


class Slot(Struct, frozen=True, kw_only=True):
    holder: str
    taken_at: datetime


class Document(Struct, frozen=True, kw_only=True, omit_defaults=True):
    slots: Annotated[list[Slot], Meta(max_length=100_000)] = []


@dataclass(frozen=True, slots=True)
class Quotas:
    """How many active sessions there may be (design §6)."""

    per_owner: int = 1
    per_org: int = 50
    per_host: int = 10


@dataclass(frozen=True, slots=True)
class Claim:
    """What one active session counts against. `node`: the host that has it, or will."""

    key: Key
    incarnation: int
    owner: Owner
    node: str

    @property
    def holder(self) -> str:
        return f"{self.key}/{self.incarnation}"


def claim_of(key: Key, session: Session, node: str) -> Claim | None:
    """What an active session counts against; None for one without an owner."""
    if session.owner is None:
        return None
    return Claim(key=key, incarnation=session.incarnation, owner=session.owner, node=session.node or node)


class Quota:
    """The slots of an installation."""

    def __init__(self, bus: Bus, quotas: Quotas) -> None:
        self._bus = bus
        self._quotas = quotas
        # (subject, holder) of the slots that the last `settle` missed; None before the first.
        self._missed: set[tuple[str, str]] | None = None

    def _scopes(self, claim: Claim) -> list[tuple[str, int, str]]:
        """(subject, limit, name): the host before the org, as behaviour §2.2 has it, then the owner."""
        org, owner = claim.key.org, claim.owner
        digest = hashlib.sha256(f"{owner.type}:{owner.id}".encode()).hexdigest()[:32]
        return [
            (f"slot.host.{_token(claim.node)}", self._quotas.per_host, "host"),
            (f"slot.org.{org}", self._quotas.per_org, "org"),
            (f"slot.owner.{org}.{digest}", self._quotas.per_owner, "owner"),
        ]

    async def take(self, claim: Claim, now: datetime) -> None:
        """Take a slot in every scope, or none. Idempotent. Raises Refused (QUOTA_EXCEEDED, naming the limit)."""
        taken: list[str] = []
        for subject, limit, name in self._scopes(claim):
            if not await self._change(subject, claim.holder, now, limit):
                for other in taken:
                    await self._change(other, claim.holder, None, 0)
                noun = "session" if limit == 1 else "sessions"
                raise Refused("QUOTA_EXCEEDED", f"the limit of {limit} active {noun} per {name} is reached")
            taken.append(subject)

    async def release(self, claim: Claim) -> None:
        """Give the slots back. Idempotent."""
        scopes = self._scopes(claim)
        await asyncio.gather(*(self._change(subject, claim.holder, None, 0) for subject, _, _ in scopes))

    async def _change(self, subject: str, holder: str, now: datetime | None, limit: int) -> bool:
        """Add the holder (`now` given) or take it away; False when the document is full."""
        for _ in range(MAX_RETRIES):
            document, revision = await self._read(subject)
            held = any(slot.holder == holder for slot in document.slots)
            if held is (now is not None):
                return True
            if now is not None and len(document.slots) >= limit:
                return False
            rest = [slot for slot in document.slots if slot.holder != holder]
            if now is not None:
                rest.append(Slot(holder=holder, taken_at=now))
            if await self._write(subject, replace(document, slots=rest), revision):
                return True
        raise Unavailable(f"the slots of {subject} are changed all the time")

    async def settle(self, active: Mapping[str, Claim], now: datetime) -> int:
        """Make the documents agree with the log, `active` being its active sessions by holder; how many changed.

        now  when `active` was read: what was taken shortly before or since may not be in it
        A session that is active gets its slot even where that is one too many: it is there. But for the first
        time it has to be missed twice in a row, since a slot is given back just before the log says so.
        """
        wanted: dict[str, set[str]] = {}
        for claim in active.values():
            for subject, _, _ in self._scopes(claim):
                wanted.setdefault(subject, set()).add(claim.holder)
        changed = 0
        before, missed = now - timedelta(seconds=IN_FLIGHT_S), set[tuple[str, str]]()
        stored = await self._read_all()
        for subject in sorted(set(stored) | set(wanted)):
            document, revision = stored.get(subject, (Document(), 0))
            due = wanted.get(subject, set())
            kept = [slot for slot in document.slots if slot.holder in due or slot.taken_at > before]
            missing = due - {slot.holder for slot in kept}
            missed |= {(subject, holder) for holder in missing}
            certain = [h for h in sorted(missing) if self._missed is None or (subject, h) in self._missed]
            # Not as if just taken: if it is not due the next time, it goes at once.
            kept += [Slot(holder=holder, taken_at=before) for holder in certain]
            if kept == document.slots and (kept or not revision):
                continue
            if await self._write(subject, replace(document, slots=kept), revision):
                changed += 1
        self._missed = missed
        return changed

    async def _read(self, subject: str) -> tuple[Document, int]:
        stored = await self._bus.last(SLOTS, subject)
        return (Document(), 0) if stored is None else (_decode(stored.body), stored.sequence)

    async def _read_all(self) -> dict[str, tuple[Document, int]]:
        """Every document with its revision, in one reading: one by one, so many take longer than a start may."""
        found: dict[str, tuple[Document, int]] = {}
        async with kept(self._bus, SLOTS, ["slot.>"]) as messages:
            async for stored in messages:
                found[stored.subject] = (_decode(stored.body), stored.sequence)
        return found

    async def _write(self, subject: str, document: Document, revision: int) -> bool:
        """Whether it was still at this revision. An empty one goes: every owner that there ever was would have one."""
        if not document.slots:
            # Only what is there at that revision: what somebody wrote since has a larger one.
            return not revision or await self._bus.purge(SLOTS, subject, up_to=revision + 1) > 0
        try:
            await self._bus.append(subject, msgspec.json.encode(document), expected=revision)
        except Conflict:
            return False
        return True


def _decode(body: bytes) -> Document:
    try:
        return msgspec.json.decode(body, type=Document)
    except msgspec.DecodeError:
        return Document()  # `settle` fills it again from the log


def claims(pairs: Iterable[Claim]) -> dict[str, Claim]:
    """By holder."""
    return {claim.holder: claim for claim in pairs}


def _token(text: str) -> str:
    """A host's name as one token of a subject."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in text)
