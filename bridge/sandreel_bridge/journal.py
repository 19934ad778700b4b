"""One turn's own subject: what it says, folded, and what is appended to it with the expected sequence."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

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

    async def catch_up(self, looked_for: str = "", *, after: int | None = None) -> bool:
        """Read the subject to its end, from behind what is known or behind `after`; whether an event of that id stood there.
        Raises Unavailable: what is heard from then on is folded as before."""
        found = False
        subject, stream = self.subject, self.subjects.stream
        after = self.revision if after is None else min(after, self.revision)
        self._reading += 1
        try:
            async with aclosing(self._bus.follow(stream, [subject], after=after, live=False)) as items:
                async for item in items:
                    for stored in item if isinstance(item, list) else ():
                        event = self._decoded(stored)
                        found = found or (event is not None and event.id == looked_for)
                        if stored.sequence > self.revision:
                            self._fold(event, stored.sequence)
            self._whole = True
        finally:
            self._reading -= 1
            heard, self._heard = ([], self._heard) if self._reading else (self._heard, [])
            for stored in heard:
                self.hear(stored)
        return found

    async def say(self, event: Event) -> None:
        """Append it behind what is known. Raises Conflict, having caught up, when somebody else has said something
        since: think again. While the bus is away it is tried for ever, and stands there once."""
        envelope = seal(
            event,
            id=new_id(),
            source=self.source,
            subject=self.subject,
            time=now(),
            correlationid=self._correlation,
        )
        body = encode(envelope)
        failures = 0
        # The same for every try: what is heard meanwhile may be this very event, whose answer was lost.
        expected = self.revision
        while True:
            try:
                sequence = await self._bus.append(self.subject, body, expected=expected)
            except Conflict:
                if await self._stands(envelope.id, expected) and failures:
                    return
                raise
            except Unavailable as error:
                failures += 1
                self._log.info("an event waits", turn=str(self.name), type=event.type, problem=str(error))
                await asyncio.sleep(backoff_s(failures, FIRST_RETRY_S))
            else:
                if sequence > self.revision:  # else it was heard already
                    self._fold(envelope, sequence)
                return

    async def _stands(self, id: str, after: int) -> bool:
        """`catch_up`, for as long as the bus is away: before that nobody knows whether the event is in the log."""
        failures = 0
        while True:
            try:
                return await self.catch_up(id, after=after)
            except Unavailable as error:
                failures += 1
                self._log.info("a turn cannot be read", turn=str(self.name), problem=str(error))
                await asyncio.sleep(backoff_s(failures, FIRST_RETRY_S))

    async def insist(self, event: Event) -> None:
        """As `say`, again after each conflict for as long as the turn is ours and goes on: for what is true whatever
        others have asked for meanwhile. Raises Conflict when it is not ours any more."""
        while True:
            try:
                return await self.say(event)
            except Conflict:
                if not self.mine or self.turn.phase == "finished":
                    raise

    @property
    def _correlation(self) -> str | None:
        asked = self.turn.asked
        return (asked.correlation_id or asked.command_id) if asked is not None else None

    def _fold(self, event: Envelope | None, sequence: int) -> None:
        before = self.turn
        self.revision = sequence
        if event is not None:
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
