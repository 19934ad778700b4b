"""One turn's own subject: what it says, folded, and what is appended to it with the expected sequence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from sandreel_core.bus.backoff import FIRST_RETRY_S, backoff_s
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.clock import new_id, now
from sandreel_core.contract.codec import decode_event, encode, seal
from sandreel_core.contract.message import Envelope, Event
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Conflict, Malformed, Unavailable
from sandreel_core.log import Log
from sandreel_core.turn import Turn, fold


@dataclass(frozen=True, slots=True)
class Name:
    """Which turn."""

    org: str
    session: str
    turn: str

    def __str__(self) -> str:
        return f"{self.org}/{self.session}/{self.turn}"


class Sealed(NamedTuple):
    """An event as it is appended."""

    envelope: Envelope
    body: bytes


class Journal:
    """A turn as it is in the log up to `revision`, the last sequence of its subject that was folded.

    `requested_at`: the sequence of the event that asked for it, by which it is known what came after it in the session.
    """

    def __init__(self, bus: Bus, name: Name, partitions: int, *, source: str) -> None:
        self._bus = bus
        self.name = name
        self.source = source
        self.subjects = SessionSubjects(name.org, name.session, partitions)
        self.subject = self.subjects.event("turn", name.turn)
        self.turn = Turn()
        self.revision = 0
        self.requested_at = 0
        self.finished_at = 0
        self.changed = asyncio.Event()
        self._reading = 0
        self._whole = False
        self._heard: list[Stored] = []
        self._saying = asyncio.Lock()
        self._unsure: set[str] = set()
        self._log = Log("bridge.journal")

    @property
    def mine(self) -> bool:
        """Whether nobody else has driven it since."""
        return self.turn.driver == self.source

    def begin(self, event: Envelope, sequence: int) -> None:
        """With the event that asked for it, before which nothing of it stands."""
        if self.revision == 0:
            self._fold(event, sequence)

    def hear(self, stored: Stored) -> None:
        """An event of the subject that whoever watches all turns has read. Those before it must be known: while they are being
        read it waits, and where they were never read it is nothing."""
        if self._reading:
            self._heard.append(stored)
        elif self._whole and stored.sequence > self.revision:
            self._fold(self._decoded(stored), stored.sequence)

    @property
    def whole(self) -> bool:
        """Whether its subject was read, so that what is heard since keeps it up to date."""
        return self._whole

    async def catch_up(self) -> None:
        """Read the subject to its end. Raises Unavailable: what is heard from then on is folded as before."""
        subject, stream = self.subject, self.subjects.stream
        self._reading += 1
        try:
            async with aclosing(self._bus.follow(stream, [subject], after=self.revision, live=False)) as items:
                async for item in items:
                    for stored in item if isinstance(item, list) else ():
                        if stored.sequence > self.revision:
                            self._fold(self._decoded(stored), stored.sequence)
            self._whole = True
        finally:
            self._reading -= 1
            heard, self._heard = ([], self._heard) if self._reading else (self._heard, [])
            for stored in heard:
                self.hear(stored)

    async def say(self, event: Event, *, known: int | None = None) -> None:
        """Append it behind what is known, or was `known` when it was decided. Raises Conflict, having caught up, when somebody else has said something
        since: think again. While the bus is away it is tried for ever, and stands there once."""
        behind = self.revision if known is None else known
        await self._append([self.sealed(event)], lambda: self.revision == behind)

    async def insist(self, event: Event) -> None:
        """As `say`, again after each conflict for as long as the turn is ours and goes on: for what is true whatever
        others have asked for meanwhile. Raises Conflict when it is not ours (any more)."""
        await self.insist_all([self.sealed(event)])

    async def insist_all(self, events: Sequence[Sealed]) -> None:
        """As `insist`, 1 to `MAX_BATCH` of them in their order, at once: in the log there is never anything of somebody else between
        them, unless the server was killed while it stored them."""
        await self._append(events, lambda: self.mine and self.turn.phase != "finished")

    def sealed(self, event: Event) -> Sealed:
        """As it will stand in the log, but for its place."""
        envelope = seal(
            event,
            id=new_id(),
            source=self.source,
            subject=self.subject,
            time=now(),
            correlationid=self._correlation,
        )
        return Sealed(envelope, encode(envelope))

    async def _append(self, events: Sequence[Sealed], may: Callable[[], bool]) -> None:
        """Until they stand there, each once. One is `_unsure` until it was seen there, whoever saw it: the server's answer, a reading, or
        who watches all turns. So an answer that is lost costs a question at most, and nothing is stored twice: every try expects what
        is known then, which is what an earlier try expected, or has it in itself. `may`: asked before each try."""
        async with self._saying:
            self._unsure = {each.envelope.id for each in events}
            try:
                await self._try(events, may)
            finally:
                self._unsure = set()

    async def _try(self, events: Sequence[Sealed], may: Callable[[], bool]) -> None:
        failures = 0
        while left := [each for each in events if each.envelope.id in self._unsure]:
            expected = self.revision
            if not may():
                raise Conflict(f"{self.subject} has changed meanwhile", expected)
            try:
                last = await self._bus.append_all(self.subject, [each.body for each in left], expected=expected)
            except Conflict:
                await self._patiently_catch_up()
                if self.revision == expected:
                    raise  # what it ends with is older than what was read: a stream that was restored
            except Unavailable as error:
                failures += 1
                await self._wait(failures, "events wait", error, count=len(left))
            else:
                for sequence, each in enumerate(left, last - len(left) + 1):
                    if each.envelope.id in self._unsure:  # else it was heard already
                        self._fold(each.envelope, sequence)

    async def _patiently_catch_up(self) -> None:
        failures = 0
        while True:
            try:
                return await self.catch_up()
            except Unavailable as error:
                failures += 1
                await self._wait(failures, "the log is read later", error)

    async def _wait(self, failures: int, what: str, error: Unavailable, **fields: int) -> None:
        self._log.info(what, turn=str(self.name), problem=str(error), **fields)
        await asyncio.sleep(backoff_s(failures, FIRST_RETRY_S))

    @property
    def _correlation(self) -> str | None:
        asked = self.turn.asked
        return (asked.correlation_id or asked.command_id) if asked is not None else None

    def _fold(self, event: Envelope | None, sequence: int) -> None:
        before = self.turn
        self.revision = sequence
        if event is not None:
            self._unsure.discard(event.id)
            self.turn = fold(before, event)
        if before.phase == "none" != self.turn.phase:
            self.requested_at = sequence
        if before.phase != "finished" == self.turn.phase:
            self.finished_at = sequence
        self.changed.set()

    def _decoded(self, stored: Stored) -> Envelope | None:
        try:
            return decode_event(self.subject, stored.body)
        except Malformed as error:
            self._log.warning("a body that is no event", subject=self.subject, problem=str(error))
            return None
