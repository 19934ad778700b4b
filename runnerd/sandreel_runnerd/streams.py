"""The standard streams of one exec: what it prints, on its way to the record, and what it is given to read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from sandreel_core.contract import exec as c
from sandreel_core.contract.runnerd import KeysTaken
from sandreel_core.errors import Refused
from sandreel_runnerd import terminal
from sandreel_runnerd.input import Input
from sandreel_runnerd.lines import Lines
from sandreel_runnerd.mask import Mask
from sandreel_runnerd.masked import MaskedLines
from sandreel_runnerd.output import Output
from sandreel_runnerd.pipes import Sink, Source
from sandreel_runnerd.process import Recipe, Spawned
from sandreel_runnerd.rate import Rate

KEYS_NOTED_EVERY_S = 0.5


class Streams:
    """Made with its exec, and opened when the process is there; `record` takes what is to be told of them."""

    def __init__(self, start: c.Start, mask: Mask, record: Callable[[c.ExecEvent], Awaitable[None]]) -> None:
        self._start = start
        self._mask = mask
        self._record = record
        self._spawned: Spawned | None = None
        self._input: Input | None = None
        self._typed = asyncio.Event()
        self._throttled = False
        self._holding = False
        self.outputs: list[Output] = []

    def adopt(self, spawned: Spawned) -> None:
        """From now on `close` closes what was opened for it."""
        self._spawned = spawned

    def open(self, recipe: Recipe, note: Callable[[float], None], now: float) -> None:
        """After `adopt`. note: is told the time of every read."""
        spawned = self._spawned
        assert spawned is not None  # noqa: S101
        limit = self._start.rate_limit_bytes_per_s
        rate = Rate(limit, now) if limit is not None else None
        pipes: list[tuple[c.Stream, int | None, int | None]] = [
            ("stdout", spawned.stdout, self._start.stdout_max_bytes),
            ("stderr", spawned.stderr, self._start.stderr_max_bytes),
        ]
        for stream, fd, max_bytes in pipes:
            if fd is not None:
                lines = MaskedLines(Lines(stream, hold=recipe.tty is None, max_bytes=max_bytes), self._mask)
                self.outputs.append(Output(stream, Source(fd), lines, self._record, note, rate, self._throttle))
        self.hold(self._holding)
        if spawned.stdin is not None:
            self._input = Input(Sink(spawned.stdin), recipe.input, hold=recipe.hold, tty=recipe.tty is not None)

    @property
    def silent(self) -> bool:
        """Whether the program, and nobody else, is why nothing comes."""
        return all(output.silent for output in self.outputs)

    def foreground_group(self) -> int | None:
        """Of the terminal, if there is one."""
        return self.outputs[0].foreground_group() if self._start.tty is not None and self.outputs else None

    def hold(self, hold: bool) -> None:
        """Do not read for now, or go on; before `open`: how it begins."""
        self._holding = hold
        for output in self.outputs:
            output.hold(hold)

    def resize(self, cols: int, rows: int) -> None:
        """Raises Refused (BAD_REQUEST) without a terminal."""
        if self._start.tty is None or self._spawned is None:
            raise Refused("BAD_REQUEST", "the exec has no terminal")
        terminal.resize(self._spawned.stdout, cols, rows)

    async def begin_input(self) -> None:
        """Give it its first bytes."""
        if self._input is not None:
            await self._input.begin()

    async def write(self, data: bytes, eof: bool) -> c.StdinWritten:
        """See `Input.write`."""
        if self._input is None:
            raise Refused("STDIN_CLOSED", "the exec's standard input is closed")
        return await self._input.write(data, eof)

    async def keys(self, offset: int, data: bytes, writer: str | None) -> KeysTaken:
        """See `Input.keys`. Raises Refused (BAD_REQUEST) without a terminal, too."""
        if self._start.tty is None or self._input is None:
            raise Refused("BAD_REQUEST", "the exec has no terminal")
        before = self._input.typed
        taken = await self._input.keys(offset, data, writer)
        if self._input.typed > before:
            self._typed.set()
        return taken

    async def note_keys(self) -> None:
        """For ever. Typed input is noted now and then, not key by key: a note costs an event, and would delay the echo."""
        while True:
            await self._typed.wait()
            await asyncio.sleep(KEYS_NOTED_EVERY_S)
            self._typed.clear()
            await self.note()

    async def note(self) -> None:
        """What was typed since the last note, if anything."""
        event = self._input.note() if self._input is not None else None
        if event is not None:
            await self._record(event)

    def child_left(self) -> None:
        """Nothing is written any more, and a hold is over."""
        if self._input is not None:
            self._input.close()
        for output in self.outputs:
            output.child_left()

    def close_soon(self) -> None:
        """What is in the pipes now is read; a grandchild that holds them is not waited for."""
        for output in self.outputs:
            output.close_soon()

    def close(self) -> None:
        """Any number of times; also of what was spawned and never opened."""
        if self._input is not None:
            self._input.close()
        for output in self.outputs:
            output.close()
        spawned, self._spawned = self._spawned, None
        if spawned is not None and not self.outputs:
            for fd in (spawned.stdin, spawned.stdout, spawned.stderr):
                if fd is not None:
                    os.close(fd)

    async def _throttle(self, bytes_per_s: int) -> None:
        if not self._throttled:
            self._throttled = True
            await self._record(c.Throttled(bytes_per_s=bytes_per_s))
