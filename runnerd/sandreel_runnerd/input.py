"""A program's standard input: what it was started with, what is appended, what is typed. Every write has a verdict."""

from __future__ import annotations

import asyncio

from sandreel_core.contract.exec import StdinWritten
from sandreel_core.contract.runnerd import KeysTaken
from sandreel_core.errors import Refused
from sandreel_runnerd.keyboards import Keyboards
from sandreel_runnerd.pipes import Sink
from sandreel_runnerd.terminal import END_OF_INPUT

# Writes that wait for the program to read; each holds at most 64 KiB.
MAX_WAITING = 64
# How long typed keys wait for a program that does not read.
KEYS_WAIT_S = 1.0


class Input:
    """One exec's input. `hold`: stays open after the first bytes. A terminal's never closes, since keys may come."""

    def __init__(self, sink: Sink, first: bytes, *, hold: bool, tty: bool) -> None:
        self._sink = sink
        self._first = first
        self._tty = tty
        self._ended = not hold
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._keyboards = Keyboards()
        self._noted = 0

    @property
    def typed(self) -> int:
        """Bytes, of all writers together."""
        return self._keyboards.taken(None)

    async def begin(self) -> None:
        """Write the first bytes, and end the input unless it is held. That the program does not read them is no error."""
        async with self._turn:
            await self._sink.write(self._first)
            self._first = b""
            if self._ended and not self._tty:
                self._sink.close()

    async def write(self, data: bytes, eof: bool) -> StdinWritten:
        """Append, in the order of the calls, and end the input if `eof`. Raises Refused: STDIN_CLOSED,
        STDIN_BUSY, WRITE_FAILED."""
        self._check()
        if self._waiting >= MAX_WAITING:
            raise Refused("STDIN_BUSY", f"{MAX_WAITING} writes wait for the program to read")
        self._waiting += 1
        try:
            async with self._turn:
                self._check()
                taken = await self._sink.write(data)
                if taken < len(data):
                    raise Refused("WRITE_FAILED", f"the program took {taken} of {len(data)} bytes and closed its input")
                if eof:
                    await self._end()
        finally:
            self._waiting -= 1
        return StdinWritten(bytes=len(data), eof=eof)

    async def keys(self, offset: int, data: bytes, writer: str | None = None) -> KeysTaken:
        """Type what was not typed yet, and say how much has been. Raises Refused: BAD_REQUEST, WRITE_FAILED."""
        now = asyncio.get_running_loop().time
        async with self._turn:
            taken = self._keyboards.taken(writer)
            if offset > taken and writer is None:
                raise Refused("BAD_REQUEST", f"keys {taken} to {offset} are missing")
            fresh = data[taken - offset :] if offset <= taken else b""
            if fresh:
                written = await self._sink.write(fresh, now() + KEYS_WAIT_S)
                if written:
                    self._keyboards.add(writer, written, now())
                if self._sink.closed:
                    raise Refused("WRITE_FAILED", "the terminal hung up")
            return KeysTaken(offset=self._keyboards.taken(writer), others=self._keyboards.others(writer, now()))

    def note(self) -> StdinWritten | None:
        """What was typed since the last note: how much, never what (law 6)."""
        fresh = self.typed - self._noted
        self._noted = self.typed
        return StdinWritten(bytes=fresh, offset=self.typed) if fresh else None

    def close(self) -> None:
        """Nothing is written any more; whoever waits gets WRITE_FAILED."""
        self._ended = True
        self._sink.close()

    def _check(self) -> None:
        if self._ended:
            raise Refused("STDIN_CLOSED", "the exec's standard input is closed")
        if self._sink.dead():
            raise Refused("STDIN_CLOSED", "the program has closed its standard input")

    async def _end(self) -> None:
        self._ended = True
        if self._tty:
            if not await self._sink.write(END_OF_INPUT):
                raise Refused("WRITE_FAILED", "the terminal hung up")
        else:
            self._sink.close()
