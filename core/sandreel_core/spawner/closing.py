"""What a dead boot left open, closed: its execs, and the commands that it never answered (design §3)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal

from sandreel_core.bus.installed import SLOTS
from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.contract.codec import decode_command, decode_event
from sandreel_core.contract.exec import ExecCommand, Lost, Start
from sandreel_core.contract.message import Envelope, Event
from sandreel_core.contract.session import CommandRefused
from sandreel_core.contract.subjects import CMD, SessionSubjects, parse_command_subject
from sandreel_core.decider import answer
from sandreel_core.errors import Conflict, Malformed, NotFound, Refused, Unavailable
from sandreel_core.log import Log
from sandreel_core.spawner.backend import Cause, Key, boot_order
from sandreel_core.spawner.bootstrap import feed_of
from sandreel_core.spawner.heads import Heads
from sandreel_core.spawner.journal import Journal
from sandreel_core.spawner.sessions import PastBoot, Record

MAX_CONFLICTS = 16
CAUSES: dict[Cause, Literal["oom", "runnerd_died", "node_gone", "container_exit"]] = {
    "oom": "oom",
    "killed": "runnerd_died",
    "engine": "container_exit",
    "node": "node_gone",
    "exited": "runnerd_died",
}


class Closing:
    """Closes boots that the log says are over, and remembers which it has closed."""

    def __init__(self, bus: Bus, journal: Journal, heads: Heads, *, installation_key: bytes) -> None:
        self._installation_key = installation_key
        self._bus = bus
        self._journal = journal
        self._heads = heads
        self._closed: dict[Key, tuple[int, int]] = {}
        self._log = Log("spawner.closing")

    async def remember(self) -> None:
        """Read which boots have been closed before."""
        async with kept(self._bus, SLOTS, ["closed.>"]) as messages:
            async for stored in messages:
                _, org, session = stored.subject.split(".")
                self._closed[Key(org, session)] = boot_order(stored.body.decode(errors="replace"))

    def is_due(self, key: Key, record: Record) -> bool:
        """Whether a boot of the session has ended and is not closed."""
        return bool(record.past) and boot_order(record.past[-1].boot_id) > self._closed.get(key, (0, 0))

    async def close(self, key: Key, record: Record) -> None:
        """Close every boot that is over. Idempotent, also when several spawners do it at once."""
        for boot in record.past:
            if boot_order(boot.boot_id) <= self._closed.get(key, (0, 0)):
                continue
            subjects = self._journal.subjects(key)
            unended, answered, commands = await asyncio.gather(
                self._heads.open(subjects), self._answered(subjects), self._commands(subjects, boot)
            )
            lost = [exec_id for exec_id in unended if await self._lose(subjects, exec_id, boot)]
            refused = 0
            for stored in commands:
                if parse_command_subject(stored.subject).command_id not in answered:
                    refused += await self._answer(key, subjects, stored, boot)
            with suppress(NotFound):
                await self._bus.drop_feed(CMD, feed_of(self._installation_key, key, boot.boot_id))
            # Whoever writes it later or twice says the same: no expectation.
            await self._bus.append(f"closed.{key.org}.{key.session}", boot.boot_id.encode())
            self._closed[key] = boot_order(boot.boot_id)
            self._log.info("a boot was closed", session=str(key), boot=boot.boot_id, lost=len(lost), unanswered=refused)

    async def _lose(self, subjects: SessionSubjects, exec_id: str, boot: PastBoot) -> bool:
        """End an exec of the boot that has no end. False: it has one, or it is not this boot's."""
        for _ in range(MAX_CONFLICTS):
            head = await self._heads.read(subjects, exec_id)
            if head.ordinals.ended or head.accepted_by != boot.boot_id:
                return False
            last = head.ordinals.last
            lost = Lost(boot_id=boot.boot_id, last_n=last, cause=CAUSES[boot.cause])
            try:
                await self._journal.append(subjects.exec(exec_id), lost, expected=head.revision, n=last + 1)
            except Conflict:
                continue
            return True
        raise Unavailable(f"exec {exec_id} is written by somebody whose boot is dead")

    async def _commands(self, subjects: SessionSubjects, boot: PastBoot) -> list[Stored]:
        """The boot's commands, as far as CMD still has them."""
        found: list[Stored] = []
        async with kept(self._bus, CMD, [subjects.commands("runnerd")], after=boot.after) as messages:
            async for stored in messages:
                if stored.sequence > boot.until:
                    break
                found.append(stored)
        return found

    async def _answer(self, key: Key, subjects: SessionSubjects, stored: Stored, boot: PastBoot) -> int:
        """Give a command its outcome; how many that were (0: it has one)."""
        command_id = parse_command_subject(stored.subject).command_id
        command: Envelope | None = None
        refusal = Refused("OUTCOME_UNKNOWN", "the session's boot ended before it answered; it may have been done")
        try:
            command = decode_command(stored.subject, stored.body)
        except (Refused, Malformed) as error:
            refusal = error if isinstance(error, Refused) else Refused("BAD_REQUEST", str(error))
        if command is not None and isinstance(command.data, ExecCommand):
            head = await self._heads.read(subjects, command.data.exec)
            if command_id in head.answered:
                return 0
            if isinstance(command.data, Start):
                lost = Lost(boot_id=boot.boot_id, last_n=0, cause=CAUSES[boot.cause])
                try:
                    await self._journal.append(subjects.exec(command.data.exec), lost, expected=0, n=1, cause=command)
                except Conflict:
                    head = await self._heads.read(subjects, command.data.exec)
                    if command_id in head.answered:
                        return 0
                    refusal = Refused("DUPLICATE_EXEC", f"exec {command.data.exec} was there before")
                else:
                    return 1
        event = answer(command_id, refusal)

        def choose(_: Record, answered: frozenset[str]) -> Event | None:
            return None if command_id in answered else event

        done = await self._journal.decide(key, choose, cause=command or command_id)
        return 0 if done is None else 1

    async def _answered(self, subjects: SessionSubjects) -> set[str]:
        """Commands that an event on one of the session's low-rate subjects names as its cause."""
        filters = [subjects.event(name) for name in ("command", "workspace", "session")]
        answered: set[str] = set()
        async with kept(self._bus, subjects.stream, filters) as messages:
            async for stored in messages:
                try:
                    event = decode_event(stored.subject, stored.body)
                except Malformed:
                    continue
                if event.causationid:
                    answered.add(event.causationid)
                if isinstance(event.data, CommandRefused):
                    answered.add(event.data.command_id)
        return answered
