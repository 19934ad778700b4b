"""An exec on this terminal as a coding agent's run: its stdout read by an adapter, everything else as it is."""

from __future__ import annotations

import sys

import msgspec

from sandreel_core.agent import AgentItem, AgentReader, Typed
from sandreel_core.cli.agent_view import COLUMNS, AgentView
from sandreel_core.cli.interactive import has_colours, window_size
from sandreel_core.cli.pipes import write_all
from sandreel_core.cli.screen import Screen
from sandreel_core.client.items import Ended, Entry, ExecItem, Output
from sandreel_core.contract.cursor import Cursor
from sandreel_core.errors import Malformed

_OUT = 1


class AgentScreen(Screen):
    """Of an exec that is read from its beginning. `after`: what stands up to here is read, since the agent's later lines
    build on it, and not shown. With `json` one agent event a line, in the place of the stdout that it was read from."""

    def __init__(
        self,
        reader: AgentReader,
        *,
        json: bool,
        exec_id: str = "",
        cursor: Cursor | None = None,
        after: Cursor | None = None,
    ) -> None:
        super().__init__(json=json, exec_id=exec_id, cursor=cursor)
        self._reader = reader
        self._after = after
        terminal = sys.stdout.isatty()
        columns = window_size()[0] if terminal else COLUMNS
        self._view = AgentView(colours=has_colours(sys.stdout), typed=terminal, columns=columns)

    async def item(self, item: ExecItem) -> None:
        """Raises BrokenPipeError when nobody reads any more, Malformed for an `after` of another log."""
        found: list[AgentItem] = []
        if isinstance(item, Output) and item.stream == "stdout":
            found = self._reader.feed(item.data, item.n)
        elif isinstance(item, Ended) and not (item.exited and item.exited.reason == "spawn_failed"):
            found = self._reader.end(item.n, item.exit_code)
        if not self._is_new(item.cursor):
            return
        for each in found:
            await self._show(each, item)
        if isinstance(item, Output) and item.stream == "stdout":
            return
        if isinstance(item, Output):
            await self._close_line()
        await super().item(item)
        if isinstance(item, Ended) and self._reader.malformed_lines:
            await self.say(f"lines of its stdout that were no JSON, and are not shown: {self._reader.malformed_lines}")

    async def say(self, sentence: str) -> None:
        """On a line of its own, also when a text is being typed."""
        await self._close_line()
        await super().say(sentence)

    async def _close_line(self) -> None:
        if not self._json:
            await write_all(_OUT, self._view.closed().encode())

    def _is_new(self, cursor: Cursor) -> bool:
        if self._after is None:
            return True
        if self._after.partition != cursor.partition:
            raise Malformed(
                f"cursor {self._after} is of partition {self._after.partition}, the exec of {cursor.partition}"
            )
        return cursor.sequence > self._after.check(cursor.epoch)

    async def _show(self, found: AgentItem, item: ExecItem) -> None:
        if not self._json:
            at_s = item.stored_ns / 1e9 if isinstance(item, Entry) else None
            await write_all(_OUT, self._view.text(found, at_s).encode())
        elif not isinstance(found, Typed) and isinstance(item, Entry):
            data = msgspec.to_builtins(found)
            where = {"cursor": str(item.cursor), "stored_at": item.stored_at.isoformat()}
            await self.line({"exec": self._exec_id, "type": found.type, "n": found.source_n, **where, "data": data})
