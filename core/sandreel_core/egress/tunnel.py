"""Two connections that are joined: bytes in both directions, with backpressure, half-close, and no copy on the way.

Protocols and not streams: what arrives is written to the other side in the same callback, so a tunnel has no task and
no queue of its own; the kernel's buffers and the transport's (64 KiB, asyncio's high-water mark) are all that it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

_HEAD_END = b"\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


class End(asyncio.Protocol):
    """One end. Until it is joined, what comes is kept, and reading stops at `max_kept_bytes` (asyncio hands over up to
    256 KiB at once, so it is that more at the most)."""

    def __init__(self, max_kept_bytes: int) -> None:
        self._max_kept_bytes = max_kept_bytes
        self._transport: asyncio.Transport | None = None
        self._kept = bytearray()
        self._changed = asyncio.Event()
        self._peer: End | None = None
        self._room: int | None = None  # bytes that may still be passed on; None: without a limit
        self._eof = False
        self._eof_passed = False
        self._thrown_away = False  # what still comes: the client was told no
        self._full = False  # more waits to be written than asyncio's high-water mark
        self.received_bytes = 0
        self.active_at = 0.0
        self.lost = asyncio.Event()

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None  # noqa: S101 - an end is used once it is connected
        return self._transport

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        self.active_at = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self.active_at = asyncio.get_running_loop().time()
        if self._peer is not None:
            self._pass(data)
            return
        if self._thrown_away:
            return
        self._kept += data
        if len(self._kept) >= self._max_kept_bytes:
            self.transport.pause_reading()
        self._changed.set()

    def eof_received(self) -> bool:
        self._eof = True
        self._changed.set()
        self._pass_eof()
        return True  # stay open: the other direction goes on

    def pause_writing(self) -> None:
        self._full = True
        if self._peer is not None:
            self._peer.transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        if self._peer is not None and not self._peer.transport.is_closing():
            self.active_at = asyncio.get_running_loop().time()
            self._peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()
        self._changed.set()
        peer = self._peer
        if peer is None or peer.transport.is_closing():
            return
        # A reset is passed on as one: an end that looks orderly would make a cut answer look complete.
        if error is not None or not self._eof:
            peer.reset()
        else:
            peer.transport.close()

    # What the proxy calls.

    async def head(self, max_bytes: int) -> bytes | None:
        """Take what comes up to the first empty line; None when that is more than `max_bytes`, or never comes."""
        searched = 0
        while True:
            end = self._kept.find(_HEAD_END, max(0, searched - len(_HEAD_END)))
            if 0 <= end <= max_bytes - len(_HEAD_END):
                head = bytes(self._kept[: end + len(_HEAD_END)])
                del self._kept[: len(head)]
                return head
            searched = len(self._kept)
            if searched >= max_bytes or self._eof or self.lost.is_set():
                return None
            self._changed.clear()
            await self._changed.wait()

    @property
    def kept(self) -> bytes:
        """What has come and was not taken."""
        return bytes(self._kept)

    @property
    def too_much(self) -> bool:
        """Why `head` was None: more came than an end keeps."""
        return len(self._kept) >= self._max_kept_bytes

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    async def dismiss(self, answer: bytes, *, within_s: float) -> None:
        """The last word to a client that is told no. What it still sends is taken and thrown away: closing with it
        unread would reset the connection, and the answer could be lost."""
        self._thrown_away = True
        self._kept.clear()
        if not self.transport.is_closing():
            self.transport.write(answer)
            with contextlib.suppress(OSError):
                self.transport.write_eof()
            self.transport.resume_reading()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    while not (self._eof or self.lost.is_set()):
                        self._changed.clear()
                        await self._changed.wait()
        self.abort()

    def abort(self) -> None:
        """Gone, now. What was still to be written is lost."""
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """As `abort`, and the other side is told that this was no end (RST instead of FIN)."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None and not self.transport.is_closing():
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _join(self, peer: End, room: int | None) -> None:
        self._peer, self._room = peer, room
        if self._kept:
            kept = bytes(self._kept)
            self._kept.clear()
            self._pass(kept)

    def _go(self) -> None:
        if self._eof:
            self._pass_eof()
        if self.lost.is_set():
            self.connection_lost(None)
        elif not self.transport.is_closing() and not (self._peer is not None and self._peer._full):
            self.transport.resume_reading()

    def _pass(self, data: bytes) -> None:
        peer = self._peer
        assert peer is not None  # noqa: S101
        if self._room is not None:
            if len(data) > self._room:
                # More than it announced: a second request on a connection that is for one.
                peer.reset()
                self.reset()
                return
            self._room -= len(data)
        if not peer.transport.is_closing():
            peer.transport.write(data)

    def _pass_eof(self) -> None:
        peer = self._peer
        if peer is None or self._eof_passed or peer.transport.is_closing():
            return
        self._eof_passed = True
        if peer._eof:
            # Both have said all: what is still to be written goes first, in both directions.
            peer.transport.close()
            self.transport.close()
        elif self._room is None:
            with contextlib.suppress(OSError):  # not connected any more: `connection_lost` comes
                peer.transport.write_eof()


def join(client: End, far: End, *, room: int | None = None) -> None:
    """From now on each gets what the other sends. `room`: how many bytes the client may send, of a plain request."""
    client._join(far, room)
    far._join(client, None)
    client._go()
    far._go()


async def until_over(client: End, far: End, *, idle_timeout_s: float) -> bool:
    """Wait until both are gone; False when nothing had moved for `idle_timeout_s`, so that they were cut."""
    loop = asyncio.get_running_loop()
    while not (client.lost.is_set() and far.lost.is_set()):
        waited = (client if far.lost.is_set() else far).lost
        quiet_s = loop.time() - max(client.active_at, far.active_at)
        if quiet_s >= idle_timeout_s:
            client.reset()
            far.reset()
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(idle_timeout_s - quiet_s):
                await waited.wait()
    return True
