"""Typed input on its way to an exec's terminal: in order, each byte once, and nothing of it stored anywhere (law 6).

Go-back-N, as output goes the other way: several requests are on their way at once, what an answer says was taken is
let go of, and whatever went wrong, the bytes that are left are sent again from the same offset.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from sandreel_core.clock import new_token
from sandreel_core.contract.runnerd import KeysTaken
from sandreel_core.errors import NotFound, Refused, Unavailable

# Typed and not taken yet. A fast typist fills it in two hours, a paste at once: what is pasted beyond waits outside.
MAX_WAITING_BYTES = 64 * 1024
# Requests on their way at once: one is enough for a typist, more keep a paste moving over a slow link.
_WINDOW = 8
_PIECE_BYTES = 4 * 1024  # what the kernel keeps for a terminal whose program does not read
# An answer takes a millisecond, or a second when the program does not read (runnerd's KEYS_WAIT_S), times the window.
_ANSWER_WITHIN_S = 10.0
_FIRST_PAUSE_S, _GREATEST_PAUSE_S = 0.1, 1.0


class Type(Protocol):
    """`ExecHandle.type`."""

    async def __call__(
        self, data: bytes, *, offset: int, writer: str | None = None, timeout_s: float | None = None
    ) -> KeysTaken: ...


class Keyboard:
    """One person's keys. `put` them while `run` is under way.

    waiting      bytes that were typed and are not known to be taken
    trouble      why they wait, while the bus or the session is away; else None
    others       how many other keyboards have typed at this terminal within the last minute
    """

    def __init__(self, type: Type) -> None:
        self._type = type
        self._writer = new_token("k-")
        self._left = bytearray()
        self._base = 0  # offset of the first byte in `_left`
        self._flying = 0  # requests
        self._sent = 0  # bytes of `_left` that are in them
        self._again = False  # something was not taken: send it again when nothing flies any more
        self._refusal: Refused | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._since: float | None = None
        self.trouble: Unavailable | NotFound | None = None
        self.others = 0

    @property
    def waiting(self) -> int:
        return len(self._left)

    @property
    def waits_s(self) -> float:
        """For how long nothing has been taken of what waits; 0 when nothing waits."""
        return asyncio.get_running_loop().time() - self._since if self._since is not None else 0.0

    def put(self, data: bytes) -> int:
        """Type; how many bytes were kept. Fewer than all when MAX_WAITING_BYTES wait already: the rest is not typed."""
        kept = data[: MAX_WAITING_BYTES - len(self._left)]
        if kept:
            if self._since is None:
                self._since = asyncio.get_running_loop().time()
            self._left += kept
            self._changed.set()
        return len(kept)

    async def put_all(self, data: bytes, *, within_s: float) -> int:
        """`put`, and what does not fit as soon as there is room; how many bytes were kept when nothing was taken for
        `within_s` seconds, else all."""
        kept = self.put(data)
        while kept < len(data):
            self._room.clear()
            try:
                async with asyncio.timeout(within_s):
                    await self._room.wait()
            except TimeoutError:
                break
            kept += self.put(data[kept:])
        return kept

    async def flush(self, *, within_s: float) -> None:
        """As soon as all is taken, or after `within_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._left:
                    self._room.clear()
                    await self._room.wait()

    async def run(self) -> None:
        """Send what is typed, for ever; again and again while nobody answers. Raises Refused when the terminal takes
        no more: EXEC_NOT_FOUND once the exec has ended."""
        pause_s = _FIRST_PAUSE_S
        async with asyncio.TaskGroup() as group:
            flights: set[asyncio.Task[None]] = set()
            while self._refusal is None:
                await self._changed.wait()
                self._changed.clear()
                if self._again and not self._flying:
                    pause_s = min(pause_s * 2, _GREATEST_PAUSE_S) if self.trouble else _FIRST_PAUSE_S
                    await asyncio.sleep(pause_s)
                    self._again, self._sent = False, 0
                while not self._again and self._flying < _WINDOW and self._sent < len(self._left):
                    piece = bytes(self._left[self._sent : self._sent + _PIECE_BYTES])
                    flight = group.create_task(self._send(piece, self._base + self._sent))
                    flights.add(flight)
                    flight.add_done_callback(flights.discard)
                    self._sent += len(piece)
                    self._flying += 1
            for flight in flights:
                flight.cancel()
        raise self._refusal

    async def _send(self, piece: bytes, offset: int) -> None:
        try:
            taken = await self._type(piece, offset=offset, writer=self._writer, timeout_s=_ANSWER_WITHIN_S)
        except Refused as refusal:
            self._refusal = refusal
        except (Unavailable, NotFound) as error:  # NotFound: runnerd itself has lost the bus for now
            self.trouble, self._again = error, True
        else:
            self.trouble, self.others = None, taken.others
            self._release(taken.offset)
            self._again = self._again or taken.offset < offset + len(piece)
        finally:
            self._flying -= 1
            self._changed.set()

    def _release(self, taken: int) -> None:
        count = taken - self._base
        if self._base and not taken:
            # 64 other keyboards came after this one. Whether what flies was typed is not known, so it is not repeated.
            self._refusal = Refused("KEYS_FORGOTTEN", "the terminal does not know this keyboard any more: attach again")
        if count > 0:
            del self._left[:count]
            self._base = taken
            self._sent = max(0, self._sent - count)
            self._since = asyncio.get_running_loop().time() if self._left else None
            self._room.set()
