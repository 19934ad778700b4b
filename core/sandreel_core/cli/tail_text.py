"""What `sandreel tail` prints: lines for people, or one JSON object a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sandreel_core.cli.text import coloured, dimmed, plain
from sandreel_core.client.tailing import TailCaughtUp, TailEvent, TailGap, TailItem, TailLine
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.cursors import Cursors
from sandreel_core.contract.subjects import EventSubject
from sandreel_core.json_line import json_line, json_lines


class _LineObject(msgspec.Struct, frozen=True):
    """The JSON of a line. A struct, because there are tens of thousands a second."""

    type: str
    org: str
    session: str
    exec: str
    stream: str
    line: int
    text: str
    begun: bool
    ended: bool
    cursor: str
    stored_ns: int


class TailText:
    """`cursors` are the newest of each partition: where to go on from after what was given out.

    begins    where the reading begins
    colours   for a terminal: places in colour, and nothing that a job printed may steer it
    with_org  places name the org too
    """

    def __init__(self, begins: Cursors, *, json: bool, colours: bool, with_org: bool) -> None:
        self._json = json
        self._colours = colours
        self._with_org = with_org
        # Lines of one block come together.
        self._block: Cursor | None = None
        self._place = b""
        self._cursor = ""
        self._cursors = {cursor.partition: cursor for cursor in begins.each}

    @property
    def cursors(self) -> Cursors:
        return Cursors(self._cursors.values())

    def text(self, batch: Sequence[TailItem]) -> bytes:
        """What to print for these items; empty for what only programs are told."""
        if self._json:
            return json_lines(
                [self._line_object(item) if isinstance(item, TailLine) else self._object(item) for item in batch]
            )
        return b"".join([self._line(item) if isinstance(item, TailLine) else self._other(item) for item in batch])

    def _begin(self, item: TailLine) -> None:
        """The first line of a block, whose cursor no other has."""
        self._block = item.cursor
        self._reached(item.cursor)
        self._cursor = str(item.cursor)
        self._place = self._shown(item.where, item.stream).encode()

    def _line_object(self, item: TailLine) -> _LineObject:
        if item.cursor is not self._block:
            self._begin(item)
        where, line = item.where, item.line
        return _LineObject(
            "line",
            where.org,
            where.session,
            where.key,
            item.stream,
            line.number,
            line.data.decode("utf-8", "replace"),
            line.begun,
            line.ended,
            self._cursor,
            item.stored_ns,
        )

    def _line(self, item: TailLine) -> bytes:
        if item.cursor is not self._block:
            self._begin(item)
        line = item.line
        data = plain(line.data).encode() if self._colours else line.data
        begin, end = b"" if line.begun else "…".encode(), b"\n" if line.ended else "…\n".encode()
        return b"%s: %s%s%s" % (self._place, begin, data, end)

    def _object(self, item: TailEvent | TailGap | TailCaughtUp) -> dict[str, Any]:
        self._go_on(item)
        return _object(item)

    def _other(self, item: TailEvent | TailGap | TailCaughtUp) -> bytes:
        self._go_on(item)
        if isinstance(item, TailEvent):
            said = plain(b"%s %s" % (item.event.type.encode(), json_line(item.event.data)))
            return f"{self._shown(item.where)}: {dimmed(said) if self._colours else said}\n".encode()
        if isinstance(item, TailGap):
            return f"{self._shown(item.where) if item.where else 'sandreel'}: missing: {item.why}\n".encode()
        return b""

    def _go_on(self, item: TailEvent | TailGap | TailCaughtUp) -> None:
        if isinstance(item, TailEvent):
            self._reached(item.cursor)
        if isinstance(item, TailCaughtUp):
            for cursor in item.cursors:
                self._reached(cursor)

    def _reached(self, cursor: Cursor) -> None:
        """A line that was waited for comes behind newer ones."""
        if cursor.sequence > self._cursors[cursor.partition].sequence:
            self._cursors[cursor.partition] = cursor

    def _shown(self, where: EventSubject, stream: str = "stdout") -> str:
        words = ([where.org] if self._with_org else []) + [where.session] + ([where.key] if where.key else [])
        place = "/".join(words)
        mark = "!" if stream == "stderr" else ""
        return coloured(place + mark, place) if self._colours else place + mark


def _object(item: TailEvent | TailGap | TailCaughtUp) -> dict[str, Any]:
    where: EventSubject | None = getattr(item, "where", None)
    place = {"org": where.org, "session": where.session, where.aggregate: where.key} if where is not None else {}
    place = {name: value for name, value in place.items() if value}
    if isinstance(item, TailEvent):
        data = msgspec.to_builtins(item.event.data)
        return {"type": item.event.type, **place, "cursor": str(item.cursor), "stored_ns": item.stored_ns, "data": data}
    if isinstance(item, TailGap):
        return {"type": "missing", **place, "why": item.why}
    return {"type": "caught_up", "cursor": str(Cursors(item.cursors))}
