"""Bytes of one stream, as they were read, to output blocks (design §4, "Output blocks").

Pure, and the hottest code of runnerd: it looks at blocks, never at single lines.
"""

from __future__ import annotations

from base64 import b64decode, b64encode

from sandreel_core.contract.exec import Output, Stream, Truncated

# One read, and so one message: with an fsync a message the cost is per message (docs/decisions/0006).
READ_BYTES = 256 * 1024
# How long a line may be without its newline before it is shown as it is (design §4).
HOLD_S = 0.05
# What may be held. A block is at most this and one read, 272 KiB: as base64 363 KiB; as text twice that with quotes and newlines
# alone, but six times with control characters alone, which is over the server's default payload of 1 MiB: see `halves`.
MAX_HELD_BYTES = 16 * 1024


def incomplete_bytes(data: bytes) -> int:
    """How many bytes at the end begin a code point that is not complete: 0 to 3."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return 0
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4 if byte < 0xF8 else 0
            return back if back < needed else 0
    return 0


def halves(block: Output) -> tuple[Output, Output]:
    """A block that is too large for a message, as two that say the same: cut behind a newline, if its first half has one."""
    data = block.text.encode() if block.text is not None else b64decode(block.base64 or "")
    half = len(data) // 2
    cut = data.rfind(b"\n", 0, half) + 1 or half - incomplete_bytes(data[:half])
    lines = Lines(block.stream)
    lines.lines = block.line - 1
    return lines._block(data[:cut]), lines._block(data[cut:])


class Lines:
    """The block builder of one stream.

    hold       whether to hold a line that has no newline yet (not for terminals)
    max_bytes  cut at exactly so many bytes; what comes behind leads to one Truncated and is dropped
    `lines` and `bytes` count what went into blocks.
    """

    __slots__ = ("_held", "_hold", "_max_bytes", "_room", "_stream", "bytes", "held_until", "lines", "truncated")

    def __init__(self, stream: Stream, *, hold: bool = True, max_bytes: int | None = None) -> None:
        self._stream: Stream = stream
        self._hold = hold
        self._max_bytes = max_bytes
        self._room = max_bytes
        self._held = b""
        self.held_until: float | None = None
        self.lines = 0
        self.bytes = 0
        self.truncated = False

    def feed(self, data: bytes, now: float) -> list[Output | Truncated]:
        """What was read just now; at most one block per READ_BYTES. `now` in seconds, monotonic."""
        if self._room is not None:
            return self._feed_capped(data, self._room, now)
        if len(data) <= READ_BYTES:
            block = self._feed(data, now)
            return [block] if block is not None else []
        blocks = (self._feed(data[at : at + READ_BYTES], now) for at in range(0, len(data), READ_BYTES))
        return [block for block in blocks if block is not None]

    def flush(self) -> list[Output]:
        """The line that was held long enough, but for a code point of which a part is still to come."""
        self.held_until = None
        held = self._held
        cut = len(held) - incomplete_bytes(held)
        if not cut:
            return []
        self._held = held[cut:]
        return [self._block(held[:cut])]

    def end(self) -> list[Output]:
        """Everything that is still held: nothing follows."""
        held, self._held, self.held_until = self._held, b"", None
        return [self._block(held)] if held else []

    def _feed_capped(self, data: bytes, room: int, now: float) -> list[Output | Truncated]:
        kept = data[:room]
        self._room = room - len(kept)
        events: list[Output | Truncated] = []
        for at in range(0, len(kept), READ_BYTES):
            block = self._feed(kept[at : at + READ_BYTES], now)
            if block is not None:
                events.append(block)
        if len(data) > room and not self.truncated:
            self.truncated = True
            events += self.end()
            events.append(Truncated(stream=self._stream, limit_bytes=self._max_bytes or 1))
        return events

    def _feed(self, data: bytes, now: float) -> Output | None:
        held = self._held
        whole = held + data if held else data
        if self._hold:
            cut = whole.rfind(b"\n") + 1
            if len(whole) - cut > MAX_HELD_BYTES:
                cut = len(whole) - incomplete_bytes(whole)
        else:
            cut = len(whole) - incomplete_bytes(whole)
        if not cut:
            self._held = whole
            if self._hold and whole and (self.held_until is None):
                self.held_until = now + HOLD_S
            return None
        if cut == len(whole):
            self._held = b""
            self.held_until = None
            return self._block(whole)
        self._held = whole[cut:]
        self.held_until = now + HOLD_S if self._hold else None
        return self._block(whole[:cut])

    def _block(self, data: bytes) -> Output:
        line = self.lines + 1
        self.bytes += len(data)
        eol = data.endswith(b"\n")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            base64 = b64encode(data).decode("ascii")
            count = data.count(b"\n")
            self.lines += count
            return Output(stream=self._stream, line=line, count=count, base64=base64, eol=eol)
        count = text.count("\n")  # half as long as of the bytes (Debian's CPython 3.13)
        self.lines += count
        return Output(stream=self._stream, line=line, count=count, text=text, eol=eol)
