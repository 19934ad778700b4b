"""A recorder in memory, for tests of what feeds one."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Callable
from typing import TypeVar

import msgspec

from sandreel_core.bus.memory import MAX_PAYLOAD_BYTES
from sandreel_core.contract import exec as c
from sandreel_core.contract.message import Envelope
from sandreel_core.errors import Refused, TooLarge

T = TypeVar("T", bound=c.ExecEvent)


class MemoryRecorder:
    """Keeps what it is told. Clear `open` to make `record` wait, as it does when window and spool are full."""

    def __init__(self) -> None:
        self.events: list[c.ExecEvent] = []
        self.commands: list[Envelope | None] = []
        self.open = asyncio.Event()
        self.open.set()
        self.concluded = asyncio.Event()
        self._changed = asyncio.Condition()

    async def accept(self, accepted: c.Accepted, *, command: Envelope) -> None:
        if self.events:
            raise Refused("DUPLICATE_EXEC", "this exec id was used before")
        await self._take(accepted, command)

    async def record(self, event: c.ExecEvent, *, command: Envelope | None = None) -> None:
        await self.open.wait()
        assert not self.concluded.is_set(), f"{event} recorded after the end"
        if isinstance(event, c.Output) and len(msgspec.json.encode(event)) > MAX_PAYLOAD_BYTES:
            raise TooLarge("over the payload")
        await self._take(event, command)

    async def conclude(self, exited: c.Exited) -> None:
        await self.open.wait()
        assert not self.concluded.is_set(), "concluded twice"
        await self._take(exited, None)
        self.concluded.set()

    async def _take(self, event: c.ExecEvent, command: Envelope | None) -> None:
        self.events.append(event)
        self.commands.append(command)
        async with self._changed:
            self._changed.notify_all()

    async def until(self, condition: Callable[[MemoryRecorder], bool], timeout_s: float = 10) -> None:
        """Wait until the record satisfies `condition`."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: condition(self))

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    def output(self, stream: str = "stdout") -> bytes:
        """Every byte recorded of one stream, in order."""
        blocks = (event for event in self.events if isinstance(event, c.Output) and event.stream == stream)
        return b"".join(b.text.encode() if b.text is not None else b64decode(b.base64 or "") for b in blocks)
