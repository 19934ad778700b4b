"""One turn as a viewer sees it: its events in the order of the log, and the text that is being typed between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from sandreel_core.agent import AgentItem, AgentReader
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.bus.port import CaughtUp as AllRead
from sandreel_core.client.items import CaughtUp, Ended, Gap, Output
from sandreel_core.client.merge import Merge
from sandreel_core.client.partial import Partial
from sandreel_core.client.reels import Reels
from sandreel_core.client.turn_items import TurnEntry, TurnItem
from sandreel_core.client.viewer import view
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.session import CommandRefused, CommandSettled
from sandreel_core.contract.subjects import SessionSubjects, stream_of
from sandreel_core.errors import Malformed, SandreelError

# A fresh reader of an agent's output, by the agent's name; None where there is none.
ReaderOf: TypeAlias = Callable[[str], AgentReader | None]
# Sequences of the stream before the newest event of a turn, where the block that it was read from is looked for: what a
# bridge that keeps up is behind, then one that does not.
_LOOKS_BACK = (256, 4096, 65536)


@dataclass(frozen=True, slots=True)
class Place:
    """A turn in the log. `first`: the sequence of its first event."""

    subjects: SessionSubjects
    turn: str
    agent: str
    first: int

    @property
    def subject(self) -> str:
        return self.subjects.event("turn", self.turn)


async def read_turn(
    bus: Bus, reels: Reels, place: Place, *, after: Cursor | None, live: bool
) -> AsyncGenerator[TurnEntry | CaughtUp | Gap, None]:
    """The turn's events behind `after` (None: all), one CaughtUp where what was stored ends, and what comes until its
    end. What is stored behind an end (a plan is decided upon later) is given out too. Close it.

    Raises Malformed for a cursor of another stream, NotFound when the installation has no such stream.
    """
    partition, stream = place.subjects.partition, place.subjects.stream
    epoch = await reels.epoch(partition)
    begin = place.first - 1
    if after is not None:
        if after.partition != partition:
            raise Malformed(f"cursor {after} belongs to partition {after.partition}, the turn to {partition}")
        begin = max(begin, after.check(epoch))
    # Whoever goes on behind the end is given what came since, and does not wait for another end.
    finished = after is not None and await _has_finished(bus, place)
    newest = Cursor(epoch, partition, begin)
    caught_up = False
    async with aclosing(bus.follow(stream, [place.subject], after=begin, live=live)) as items:
        async for item in items:
            if isinstance(item, AllRead):
                caught_up = True
                yield CaughtUp(newest)
            for stored in item if isinstance(item, list) else ():
                newest = Cursor(epoch, partition, stored.sequence)
                entry = _entry(newest, stored)
                finished = finished or (isinstance(entry, TurnEntry) and isinstance(entry.data, t.TurnFinished))
                yield entry
            if finished and caught_up:
                return


async def read_typed(
    bus: Bus, reels: Reels, place: Place, *, after: Cursor | None, live: bool, reader_of: ReaderOf
) -> AsyncGenerator[TurnItem, None]:
    """The same, with text as it is being typed by an exec that is running. Raises the same."""
    typing = _Typing(bus, reels, place, reader_of)
    sources: list[AsyncGenerator[TurnEntry | CaughtUp | Gap | list[AgentItem] | None, None]] = [
        _ended(read_turn(bus, reels, place, after=after, live=live)),
        typing.items(),
    ]
    running: t.TurnStarted | None = None
    last: TurnEntry | None = None
    caught_up = False
    async with Merge(sources) as merge:
        while (found := await merge.next()) is not None:
            item = found[1]
            if item is None:
                return
            if isinstance(item, list):
                for piece in typing.partial.read(item):
                    yield piece
                continue
            yield item
            if isinstance(item, CaughtUp):
                caught_up = True
                if running is not None:
                    typing.begin(running.exec, last)
            if not isinstance(item, TurnEntry):
                continue
            data = item.data
            if isinstance(data, t.TurnStarted):
                running, last = data, None
                if caught_up:
                    typing.begin(data.exec, None)
            elif isinstance(data, t.TurnFinished):
                running = None
            elif isinstance(data, a.AgentEvent):
                last = item
                if caught_up:
                    for piece in typing.partial.came(data):
                        yield piece


class _Typing:
    """Reads the exec that is running now. For eyes: when it cannot be read, text comes whole, and that is all."""

    def __init__(self, bus: Bus, reels: Reels, place: Place, reader_of: ReaderOf) -> None:
        self._bus = bus
        self._reels = reels
        self._place = place
        self._reader_of = reader_of
        self._begun: asyncio.Queue[tuple[str, TurnEntry | None]] = asyncio.Queue()
        self.partial = Partial()

    def begin(self, exec_id: str, last: TurnEntry | None) -> None:
        """`last`: the newest agent event that was read of it."""
        self.partial = Partial(last.data if last is not None else None)
        self._begun.put_nowait((exec_id, last))

    async def items(self) -> AsyncGenerator[list[AgentItem], None]:
        """What the adapter makes of the output of one exec after the other."""
        while True:
            exec_id, last = await self._begun.get()
            reader = self._reader_of(self._place.agent)
            if reader is None:
                continue
            try:
                async with aclosing(self._read(exec_id, last, reader)) as found:
                    async for items in found:
                        yield items
            except SandreelError:
                continue

    async def _read(
        self, exec_id: str, last: TurnEntry | None, reader: AgentReader
    ) -> AsyncGenerator[list[AgentItem], None]:
        after = await self._near(exec_id, last) if last is not None else None
        async with aclosing(view(self._bus, self._reels, self._place.subjects, exec_id, after=after)) as output:
            async for item in output:
                if isinstance(item, Output) and item.stream == "stdout":
                    if items := reader.feed(item.data, item.n):
                        yield items
                elif isinstance(item, Ended):
                    return

    async def _near(self, exec_id: str, last: TurnEntry) -> Cursor | None:
        """A place in the exec's log before the output that the turn's newest event was read from; None: its beginning."""
        subjects = self._place.subjects
        for back in _LOOKS_BACK:
            begin = last.cursor.sequence - back
            if begin <= 0:
                return None
            stored = await self._bus.next(subjects.stream, subjects.exec(exec_id), after=begin)
            if stored is None:
                return None
            n = decode_event(stored.subject, stored.body).n or 1
            if n == 1:
                return None
            if n < last.data.source_n:
                return Cursor(last.cursor.epoch, last.cursor.partition, stored.sequence)
        return None


async def _ended(
    items: AsyncGenerator[TurnEntry | CaughtUp | Gap, None],
) -> AsyncGenerator[TurnEntry | CaughtUp | Gap | None, None]:
    """With a None behind the last one."""
    async with aclosing(items):
        async for item in items:
            yield item
    yield None


async def newest_of(bus: Bus, stream: str, subject: str) -> Stored | None:
    """The turn's newest event, None where there is no turn. What answers a command and changes nothing is none of it, and
    may stand anywhere, before its beginning and behind its end. Raises Unavailable, NotFound."""
    found = await bus.last(stream, subject)
    if found is None or not isinstance(data_of(found), CommandRefused | CommandSettled):
        return found
    found = None
    async with aclosing(bus.follow(stream, [subject], live=False)) as items:
        async for item in items:
            for stored in item if isinstance(item, list) else ():
                if not isinstance(data_of(stored), CommandRefused | CommandSettled):
                    found = stored
    return found


async def first_of(bus: Bus, stream: str, subject: str) -> Stored | None:
    """The event with which the turn begins, None where there is none. Raises Unavailable, NotFound."""
    found = await bus.next(stream, subject)
    while found is not None and isinstance(data_of(found), CommandRefused | CommandSettled):
        found = await bus.next(stream, subject, after=found.sequence)
    return found


async def begin_of(bus: Bus, stream: str, subject: str) -> Stored | None:
    """The same, however long it takes to come. Raises the same."""
    async with aclosing(bus.follow(stream, [subject])) as items:
        async for item in items:
            for stored in item if isinstance(item, list) else ():
                if not isinstance(data_of(stored), CommandRefused | CommandSettled):
                    return stored
    return None


async def stage_of(bus: Bus, first: Stored) -> object:
    """How far the turn has come, by the newest of the events that lead to its program, of which there are few: a message may be said to it
    before it runs. Raises Unavailable, NotFound."""
    stage, found = data_of(first), await _behind(bus, first)
    while found is not None and not isinstance(stage, t.TurnStarted):
        data = data_of(found)
        stage = data if isinstance(data, t.TurnPreparing | t.TurnStarted | t.TurnInterrupting) else stage
        found = await _behind(bus, found)
    return stage


async def _behind(bus: Bus, stored: Stored) -> Stored | None:
    return await bus.next(stream_of(stored.subject), stored.subject, after=stored.sequence)


def data_of(stored: Stored) -> object:
    """The event's data; None for what is no event."""
    try:
        return decode_event(stored.subject, stored.body).data
    except Malformed:
        return None


async def _has_finished(bus: Bus, place: Place) -> bool:
    """Whether the turn's end is stored: then it is the newest event, or a decision upon its plan is."""
    stored = await newest_of(bus, place.subjects.stream, place.subject)
    return stored is not None and isinstance(data_of(stored), t.TurnFinished | t.PlanApproved | t.PlanRejected)


def _entry(cursor: Cursor, stored: Stored) -> TurnEntry | Gap:
    try:
        return TurnEntry(cursor, stored.time_ns, decode_event(stored.subject, stored.body))
    except Malformed as error:
        return Gap(cursor, f"an event of the turn cannot be read: {error}")
