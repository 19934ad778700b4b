"""Sending one command, and finding the one event that answers it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sandreel_core.bus.port import Bus, Stored
from sandreel_core.client.reels import Reels
from sandreel_core.clock import new_id
from sandreel_core.contract.codec import decode_command, decode_event, encode, seal
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.exec import ExecCommand, Start
from sandreel_core.contract.message import Command, Envelope
from sandreel_core.contract.session import CommandRefused, CommandSettled
from sandreel_core.contract.subjects import CMD, KEYED, SessionSubjects
from sandreel_core.errors import AlreadyExists, Denied, Malformed, NotFound, Refused, Unavailable
from sandreel_core.ids import check_command_id, uuid7_unix_ms

# A command that somebody named long ago may have been answered, and dropped from CMD, before it is sent again.
_OLD = timedelta(hours=1)
_REMEMBERED = 1024
_RETRY_S = 0.25
_MAX_RETRY_S = 2.0
# A start is nearly always answered within milliseconds, by the first event of its exec: one question finds that. A reader
# of all places where an answer may stand is five requests, at the very moment when the start needs the processor.
_SOON_S = (0.003, 0.003, 0.006)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The event that answered a command. `settled`: it was already so, and nothing changed."""

    command_id: str
    cursor: Cursor
    event: Envelope

    @property
    def data(self) -> Any:
        return self.event.data

    @property
    def settled(self) -> bool:
        return isinstance(self.event.data, CommandSettled)


@dataclass(frozen=True, slots=True)
class Order:
    """One command on its way: what is asked, of whom, by when."""

    subjects: SessionSubjects
    payload: Command
    command_id: str | None = None
    deadline: datetime | None = None
    expected_revision: Cursor | None = None
    correlation_id: str | None = None

    @property
    def answers(self) -> list[str]:
        """The subjects on which the role, or the spawner in its place, may answer. All are in one stream."""
        aggregate = self.payload.aggregate
        key = getattr(self.payload, aggregate, "") if aggregate in KEYED else ""
        own = self.subjects.event(aggregate, key)
        if self.payload.role == "spawner":
            return [own]
        session, command = self.subjects.event("session"), self.subjects.event("command")
        workspace = [self.subjects.event("workspace")] if self.payload.role == "runnerd" else []
        return list(dict.fromkeys([own, command, session, *workspace]))

    @property
    def among_output(self) -> bool:
        """Whether the answer may stand behind any amount of what is no answer."""
        return isinstance(self.payload, ExecCommand) and not isinstance(self.payload, Start)


