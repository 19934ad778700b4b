"""An exec on this terminal: bytes to stdout and stderr exactly as the job wrote them, or one JSON object a line."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from sandreel_core.cli.ending import remark
from sandreel_core.cli.pipes import write_all
from sandreel_core.client.items import CaughtUp, Ended, ExecItem, Gap, Output
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.json_line import json_line

_OUT, _ERR = 1, 2


class Screen:
    """`cursor` is where to go on after what has been written; `end` how the exec ended, once it is known."""

    def __init__(self, *, json: bool, exec_id: str = "", cursor: Cursor | None = None) -> None:
        self._json = json
        self._exec_id = exec_id
        self.cursor = cursor
        self.end: x.Exited | x.Lost | None = None

    async def show(self, items: AsyncGenerator[ExecItem, None]) -> None:
        """Write every item. Raises BrokenPipeError when nobody reads any more."""
        async with aclosing(items):
            async for item in items:
                await self.item(item)
                if self.cursor is None or item.cursor.sequence > self.cursor.sequence:
                    self.cursor = item.cursor
                if isinstance(item, Ended):
                    self.end = item.event.data

    async def item(self, item: ExecItem) -> None:
        """Write one."""
        if self._json:
            await self.line({"exec": self._exec_id, **_object(item)})
        elif isinstance(item, Output):
            await write_all(_OUT if item.stream == "stdout" else _ERR, item.data)
        else:
            await self._remark(item)

    async def line(self, value: dict[str, Any]) -> None:
        """One JSON object on stdout."""
        await write_all(_OUT, json_line(value) + b"\n")

    async def say(self, sentence: str) -> None:
        """One line of sandreel's own on stderr."""
        await write_all(_ERR, f"sandreel: {sentence}\n".encode())

    async def _remark(self, item: ExecItem) -> None:
        sentence = item.why if isinstance(item, Gap) else None
        if not isinstance(item, CaughtUp | Gap):
            sentence = _sentence(item.event.data)
        if sentence is not None:
            await self.say(sentence)


def _sentence(data: Any) -> str | None:
    """What may not go unsaid: an end that is no plain exit, and everything that is missing."""
    match data:
        case x.Exited() | x.Lost():
            return remark(data)
        case x.Truncated():
            return f"{data.stream} was cut at {data.limit_bytes} bytes, as asked"
        case x.Gap():
            return f"a part of the output is missing: {data.why}"
    return None


def _object(item: ExecItem) -> dict[str, Any]:
    if isinstance(item, CaughtUp):
        return {"type": "caught_up", "cursor": str(item.cursor)}
    if isinstance(item, Gap):
        return {"type": "missing", "cursor": str(item.cursor), "why": item.why}
    fields: dict[str, Any] = {"type": item.event.type, "n": item.n, "cursor": str(item.cursor)}
    return fields | {"stored_at": item.stored_at.isoformat(), "data": msgspec.to_builtins(item.event.data)}
