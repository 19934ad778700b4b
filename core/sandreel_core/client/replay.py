"""An exec again, from one point to another, at the pace at which the server stored it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from sandreel_core.client.items import CaughtUp, Changed, Ended, ExecItem, Gap, Output
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.errors import Malformed


@dataclass(frozen=True, slots=True)
class Line:
    """A line of one stream, from 1. As a beginning: its first byte; as an end: its newline."""

    number: int
    stream: x.Stream = "stdout"


# A line; a cursor (from: what follows it; to: it and what is before it); an instant of the server's clock; a time
# since the exec's first event that is read.
Point: TypeAlias = Line | Cursor | datetime | timedelta
Event: TypeAlias = Output | Ended | Changed


async def replay(
    items: AsyncGenerator[ExecItem, None], *, speed: float | None, start: Point | None, end: Point | None
) -> AsyncGenerator[ExecItem, None]:
    """The items between two points; a block that a line point falls into is cut there.

    speed   2.0 is twice as fast as it happened; None or 0 as fast as it can be read
    The time that the caller takes for an item is not added to the pace.
    Raises Malformed, before anything is read, for an instant without a time zone.
    """
    for point in (start, end):
        if isinstance(point, datetime) and point.utcoffset() is None:
            raise Malformed(f"{point.isoformat()} has no time zone: is it local, or UTC?")
    window = _Window(start, end)
    loop = asyncio.get_running_loop()
    begun_s, first_ns = 0.0, 0
    async with aclosing(items):
        async for item in items:
            if isinstance(item, CaughtUp):
                continue
            if isinstance(item, Gap):
                yield item
                continue
            shown = window.take(item)
            if shown is not None:
                if not first_ns:
                    begun_s, first_ns = loop.time(), shown.stored_ns
                if speed:
                    due_s = begun_s + (shown.stored_ns - first_ns) / 1e9 / speed
                    await asyncio.sleep(max(0.0, due_s - loop.time()))
                yield shown
            if window.over:
                return


class _Window:
    """Which items lie between the points. Every event of the exec is shown to it, in order."""

    def __init__(self, start: Point | None, end: Point | None) -> None:
        self._start, self._end = start, end
        self._open = start is None or isinstance(start, Cursor)  # a cursor is where the reading begins
        self._first_ns: int | None = None
        self.over = False

    def take(self, item: Event) -> Event | None:
        """The item, or what lies within of it."""
        if self._first_ns is None:
            self._first_ns = item.stored_ns
        if self._is_behind(item):
            self.over = True
            return None
        from_byte = 0
        if not self._open:
            found = self._opening(item)
            if found is None:
                return None
            self._open, from_byte = True, found
        to_byte = self._closing(item)
        if isinstance(item, Output) and (from_byte or to_byte is not None):
            return _cut(item, from_byte, len(item.data) if to_byte is None else to_byte)
        return item

    def _opening(self, item: Event) -> int | None:
        """The offset in the item at which the window opens, None before that. The end of the exec is always shown."""
        start = self._start
        if isinstance(item, Ended):
            return 0
        if isinstance(start, Line):
            if not isinstance(item, Output) or item.stream != start.stream:
                return None
            offset = _after_newlines(item, start.number - item.line)
            return None if offset is None or offset == len(item.data) else offset
        return 0 if self._elapsed(item, start) >= timedelta(0) else None

    def _is_behind(self, item: Event) -> bool:
        end = self._end
        if isinstance(end, Cursor):
            return item.cursor.sequence > end.sequence
        if isinstance(end, Line):
            return self.over or (isinstance(item, Output) and item.stream == end.stream and item.line > end.number)
        return self.over or self._elapsed(item, end) > timedelta(0)

    def _closing(self, item: Event) -> int | None:
        """The offset behind the last line that is wanted, where it ends in this item."""
        end = self._end
        if not isinstance(end, Line) or not isinstance(item, Output) or item.stream != end.stream:
            return None
        offset = _after_newlines(item, end.number - item.line + 1)
        self.over = offset is not None
        return offset

    def _elapsed(self, item: Event, point: Point | None) -> timedelta:
        """How long after the point the item was stored; no point at all is never passed."""
        if isinstance(point, datetime):
            return item.stored_at - point
        if isinstance(point, timedelta):
            return timedelta(microseconds=(item.stored_ns - (self._first_ns or 0)) / 1000) - point
        return timedelta(0)


def _after_newlines(item: Output, newlines: int) -> int | None:
    """The offset behind so many newlines (0 for none), None when the block has fewer."""
    if newlines > item.count:
        return None
    offset = 0
    for _ in range(newlines):
        offset = item.data.index(b"\n", offset) + 1
    return offset


def _cut(item: Output, start: int, end: int) -> Output:
    """A part of a block. `event` stays that of the whole block."""
    data = item.data[start:end]
    line = item.line + item.data.count(b"\n", 0, start)
    return replace(item, data=data, line=line, count=data.count(b"\n"), eol=data.endswith(b"\n"))