class Commands:
    """Appends commands to CMD and waits for their outcomes."""

    def __init__(self, bus: Bus, reels: Reels, *, source: str, actor: str | None, now: Callable[[], datetime]) -> None:
        self._bus = bus
        self._reels = reels
        self._source = source
        self._actor = actor
        self._now = now
        # Of commands with a given id that we were the first to send: the floor before that.
        self._sent: OrderedDict[str, int] = OrderedDict()

    async def ask(self, order: Order, *, timeout_s: float) -> Outcome:
        """The outcome. Raises Refused with the role's code, or BAD_REQUEST before anything is sent;
        Unavailable when no answer came in time: the command may still be carried out, and asking again
        with the id that the error names is safe. Denied, TooLarge, NotFound (no such installation)."""
        command_id = check_command_id(order.command_id) if order.command_id else new_id()
        troubles: list[Unavailable] = []
        try:
            async with asyncio.timeout(timeout_s):
                after = await self._send(order, command_id, troubles)
                return await self._outcome(order, command_id, after, troubles)
        except TimeoutError as error:
            why = f" ({troubles[-1]})" if troubles else ""
            raise Unavailable(
                f"no answer to {order.payload.type} within {timeout_s:g} s{why}; command {command_id} may still be carried out"
            ) from error

    async def sent(self, order: Order) -> bool:
        """Whether a command of this given id stands in CMD already: then to send it again only asks for its outcome."""
        if order.command_id is None:
            return False
        subject = order.subjects.command(order.payload.role, check_command_id(order.command_id))
        try:
            return await self._bus.last(CMD, subject) is not None
        except (Unavailable, NotFound, Denied):
            return False

    async def _send(self, order: Order, command_id: str, troubles: list[Unavailable]) -> int:
        """Append until it is stored, however often; the sequence behind which the answer stands."""
        subject = order.subjects.command(order.payload.role, command_id)
        body = encode(self._envelope(order, subject, command_id))
        decode_command(subject, body)
        partition = order.subjects.partition
        floor = await _persist(lambda: self._reels.floor(partition, fresh=order.among_output), troubles)
        # Whoever names a command may have sent it before, from anywhere: then it is known only where we did.
        before = self._sent.get(command_id, 0) if order.command_id else floor
        if before > floor:
            before = 0  # the stream was restored
        try:
            await _persist(lambda: self._bus.append(subject, body), troubles)
        except AlreadyExists:
            return before
        if order.command_id:
            if command_id in self._sent or self._is_old(command_id):
                return before
            self._sent[command_id] = floor
            if len(self._sent) > _REMEMBERED:
                self._sent.popitem(last=False)
        return floor

    def _envelope(self, order: Order, subject: str, command_id: str) -> Envelope:
        revision = str(order.expected_revision) if order.expected_revision else None
        return seal(
            order.payload,
            id=command_id,
            source=self._source,
            subject=subject,
            time=self._now(),
            actor=self._actor,
            deadline=order.deadline,
            expectedrevision=revision,
            correlationid=order.correlation_id,
        )

    def _is_old(self, command_id: str) -> bool:
        return uuid7_unix_ms(command_id) < (self._now() - _OLD).timestamp() * 1000

    async def _outcome(self, order: Order, command_id: str, after: int, troubles: list[Unavailable]) -> Outcome:
        async def first() -> Outcome:
            if isinstance(order.payload, Start) and (soon := await self._soon(order, command_id, after)) is not None:
                return soon
            async with aclosing(self._caused_by(order, command_id, after)) as found:
                async for outcome in found:
                    return outcome
            raise Unavailable("the reader of answers ended")

        outcome = await _persist(first, troubles)
        if isinstance(outcome.data, CommandRefused):
            raise Refused(outcome.data.code, outcome.data.message)
        return outcome

    async def _soon(self, order: Order, command_id: str, after: int) -> Outcome | None:
        """The answer, if it is the next event of the exec within a few milliseconds."""
        for pause_s in _SOON_S:
            await asyncio.sleep(pause_s)
            stored = await self._bus.next(order.subjects.stream, order.answers[0], after=after)
            if stored is not None:
                event = caused_by(stored, command_id)
                return None if event is None else await self._answered(order, command_id, stored, event)
        return None

    async def _answered(self, order: Order, command_id: str, stored: Stored, event: Envelope) -> Outcome:
        partition = order.subjects.partition
        self._reels.reached(partition, stored.sequence)
        return Outcome(command_id, await self._reels.cursor(partition, stored.sequence), event)

    async def _caused_by(self, order: Order, command_id: str, after: int) -> AsyncGenerator[Outcome, None]:
        needle = command_id.encode()
        async with aclosing(self._bus.follow(order.subjects.stream, order.answers, after=after)) as items:
            async for batch in items:
                if not isinstance(batch, list):
                    continue
                for stored in batch:
                    if needle in stored.body and (event := caused_by(stored, command_id)) is not None:
                        yield await self._answered(order, command_id, stored, event)


def caused_by(stored: Stored, command_id: str) -> Envelope | None:
    """The event, if it is one and answers this command."""
    try:
        event = decode_event(stored.subject, stored.body)
    except Malformed:
        return None
    return event if event.causationid == command_id else None


async def _persist(attempt: Callable[[], Awaitable[T]], troubles: list[Unavailable]) -> T:
    """Try while the bus is away, and remember why it did not work (last). The caller's time-out is the bound."""
    delay_s = _RETRY_S
    while True:
        try:
            return await attempt()
        except Unavailable as error:
            troubles[:] = [error]
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _MAX_RETRY_S)
