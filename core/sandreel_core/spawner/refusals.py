"""Commands to runnerd that no boot will ever read: refused at once, on the session's own subject (design §3).

Expecting the session's revision there makes refusing and provisioning exclude each other.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from sandreel_core.bus.measures import CommandMeasures
from sandreel_core.bus.port import Bus, Delivery, Work
from sandreel_core.clock import now
from sandreel_core.contract.codec import decode_command
from sandreel_core.contract.message import Envelope, Event
from sandreel_core.contract.session import CommandRefused
from sandreel_core.contract.subjects import parse_command_subject
from sandreel_core.errors import Malformed, Refused, SandreelError, Unavailable
from sandreel_core.log import Log
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.journal import Journal
from sandreel_core.spawner.sessions import Record, Sessions

MAX_AT_ONCE = 64
RETRY_S = 5.0


class Refusals:
    """Reads every command to runnerd, and answers those that no boot owns."""

    def __init__(self, bus: Bus, work: Work, journal: Journal, sessions: Sessions, measures: CommandMeasures) -> None:
        self._bus = bus
        self._measures = measures
        self._work = work
        self._journal = journal
        self._sessions = sessions
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
        stored = delivery.stored
        self._measures.delivered(delivery.attempts)
        try:
            where = parse_command_subject(stored.subject)
            key = Key(where.org, where.session)
            if not await self._surely_owned(key, stored.sequence):
                await self._refuse(key, where.command_id, delivery)
            await delivery.ack()
        except Malformed as error:
            self._log.warning("a command names nobody", subject=stored.subject[:200], problem=str(error))
            with suppress(SandreelError):
                await delivery.term()
        except SandreelError as error:
            self._log.warning("a command waits", subject=stored.subject, problem=str(error))
            self._measures.given_back()
            with suppress(SandreelError):  # it is delivered again after the ack wait in any case
                await delivery.nak(error.retry_after_s if isinstance(error, Unavailable) else RETRY_S)
        finally:
            self._room.release()

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

    async def _refuse(self, key: Key, command_id: str, delivery: Delivery) -> None:
        stored = delivery.stored

        def choose(record: Record, answered: frozenset[str]) -> Event | None:
            if record.owned(stored.sequence) or command_id in answered:
                return None
            code, message = refusal(record)
            return CommandRefused(command_id=command_id, code=code, message=message)

        said = await self._journal.decide(key, choose, cause=_envelope(delivery) or command_id)
        if isinstance(said, CommandRefused):
            self._measures.answered(stored, now().timestamp(), said.code)


def refusal(record: Record) -> tuple[str, str]:
    """(code, sentence) for a command to a session that has no boot to read it."""
    phase = record.session.phase
    if phase == "none":
        return "SESSION_NOT_FOUND", "there is no session with this id"
    if phase in ("destroying", "destroyed"):
        return "SESSION_NOT_FOUND", f"the session is {phase}"
    return "SESSION_NOT_READY", f"the session is {phase}: nothing runs that could take the command"


def _envelope(delivery: Delivery) -> Envelope | None:
    """The command, for who asked and what it belongs to; None when it cannot be read."""
    try:
        return decode_command(delivery.stored.subject, delivery.stored.body)
    except (Refused, Malformed):
        return None
