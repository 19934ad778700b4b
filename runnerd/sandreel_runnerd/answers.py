"""What runnerd appends besides execs: what it changed in the workspace, and what it refused or found settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from sandreel_core.bus.port import Bus
from sandreel_core.clock import new_id
from sandreel_core.contract import codec
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Envelope, Event
from sandreel_core.contract.session import CommandRefused, CommandSettled
from sandreel_core.contract.subjects import SessionSubjects, stream_of
from sandreel_core.contract.workspace import WorkspaceEvent
from sandreel_core.errors import Conflict, Malformed, Refused, SandreelError, Unavailable
from sandreel_core.log import Log

# What waits to be appended while the bus is away; the feed, which fills it, is away then too.
MAX_WAITING = 1024
_MAX_RETRY_S = 5.0


class Waiting(NamedTuple):
    """One event on its way; `expected` where the one who asked named the revision."""

    envelope: Envelope
    stored: asyncio.Future[int]
    expected: int | None


class Writer:
    """Appends to one subject, in order, until it is stored or can never be. `run` is its one task."""

    def __init__(self, bus: Bus, subject: str, *, alone: bool, log: Log, last: int | None = None) -> None:
        """alone: nobody else writes this subject, so every append expects its last sequence. runnerd may
        not read the log: it is told the sequence as `last`, or learns it from the server's first refusal (and could
        not tell whose what stands there is, had nobody answered before that)."""
        self._bus = bus
        self._subject = subject
        self._alone = alone
        self._log = log
        self._last = last or 0
        self._certain = last is not None
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue(MAX_WAITING)

    async def put(self, envelope: Envelope, expected: int | None = None) -> asyncio.Future[int]:
        """Take its place in the order; the future is done when it is stored, with its sequence, or with what
        made that impossible (Conflict when `expected` is not the last sequence). Waits when `MAX_WAITING`
        wait already."""
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        await self._queue.put(Waiting(envelope, stored, expected))
        return stored

    async def run(self) -> None:
        """For ever."""
        while True:
            waiting = await self._queue.get()
            try:
                sequence = await self._store(waiting)
            except SandreelError as error:
                if not isinstance(error, Conflict):
                    # Too large, or a stream of another making: repeating it cannot help.
                    self._log.error("an answer could not be stored", subject=self._subject, problem=str(error))
                if not waiting.stored.done():
                    waiting.stored.set_exception(error)
                    waiting.stored.exception()  # whoever put it need not look
            else:
                if not waiting.stored.done():
                    waiting.stored.set_result(sequence)
            finally:
                self._queue.task_done()

    async def drained(self) -> None:
        """When everything that was put is stored."""
        await self._queue.join()

    async def _store(self, waiting: Waiting) -> int:
        body = codec.encode(waiting.envelope)
        unsure = False
        while True:
            expected = waiting.expected if waiting.expected is not None else self._last
            try:
                # The id makes a repeat after an unknown outcome harmless within the server's window; behind it,
                # on a subject of our own, the expected sequence does.
                sequence = await self._bus.append(
                    self._subject, body, expected=expected if self._alone else None, message_id=waiting.envelope.id
                )
            except Conflict as conflict:
                may_be_mine = unsure and self._certain and expected == self._last
                self._last, self._certain = await self._look(conflict), True
                if may_be_mine and self._last > expected:
                    # Nobody else writes here, so what is new there is what was sent and never answered. (In a stream
                    # that was restored the last one is older.)
                    return self._last
                if waiting.expected is not None:
                    raise
            except Unavailable as error:
                unsure = True
                await self._bus.wait_connected()
                await asyncio.sleep(min(error.retry_after_s, _MAX_RETRY_S))
            else:
                self._last, self._certain = sequence, True
                return sequence

    async def _look(self, conflict: Conflict) -> int:
        """The subject's last sequence, by the server's refusal or else by reading."""
        if conflict.last_sequence is not None:
            return conflict.last_sequence
        last = await self._bus.last(stream_of(self._subject), self._subject)
        return last.sequence if last is not None else 0


class Answers:
    """The subjects `workspace` and `command` of one session."""

    def __init__(
        self,
        bus: Bus,
        subjects: SessionSubjects,
        *,
        source: str,
        epoch: str,
        now: Callable[[], datetime],
        log: Log,
        workspace_last: int | None = None,
    ) -> None:
        """workspace_last: see `Bootstrapped`."""
        self._subjects = subjects
        self._source = source
        self.epoch = epoch
        self._now = now
        self._workspace = Writer(bus, subjects.event("workspace"), alone=True, log=log, last=workspace_last)
        self._command = Writer(bus, subjects.event("command"), alone=False, log=log)

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._workspace.run())
            group.create_task(self._command.run())

    async def drained(self) -> None:
        await self._workspace.drained()
        await self._command.drained()

    async def changed(
        self,
        event: WorkspaceEvent,
        *,
        command: Envelope | None = None,
        actor: str | None = None,
        expected: int | None = None,
    ) -> asyncio.Future[int]:
        """An event of the workspace; the future is done when it is stored. See `Writer.put`."""
        return await self._workspace.put(self._seal(event, "workspace", command, actor=actor), expected)

    def revision(self, text: str) -> int:
        """The sequence in a cursor of this session's partition. Raises Refused(BAD_REQUEST)."""
        try:
            cursor = Cursor.parse(text)
            sequence = cursor.check(self.epoch)
        except Malformed as error:
            raise Refused("BAD_REQUEST", str(error)) from error
        if cursor.partition != self._subjects.partition:
            raise Refused("BAD_REQUEST", f"cursor {cursor} is of another partition than the session's")
        return sequence

    async def refuse(self, command_id: str, refusal: Refused, command: Envelope | None = None) -> None:
        event = CommandRefused(command_id=command_id, code=refusal.code, message=refusal.message[:4096])
        await self._command.put(self._seal(event, "command", command, causationid=command_id))

    async def settle(self, command: Envelope, message: str = "") -> None:
        event = CommandSettled(command_id=command.id, message=message[:4096])
        await self._command.put(self._seal(event, "command", command))

    def _seal(
        self,
        event: Event,
        aggregate: str,
        command: Envelope | None,
        *,
        causationid: str | None = None,
        actor: str | None = None,
    ) -> Envelope:
        return codec.seal(
            event,
            id=new_id(),
            source=self._source,
            subject=self._subjects.event(aggregate),
            time=self._now(),
            causationid=command.id if command else causationid,
            correlationid=command.correlationid if command else None,
            actor=command.actor if command else actor,
            traceparent=command.traceparent if command else None,
        )
