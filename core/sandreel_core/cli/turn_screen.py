"""A turn on this terminal: as a person reads it, or one JSON object a line."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import msgspec

from sandreel_core.agent import Typed
from sandreel_core.cli.agent_view import COLUMNS
from sandreel_core.cli.interactive import has_colours, window_size
from sandreel_core.cli.pipes import STDERR, STDOUT, write_all
from sandreel_core.cli.spinner import EVERY_S, Spinner
from sandreel_core.cli.text import duration
from sandreel_core.cli.turn_view import TurnView
from sandreel_core.cli.usage_table import usage_table
from sandreel_core.client.items import CaughtUp, Gap
from sandreel_core.client.turn_handle import TurnHandle
from sandreel_core.client.turn_items import TurnFold, TurnItem, TurnResult, by_model
from sandreel_core.contract import turn as t
from sandreel_core.contract.cursor import Cursor
from sandreel_core.errors import Malformed, SandreelError
from sandreel_core.json_line import json_line

# A person who sees nothing for so long asks whether it still lives.
_SILENT_S = 10.0
# The last call of a turn may be recorded behind its end: so long after that end it is waited for.
_SETTLED_S = 3.0


class TurnScreen:
    """`cursor` is where to go on after what has been written; `result` how the turn ended, once it is known.

    after  what stands up to here is read, since what follows builds on it, and not shown
    """

    def __init__(self, turn: TurnHandle, *, json: bool, after: Cursor | None = None) -> None:
        self._turn = turn
        self._json = json
        self._after = after
        terminal = sys.stdout.isatty()
        columns = window_size()[0] if terminal else COLUMNS
        self._view = TurnView(turn.id, turn.session, colours=has_colours(sys.stdout), typed=terminal, columns=columns)
        self._spinner = Spinner(shown=not json)
        self._fold = TurnFold(turn.id, turn.session)
        self._heard_s = time.monotonic()
        self._running = False
        self._ended_ns = 0
        self.decided = False
        self.cursor = after or turn.cursor
        self.result: TurnResult | None = None

    @property
    def animated(self) -> bool:
        """Whether `animate` has something to do, and text is worth reading as it is typed."""
        return self._spinner.shown

    async def show(self, items: AsyncGenerator[TurnItem, None]) -> None:
        """Write every item, and at the end of the turn what it used. Raises BrokenPipeError when nobody reads any more,
        Malformed for an `after` of another log."""
        try:
            async with aclosing(items):
                async for item in items:
                    await self._item(item)
        finally:
            self._spinner.clear()
        await self._close_line()
        if self.result is not None:
            await self._tell_usage(self.result)

    async def animate(self) -> None:
        """Until it is cancelled: the line that says what goes on."""
        while True:
            await asyncio.sleep(EVERY_S)
            if not self._view.within_line and self.result is None:
                since_s = time.monotonic() - self._heard_s
                silent = f" · silent for {duration(since_s)}" if since_s > _SILENT_S else ""
                self._spinner.draw(f"{duration(self._view.known_s + since_s)} · {self._view.doing()}{silent}")

    def make_room(self) -> None:
        """Somebody else is about to write a line to this terminal."""
        self._spinner.clear()
        if not self._json and (rest := self._view.closed()):
            sys.stdout.write(rest)
            sys.stdout.flush()

    async def say(self, sentence: str) -> None:
        """One line of sandreel's own on stderr."""
        self._spinner.clear()
        await self._close_line()
        await write_all(STDERR, f"sandreel: {sentence}\n".encode())

    async def _item(self, item: TurnItem) -> None:
        self._heard_s = time.monotonic()
        if (result := self._fold.take(item)) is not None:
            self.result, self._ended_ns = result, getattr(item, "stored_ns", 0)
        self._running = self._running or isinstance(getattr(item, "data", None), t.TurnStarted)
        if not isinstance(item, Typed):
            self.decided = self.decided or _decides(item)
        text = "" if self._json else self._view.text(item)
        if not isinstance(item, Typed) and self._after is not None and not self._is_new(item.cursor, self._after):
            return
        if self._json:
            await self._line(item)
        elif text:
            self._spinner.clear()
            await write_all(STDOUT, text.encode())
        if not isinstance(item, Typed):
            self.cursor = item.cursor

    @staticmethod
    def _is_new(cursor: Cursor, after: Cursor) -> bool:
        if after.partition != cursor.partition:
            raise Malformed(f"cursor {after} is of partition {after.partition}, the turn of {cursor.partition}")
        return cursor.sequence > after.check(cursor.epoch)

    async def _line(self, item: TurnItem) -> None:
        if isinstance(item, Typed):
            return
        fields: dict[str, Any] = {"turn": self._turn.id, "session": self._turn.session}
        if isinstance(item, CaughtUp):
            fields |= {"type": "caught_up", "cursor": str(item.cursor)}
        elif isinstance(item, Gap):
            fields |= {"type": "missing", "cursor": str(item.cursor), "why": item.why}
        else:
            fields |= {"type": item.event.type, "cursor": str(item.cursor), "stored_at": item.stored_at.isoformat()}
            fields |= {"actor": item.event.actor} if item.event.actor else {}
            fields["data"] = msgspec.to_builtins(item.data)
        await write_all(STDOUT, json_line(fields) + b"\n")

    async def _close_line(self) -> None:
        if not self._json and (rest := self._view.closed()):
            await write_all(STDOUT, rest.encode())

    async def _tell_usage(self, result: TurnResult) -> None:
        left_s = self._ended_ns / 1e9 + _SETTLED_S - time.time() if self._running else 0.0
        try:
            calls = await self._turn.calls(settled_within_s=min(max(left_s, 0.0), _SETTLED_S))
        except SandreelError as error:
            await self.say(f"what the gateway counted cannot be read: {error}")
            calls = []
        models = by_model(calls)
        if self._json:
            fields = {"turn": self._turn.id, "session": self._turn.session, "type": "usage"}
            await write_all(STDOUT, json_line(fields | {"models": [asdict(each) for each in models]}) + b"\n")
            return
        lines = usage_table(models, result.usage)
        await write_all(STDOUT, "".join(f"  {line}\n" for line in lines).encode())


def _decides(item: TurnItem) -> bool:
    data = getattr(item, "data", None)
    return isinstance(data, t.PlanApproved | t.PlanRejected)
