"""From one output pipe to the record: read, cut into blocks, hand over, and only then read on (backpressure)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from sandreel_core.contract.exec import ExecEvent, Stream
from sandreel_runnerd import terminal
from sandreel_runnerd.lines import READ_BYTES
from sandreel_runnerd.masked import MaskedLines
from sandreel_runnerd.pipes import Source
from sandreel_runnerd.rate import Rate


class Output:
    """One stream of one exec. `note` is told the time of every read, `throttled` that the child has to wait."""

    def __init__(
        self,
        stream: Stream,
        source: Source,
        lines: MaskedLines,
        record: Callable[[ExecEvent], Awaitable[None]],
        note: Callable[[float], None],
        rate: Rate | None = None,
        throttled: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self.stream: Stream = stream
        self.lines = lines
        self._source = source
        self._record = record
        self._note = note
        self._rate = rate
        self._throttled = throttled
        self._busy = False
        self._left = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._budget: int | None = None

    @property
    def silent(self) -> bool:
        """Whether the program, and nobody else, is why nothing comes."""
        return not self._busy and self._may_read.is_set() and not self._source.available()

    async def pump(self) -> None:
        """Until the pipe's end, or until what `close_soon` found in it was read."""
        loop = asyncio.get_running_loop()
        source, lines = self._source, self.lines
        while True:
            if not self._may_read.is_set():
                await self._may_read.wait()
            limit = READ_BYTES if self._rate is None else min(READ_BYTES, self._rate.read_bytes)
            if self._budget is not None:
                limit = min(READ_BYTES, self._budget)
                if limit <= 0:
                    break
            data = source.read(limit)
            now = loop.time()
            if data is None:
                if self._budget is not None:
                    break
                held_until = lines.held_until
                if held_until is not None and now >= held_until:
                    await self._hand_over(lines.flush(now))
                else:
                    await source.wait(held_until)
                continue
            if not data:
                break
            self._note(now)
            if self._budget is not None:
                self._budget -= len(data)
            await self._hand_over(lines.feed(data, now))
            if self._rate is not None and not self._left.is_set():
                await self._slow_down(self._rate, len(data))
            else:
                # The record may have had room: others get their turn all the same.
                await asyncio.sleep(0)
        await self._hand_over(lines.end(loop.time()))
        source.close()

    def hold(self, hold: bool) -> None:
        """Stop reading, or go on. Without effect once the child has left."""
        if hold and not self._left.is_set():
            self._may_read.clear()
        else:
            self._may_read.set()

    def child_left(self) -> None:
        """Nobody can be slowed down or made to wait any more."""
        self._left.set()
        self._may_read.set()

    def close_soon(self) -> None:
        """Read no more than what is in the pipe at this moment (at most the pipe's size)."""
        self._budget = self._source.available()
        self._source.wake()

    def close(self) -> None:
        self._source.close()

    def foreground_group(self) -> int | None:
        """Of the terminal that this output is."""
        return None if self._source.closed else terminal.foreground_group(self._source.fd)

    async def _hand_over(self, events: Sequence[ExecEvent]) -> None:
        self._busy = True
        try:
            for event in events:
                await self._record(event)
        finally:
            self._busy = False

    async def _slow_down(self, rate: Rate, size: int) -> None:
        pause_s = rate.take(size, asyncio.get_running_loop().time())
        if not pause_s:
            return
        self._busy = True
        try:
            if self._throttled is not None:
                await self._throttled(rate.bytes_per_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._left.wait()
        finally:
            self._busy = False
