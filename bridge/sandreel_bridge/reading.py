"""An exec's output as agent events of its turn: from its first event, or from where the last checkpoint says that everything is mapped."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from contextlib import aclosing
from time import monotonic
from typing import Any

import msgspec
from msgspec import Struct

from sandreel_bridge.adapters.reader import Reader
from sandreel_bridge.backlog import Backlog
from sandreel_bridge.journal import Journal
from sandreel_core.agent import AgentItem, Typed
from sandreel_core.bus.execs import Gone, Recorded, follow_exec
from sandreel_core.bus.port import Bus
from sandreel_core.contract.agent import AgentError
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.exec import Exited, Gap, Lost, Output
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.turn import Checkpoint
from sandreel_core.errors import Malformed
from sandreel_core.log import Log

# A checkpoint costs an event, and being without one costs a successor the reading of what came since: half a second of it.
EVERY_EVENTS = 2000
EVERY_S = 5.0
# A program may be in the middle of a line of 8 MiB; a checkpoint that would hold all of it waits for its end.
MAX_STATE_BYTES = 256 * 1024
_COMPLAINT_CHARS = 1000


class _Mark(Struct, frozen=True, kw_only=True):
    """What a checkpoint's `parser` holds: the state of the reader, and the cursor of the exec's event up to which it has read."""

    reader: Any
    cursor: str


class Reading:
    """One attempt's output. `run` until the exec has ended; then `end` says how, and all of it stands in the turn's log. `read_n`: the
    ordinal of the exec's event that was read last.

    backlog  takes its events; somebody else runs it meanwhile
    fresh    a reader of a run that begins
    typed    called with every piece of text as it is being typed
    """

    def __init__(
        self,
        bus: Bus,
        journal: Journal,
        exec: str,
        fresh: Callable[[], Reader],
        backlog: Backlog,
        *,
        typed: Callable[[Typed], None] = lambda item: None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._bus = bus
        self._journal = journal
        self._exec = exec
        self._fresh = fresh
        self._backlog = backlog
        self._typed = typed
        self._now = now
        self._reader = fresh()
        self._log = Log("bridge.reading")
        # Agent events that a driver before us has appended: those that come from that event of the exec, and so many from it.
        self._known_n, self._known_at = journal.turn.run.source_n, journal.turn.run.at_source
        self._met_at = 0
        self._since, self._marked_at = 0, now()
        self.read_n = 0
        self._cursor = ""
        self._said = journal.turn.checkpoint or Checkpoint(exec_n=1)
        self._between = asyncio.Lock()  # no checkpoint in the middle of an event
        self.complaint = ""
        self.end: Exited | Lost | None = None

    async def run(self) -> None:
        """Raises Unavailable."""
        after = self._resume()
        try:
            await self._follow(after)
        except Malformed as error:
            if after is None:
                raise
            self._log.warning("a checkpoint is of another stream", turn=str(self._journal.name), problem=str(error))
            self._reader = self._fresh()
            await self._follow(None)
        await self._backlog.emptied()

    def _resume(self) -> Cursor | None:
        """Where the last checkpoint stands, with the reader as it was there. One that cannot be read costs a reading from the
        beginning, which gives the same events."""
        checkpoint = self._journal.turn.checkpoint
        if checkpoint is None or checkpoint.parser is None:
            return None
        try:
            mark = msgspec.convert(checkpoint.parser, _Mark)
            cursor = Cursor.parse(mark.cursor)
            self._reader.resume(mark.reader)
        except (msgspec.ValidationError, Malformed) as error:
            self._log.warning("a checkpoint cannot be read", turn=str(self._journal.name), problem=str(error))
            self._reader = self._fresh()
            return None
        self.read_n, self._cursor = checkpoint.exec_n, mark.cursor
        return cursor

    async def _follow(self, after: Cursor | None) -> None:
        items = follow_exec(self._bus, self._journal.subjects, self._exec, after=after)
        async with aclosing(items):
            async for item in items:
                if isinstance(item, Recorded):
                    async with self._between:
                        await self._take(item.event, item.event.n or 1)
                        self._cursor = str(item.cursor)
                    self._since += 1
                    if self._since >= EVERY_EVENTS or self._now() - self._marked_at >= EVERY_S:
                        await self.mark()
                elif isinstance(item, Gone):
                    what = f"events up to {item.to_n} of the program's log were archived before they were read"
                    await self._say([AgentError(source_n=max(1, item.to_n), message=what)])

    async def _take(self, event: Envelope, n: int) -> None:
        self.read_n = n
        data = event.data
        match data:
            case Output(stream="stdout"):
                await self._say(self._reader.feed(_bytes(data), n))
            case Output():
                self.complaint = (self.complaint + _bytes(data).decode(errors="replace"))[-_COMPLAINT_CHARS:]
            case Gap():
                lost = f"events {data.from_n} to {data.to_n} of the program's log are lost: {data.why}"
                await self._say([AgentError(source_n=n, message=lost[:4096])])
            case Exited():
                await self._say(self._reader.end(n, data.exit_code))
                self.end = data
            case Lost():
                await self._say(self._reader.end(n, None))
                self.end = data

    async def _say(self, items: list[AgentItem]) -> None:
        for item in items:
            if isinstance(item, Typed):
                self._typed(item)
            elif not self._is_known(item.source_n):
                await self._backlog.put(item)
                self._since += 1

    def _is_known(self, source_n: int) -> bool:
        """Whether a driver before us has appended it: the same output gives the same events in the same order."""
        if source_n != self._known_n:
            return source_n < self._known_n
        self._met_at += 1
        return self._met_at <= self._known_at

    async def mark(self, *, anyhow: bool = False) -> None:
        """A checkpoint of what is mapped, behind it, unless it would be large. None once the exec has ended: whoever went on from there
        would wait for an end for ever. `anyhow`: where it would be large the last one is said again, as a sign that somebody reads."""
        async with self._between:
            if self.end is not None:
                return
            if (checkpoint := self._checkpoint()) is not None:
                self._since, self._marked_at = 0, self._now()
                self._said = checkpoint
            if checkpoint is not None or anyhow:
                await self._backlog.put(self._said)

    def _checkpoint(self) -> Checkpoint | None:
        state = _Mark(reader=self._reader.state(), cursor=self._cursor)
        if len(msgspec.json.encode(state)) > MAX_STATE_BYTES or not self._cursor:
            return None
        return Checkpoint(exec_n=self.read_n, parser=msgspec.to_builtins(state))


def _bytes(data: Output) -> bytes:
    return data.text.encode() if data.text is not None else base64.b64decode(data.base64 or "")
