"""The one command loop: load, decide, append with the expected sequence, on conflict load again, then acknowledge.

Every command gets exactly one answer, the first event that names it as its cause; or, when it names nobody who
could be told, a dead letter. Whatever is thrown at it, the role goes on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from typing import Generic, TypeVar

from sandreel_core import clock
from sandreel_core.bus.aggregate import Admit, Aggregate, Decided, Decision, Elsewhere
from sandreel_core.bus.crew import Crew
from sandreel_core.bus.dead import MAX_FAILURES, Tally, bury
from sandreel_core.bus.loading import Loaded, load
from sandreel_core.bus.measures import CommandMeasures
from sandreel_core.bus.port import Bus, Delivery, Stored, Work
from sandreel_core.bus.streams import CMD_MAX_AGE_S, STALE_MARGIN_S
from sandreel_core.contract.codec import decode_command, encode, payload_of, seal
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Command, Envelope, Event
from sandreel_core.contract.session import CommandRefused
from sandreel_core.contract.subjects import CommandSubject, parse_command_subject, stream_of
from sandreel_core.decider import answer
from sandreel_core.errors import Conflict, Denied, Malformed, Refused, TooLarge, Unavailable
from sandreel_core.ids import uuid7_unix_ms
from sandreel_core.log import Log
from sandreel_core.metrics import Metrics

State = TypeVar("State")
Context = TypeVar("Context")

# What ends a process leaves no count but the server's. That one also grows while a command waits for a server or for room
# in a stream, which is no fault of the command and is counted here.
MAX_ATTEMPTS = 50
_MAX_CONFLICTS = 20
_REMEMBERED = 512
_GREATEST_DELAY_S = 30.0


__all__ = ["Admit", "Aggregate", "Decided", "Decision", "Elsewhere", "Reactor"]


class Reactor(Generic[State, Context]):
    """`run` until cancelled. At most `concurrency` commands at once; those of one subject in order."""

    def __init__(
        self,
        bus: Bus,
        work: Work,
        aggregate: Aggregate[State, Context],
        *,
        source: str,
        admit: Admit[State] | None = None,
        decided: Decided[State] | None = None,
        elsewhere: Elsewhere | None = None,
        command_max_age_s: float = CMD_MAX_AGE_S,
        concurrency: int = 32,
        now: Callable[[], datetime] = clock.now,
        nak_delay_s: float = 0.2,
        measures: CommandMeasures | None = None,
    ) -> None:
        self._bus = bus
        self._work = work
        self._aggregate = aggregate
        self._source = source
        self._admit = admit
        self._decided = decided
        self._elsewhere = elsewhere
        self._older = 0
        self._stale_after_s = command_max_age_s - STALE_MARGIN_S
        self._slots = asyncio.Semaphore(concurrency)
        self._now = now
        self._nak_delay_s = nak_delay_s
        self._measures = measures or CommandMeasures(Metrics())
        self._log = Log(f"reactor.{work.name}")
        self._known: OrderedDict[str, Loaded[State]] = OrderedDict()
        self._failures, self._waited = Tally(), Tally()
        self._queues: dict[str, tuple[asyncio.Lock, int]] = {}
        self._epochs: dict[str, str] = {}

    async def run(self) -> None:
        """Raises NotFound when there is no stream of commands."""
        self._older = (await self._bus.state(self._work.stream)).last_sequence if self._elsewhere is not None else 0
        async with Crew() as crew, aclosing(self._bus.work(self._work)) as deliveries:
            async for delivery in deliveries:
                await self._slots.acquire()
                crew.start(self._take(delivery))

    async def _take(self, delivery: Delivery) -> None:
        try:
            with suppress(Unavailable):  # it comes again, and is then found answered
                await self._react(delivery)
        finally:
            self._slots.release()

    async def _react(self, delivery: Delivery) -> None:
        stored = delivery.stored
        self._measures.delivered(delivery.attempts)
        try:
            where = parse_command_subject(stored.subject)
        except Malformed as error:
            self._log.warning("a command that names nobody", subject=stored.subject[:300], problem=str(error))
            await self._bury(stored)
            await delivery.term()
            return
        command, problem = _read(stored)
        subject = self._subject(where, command)
        async with self._in_turn(subject):
            try:
                if delivery.attempts - self._waited[stored.sequence] > MAX_ATTEMPTS:
                    await self._give_up(where, subject, stored)
                else:
                    await self._answer(where, subject, stored, command, problem)
            except Unavailable as error:
                self._known.pop(subject, None)
                self._waited.add(stored.sequence)
                self._log.info("a command waits", subject=stored.subject, problem=str(error))
                self._measures.given_back()
                await delivery.nak(min(_GREATEST_DELAY_S, self._nak_delay_s * 2 ** min(delivery.attempts, 10)))
                return
            except Exception:  # noqa: BLE001 - one command's failure must not end the role; after five it is buried
                self._known.pop(subject, None)
                failures = self._failures.add(stored.sequence)
                self._log.exception("a command failed", subject=stored.subject, failures=failures)
                if failures < MAX_FAILURES:
                    self._measures.given_back()
                    await delivery.nak(self._nak_delay_s * 2**failures)
                    return
                try:
                    await self._give_up(where, subject, stored)
                except (Denied, TooLarge) as error:
                    self._log.error("a command can be neither answered nor given up", problem=str(error))
                    await delivery.nak(_GREATEST_DELAY_S)
                    return
        for tally in (self._failures, self._waited):
            tally.forget(stored.sequence)
        await delivery.ack()

    def _subject(self, where: CommandSubject, command: Envelope | None) -> str:
        if command is not None and self._aggregate.keyed is not None and isinstance(command.data, Command):
            return self._aggregate.keyed(where, command.data)
        return self._aggregate.subject(where)

    async def _answer(
        self, where: CommandSubject, subject: str, stored: Stored, command: Envelope | None, problem: Refused | None
    ) -> None:
        """Until one event names the command as its cause. Raises Unavailable, and whatever a bug raises."""
        if self._elsewhere is not None and stored.sequence <= self._older and await self._elsewhere(where):
            return
        for _ in range(_MAX_CONFLICTS):
            loaded = await self._load(subject)
            if not self._aggregate.mine(loaded.state, stored):
                # No append will tell that what is known was old: so read it again.
                self._known.pop(subject, None)
                if not self._aggregate.mine((loaded := await self._load(subject)).state, stored):
                    return
            if where.command_id not in loaded.answers:
                said = problem or await self._judge(where, command, subject, stored, loaded)
                payload = answer(where.command_id, said)
                decision = Decision(where, command, loaded.state, self._seal(where, command, subject, payload))
                if self._admit is not None and not isinstance(said, Refused | None):
                    refusal = await self._admit(decision)
                    if refusal is not None:
                        payload = answer(where.command_id, refusal)
                        event = self._seal(where, command, subject, payload)
                        decision = Decision(where, command, loaded.state, event)
                try:
                    await self._append(decision, subject, loaded, stored)
                except Conflict:
                    await self._catch_up(subject, loaded)
                    continue
            if problem is not None:
                await self._bury(stored)
            return
        raise Unavailable(f"{subject} changes too often")

    async def _judge(
        self, where: CommandSubject, command: Envelope | None, subject: str, stored: Stored, loaded: Loaded[State]
    ) -> Event | Refused | None:
        if command is None:
            return Refused("BAD_REQUEST", "the command cannot be read")
        now = self._now()
        age_s = now.timestamp() - uuid7_unix_ms(where.command_id) / 1000
        if age_s > self._stale_after_s:
            return Refused("STALE", f"the command's id is {age_s:.0f} s old; the limit is {self._stale_after_s:.0f} s")
        if command.deadline is not None and now > command.deadline:
            return Refused("EXPIRED", f"the command's deadline was {command.deadline.isoformat()}")
        if command.expectedrevision is not None:
            refusal = await self._check_revision(command.expectedrevision, subject, loaded.revision)
            if refusal is not None:
                return refusal
        payload = payload_of(command)
        if not isinstance(payload, Command):
            return Refused("BAD_REQUEST", f"{command.type} is not a command")
        return self._aggregate.decide(loaded.state, payload, self._aggregate.context(stored))

    async def _check_revision(self, expected: str, subject: str, revision: int) -> Refused | None:
        stream = stream_of(subject)
        if stream not in self._epochs:
            self._epochs[stream] = (await self._bus.state(stream)).epoch
        try:
            cursor = Cursor.parse(expected)
        except Malformed as error:
            return Refused("BAD_REQUEST", f"expectedrevision: {error}")
        try:
            seen = cursor.check(self._epochs[stream])
        except Malformed as error:
            return Refused("WRONG_REVISION", str(error))
        if seen != revision or stream != f"REEL-{cursor.partition}":
            return Refused("WRONG_REVISION", f"the last event is at sequence {revision}, not {seen}")
        return None

    async def _append(self, decision: Decision[State], subject: str, loaded: Loaded[State], command: Stored) -> None:
        event = decision.event
        sequence = await self._bus.append(subject, encode(event), expected=loaded.revision)
        self._measure(command, event.data)
        self._remember(subject, self._folded(loaded, event, sequence))
        if self._decided is not None:
            stored = Decision(decision.where, decision.command, decision.state, event, sequence)
            await self._decided(stored)

    def learn(self, subject: str, event: Envelope, expected: int, sequence: int) -> None:
        """Somebody beside us has appended an event of the aggregate. If that was right behind what is known of it, the next
        command need not find out by a conflict that this is old."""
        loaded = self._known.get(subject)
        if loaded is not None and loaded.revision == expected:
            self._remember(subject, self._folded(loaded, event, sequence))

    def _folded(self, loaded: Loaded[State], event: Envelope, sequence: int) -> Loaded[State]:
        answers = dict(loaded.answers)
        if event.causationid is not None:
            answers.setdefault(event.causationid, event)
        return Loaded(self._aggregate.evolve(loaded.state, event), sequence, answers, loaded.skipped)

    def _measure(self, command: Stored, outcome: object) -> None:
        code = outcome.code if isinstance(outcome, CommandRefused) else None
        self._measures.answered(command, self._now().timestamp(), code)

    async def _give_up(self, where: CommandSubject, subject: str, stored: Stored) -> None:
        """Bury it, and refuse it without asking any code of the role's own. Raises Unavailable."""
        refusal = CommandRefused(
            command_id=where.command_id,
            code="INTERNAL",
            message="the command could not be handled; it is kept as a dead letter",
        )
        event = self._seal(where, None, subject, refusal)
        for _ in range(_MAX_CONFLICTS):
            loaded = await load(self._bus, subject, None, _untouched)
            if where.command_id not in loaded.answers:
                try:
                    await self._bus.append(subject, encode(event), expected=loaded.revision)
                except Conflict:
                    continue
                self._measure(stored, refusal)
            await self._bury(stored)
            return
        raise Unavailable(f"{subject} changes too often")

    async def _bury(self, stored: Stored) -> None:
        if await bury(self._bus, stored, self._log):
            self._measures.buried()

    def _seal(self, where: CommandSubject, command: Envelope | None, subject: str, payload: Event) -> Envelope:
        return seal(
            payload,
            id=clock.new_id(),
            source=self._source,
            subject=subject,
            time=self._now(),
            causationid=where.command_id,
            correlationid=(command.correlationid if command else None) or where.command_id,
            actor=command.actor if command else None,
            traceparent=command.traceparent if command else None,
        )

    async def _load(self, subject: str) -> Loaded[State]:
        """What is known may be old: then the append, which every answer is, meets a conflict."""
        loaded = self._known.get(subject)
        if loaded is None:
            loaded = await load(self._bus, subject, self._aggregate.initial, self._aggregate.evolve)
            self._remember(subject, loaded)
        return loaded

    async def _catch_up(self, subject: str, known: Loaded[State]) -> None:
        """Read what somebody else has appended; all of it where that is not behind what is known (a restored stream)."""
        self._known.pop(subject, None)
        newer = await load(self._bus, subject, self._aggregate.initial, self._aggregate.evolve, known=known)
        if newer.revision > known.revision:
            self._remember(subject, newer)

    def _remember(self, subject: str, loaded: Loaded[State]) -> None:
        self._known[subject] = loaded
        self._known.move_to_end(subject)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    @asynccontextmanager
    async def _in_turn(self, subject: str) -> AsyncIterator[None]:
        lock, waiting = self._queues.get(subject, (asyncio.Lock(), 0))
        self._queues[subject] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._queues.pop(subject)
            if waiting > 1:
                self._queues[subject] = (lock, waiting - 1)


def _read(stored: Stored) -> tuple[Envelope | None, Refused | None]:
    """The command, or why it cannot be read."""
    try:
        return decode_command(stored.subject, stored.body), None
    except Refused as problem:
        return None, problem


def _untouched(state: None, event: Envelope) -> None:
    return state
