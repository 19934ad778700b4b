"""The one command loop: load, decide, append with the expected sequence, on conflict load again, then acknowledge.

Every command gets exactly one answer (answers.py), the first event that names it as its cause; or, when it names nobody
who could be told, a dead letter. Whatever is thrown at it, the role goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from typing import Generic, TypeVar

from sandreel_core import clock
from sandreel_core.bus.aggregate import Admit, Aggregate, Decided, Elsewhere
from sandreel_core.bus.answers import Answers, Asked
from sandreel_core.bus.crew import Crew
from sandreel_core.bus.dead import MAX_FAILURES, Tally
from sandreel_core.bus.known import Known
from sandreel_core.bus.measures import CommandMeasures
from sandreel_core.bus.port import Bus, Delivery, Work
from sandreel_core.bus.streams import CMD_MAX_AGE_S, STALE_MARGIN_S
from sandreel_core.contract.message import Envelope
from sandreel_core.errors import Denied, Malformed, TooLarge, Unavailable
from sandreel_core.log import Log
from sandreel_core.metrics import Metrics

State = TypeVar("State")
Context = TypeVar("Context")

# What ends a process leaves no count but the server's. That one also grows while a command waits for a server or for room
# in a stream, which is no fault of the command and is counted here.
MAX_ATTEMPTS = 50
_GREATEST_DELAY_S = 30.0


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
        self._slots = asyncio.Semaphore(concurrency)
        self._nak_delay_s = nak_delay_s
        self._measures = measures or CommandMeasures(Metrics())
        self._log = Log(f"reactor.{work.name}")
        self._known = Known(bus, aggregate)
        self._answers = Answers(
            bus,
            aggregate,
            self._known,
            source=source,
            admit=admit,
            decided=decided,
            elsewhere=elsewhere,
            stale_after_s=command_max_age_s - STALE_MARGIN_S,
            now=now,
            measures=self._measures,
            log=self._log,
        )
        self._failures, self._waited = Tally(), Tally()
        self._queues: dict[str, tuple[asyncio.Lock, int]] = {}

    async def run(self) -> None:
        """Raises NotFound when there is no stream of commands."""
        await self._answers.begin(self._work.stream)
        async with Crew() as crew, aclosing(self._bus.work(self._work)) as deliveries:
            async for delivery in deliveries:
                await self._slots.acquire()
                crew.start(self._take(delivery))

    def learn(self, subject: str, event: Envelope, expected: int, sequence: int) -> None:
        """Somebody beside us has appended an event of the aggregate. If that was right behind what is known of it, the next
        command need not find out by a conflict that this is old."""
        self._known.learn(subject, event, expected, sequence)

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
            asked = self._answers.asked(stored)
        except Malformed as error:
            self._log.warning("a command that names nobody", subject=stored.subject[:300], problem=str(error))
            await self._answers.bury(stored)
            await delivery.term()
            return
        async with self._in_turn(asked.subject):
            if not await self._settle(delivery, asked):
                return
        for tally in (self._failures, self._waited):
            tally.forget(stored.sequence)
        await delivery.ack()

    async def _settle(self, delivery: Delivery, asked: Asked) -> bool:
        """Whether the command is done with, answered or buried; else it was given back, to come again."""
        stored = delivery.stored
        try:
            if delivery.attempts - self._waited[stored.sequence] > MAX_ATTEMPTS:
                await self._answers.give_up(asked)
            else:
                await self._answers.answer(asked)
        except Unavailable as error:
            self._known.forget(asked.subject)
            self._waited.add(stored.sequence)
            self._log.info("a command waits", subject=stored.subject, problem=str(error))
            self._measures.given_back()
            await delivery.nak(min(_GREATEST_DELAY_S, self._nak_delay_s * 2 ** min(delivery.attempts, 10)))
            return False
        except Exception:  # noqa: BLE001 - one command's failure must not end the role; after five it is buried
            self._known.forget(asked.subject)
            failures = self._failures.add(stored.sequence)
            self._log.exception("a command failed", subject=stored.subject, failures=failures)
            if failures < MAX_FAILURES:
                self._measures.given_back()
                await delivery.nak(self._nak_delay_s * 2**failures)
                return False
            try:
                await self._answers.give_up(asked)
            except (Denied, TooLarge) as error:
                self._log.error("a command can be neither answered nor given up", problem=str(error))
                await delivery.nak(_GREATEST_DELAY_S)
                return False
        return True

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
