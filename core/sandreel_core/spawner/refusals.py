"""Commands that nobody else will ever read: those to runnerd that no boot owns, those to roles that are not installed.

They are refused at once, on the session's own subject (design §3): expecting the session's revision there makes refusing
and provisioning exclude each other. What names nobody, or cannot be read, is a dead letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress

from sandreel_core.bus.dead import MAX_FAILURES, Tally, bury
from sandreel_core.bus.measures import CommandMeasures
from sandreel_core.bus.port import Bus, Delivery, Stored, Work
from sandreel_core.clock import now
from sandreel_core.contract.codec import decode_command
from sandreel_core.contract.message import Envelope, Event
from sandreel_core.contract.session import CommandRefused
from sandreel_core.contract.subjects import CommandSubject, parse_command_subject
from sandreel_core.decider import answer
from sandreel_core.errors import Malformed, Refused, Unavailable
from sandreel_core.log import Log
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.journal import Journal
from sandreel_core.spawner.sessions import Record, Sessions

MAX_AT_ONCE = 64
_GIVE_UP_AGAIN_S = 30.0
_GIVEN_UP = Refused("INTERNAL", "the command could not be handled; it is kept as a dead letter")


class Refusals:
    """Reads every command but the spawner's own."""

    def __init__(
        self,
        bus: Bus,
        work: Work,
        journal: Journal,
        sessions: Sessions,
        measures: CommandMeasures,
        *,
        roles: Collection[str] = (),
        nak_delay_s: float = 0.2,
    ) -> None:
        """roles: those that are installed, and answer for themselves."""
        self._bus = bus
        self._roles = frozenset(roles)
        self._measures = measures
        self._work = work
        self._journal = journal
        self._sessions = sessions
        self._nak_delay_s = nak_delay_s
        self._failures = Tally()
        self._room = asyncio.Semaphore(MAX_AT_ONCE)
        self._log = Log("spawner.refusals")

    async def run(self) -> None:
        """For ever."""
        await self._sessions.caught_up()
        async with asyncio.TaskGroup() as group:
            async for delivery in self._bus.work(self._work):
                await self._room.acquire()
                group.create_task(self._handle(delivery), name="refusal")

    async def _handle(self, delivery: Delivery) -> None:
        try:
            with suppress(Unavailable):  # it is delivered again after the ack wait in any case
                await self._answer(delivery)
        finally:
            self._room.release()

    async def _answer(self, delivery: Delivery) -> None:
        stored = delivery.stored
        if stored.subject.startswith("cmd.spawner."):
            await delivery.ack()  # the reactor's
            return
        self._measures.delivered(delivery.attempts)
        try:
            where = parse_command_subject(stored.subject)
        except Malformed as error:
            self._log.warning("a command names nobody", subject=stored.subject[:200], problem=str(error))
            await self._bury(stored)
            await delivery.term()
            return
        try:
            await self._settle(where, stored)
        except Unavailable as error:
            self._log.warning("a command waits", subject=stored.subject, problem=str(error))
            self._measures.given_back()
            await delivery.nak(error.retry_after_s)
            return
        except Exception:  # noqa: BLE001 - one command's failure must not end the role; after five it is buried
            failures = self._failures.add(stored.sequence)
            self._log.exception("a command failed", subject=stored.subject, failures=failures)
            if failures < MAX_FAILURES:
                self._measures.given_back()
                await delivery.nak(self._nak_delay_s * 2**failures)
                return
            await self._bury(stored)
            try:
                await self._refuse(where, stored, None, _GIVEN_UP)
            except Exception as error:  # noqa: BLE001 - that is what it failed with five times
                self._log.error("a command can be neither answered nor given up", problem=str(error))
                self._measures.given_back()
                await delivery.nak(_GIVE_UP_AGAIN_S)
                return
        self._failures.forget(stored.sequence)
        await delivery.ack()

    async def _bury(self, stored: Stored) -> None:
        if await bury(self._bus, stored, self._log):
            self._measures.buried()

    async def _settle(self, where: CommandSubject, stored: Stored) -> None:
        command: Envelope | None = None
        try:
            command = decode_command(stored.subject, stored.body)
        except Refused:
            await self._bury(stored)  # whoever it is for refuses it
        if where.role in self._roles:
            return
        if where.role != "runnerd":
            why = Refused("ROLE_NOT_INSTALLED", f"there is no {where.role} here that could take the command")
            await self._refuse(where, stored, command, why)
        elif not await self._surely_owned(Key(where.org, where.session), stored.sequence):
            await self._refuse(where, stored, command)

    async def _surely_owned(self, key: Key, sequence: int) -> bool:
        """One look instead of a load, for the many commands that go to a live boot.

        The table may lag. It is as new as the log if its revision is the subject's last, and the command was
        stored before we looked: so whoever ends the boot later counts the command as its own.
        """
        known = self._sessions.get(key)
        if not known.record.owned(sequence):
            return False
        subjects = self._journal.subjects(key)
        last = await self._bus.last(subjects.stream, subjects.event("session"))
        return last is not None and last.sequence == known.revision

    async def _refuse(
        self, where: CommandSubject, stored: Stored, command: Envelope | None, why: Refused | None = None
    ) -> None:
        """Unless it has an answer, or a boot that gives one."""

        def choose(record: Record, answered: frozenset[str]) -> Event | None:
            owned = where.role == "runnerd" and record.owned(stored.sequence)
            return None if owned or where.command_id in answered else answer(where.command_id, why or refusal(record))

        said = await self._journal.decide(Key(where.org, where.session), choose, cause=command or where.command_id)
        if isinstance(said, CommandRefused):
            self._measures.answered(stored, now().timestamp(), said.code)


def refusal(record: Record) -> Refused:
    """What is said to a command to a session that has no boot to read it."""
    phase = record.session.phase
    if phase == "none":
        return Refused("SESSION_NOT_FOUND", "there is no session with this id")
    if phase in ("destroying", "destroyed"):
        return Refused("SESSION_NOT_FOUND", f"the session is {phase}")
    return Refused("SESSION_NOT_READY", f"the session is {phase}: nothing runs that could take the command")
