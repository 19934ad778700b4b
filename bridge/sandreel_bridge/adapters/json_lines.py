"""Bytes in any chunking as whole lines, with a bound on what is held. Pure."""

from __future__ import annotations

import msgspec
from msgspec import Struct

# Claude's lines carry what a tool read: an image of 5 MB, the most its API takes, is 6.7 MB of base64.
MAX_LINE_BYTES = 8 * 1024 * 1024


class JsonLines(Struct):
    """`held` is the line that has not ended yet; `skipping` says that it is too long already, and is not kept."""

    held: bytearray = msgspec.field(default_factory=bytearray)
    skipping: bool = False

    def feed(self, data: bytes) -> list[bytes | None]:
        """The lines that end in these bytes, without their newlines; None stands for one that is too long."""
        *ended, rest = data.split(b"\n")
        lines: list[bytes | None] = []
        if ended:
            lines.append(self._line(ended[0]))
            # Bytes that are no more than a line may be hold none that is too long.
            lines += ended[1:] if len(data) <= MAX_LINE_BYTES else [self._line(line) for line in ended[1:]]
        self._hold(rest)
        return lines

    def end(self) -> list[bytes | None]:
        """The last line, if it has no newline."""
        return [self._line(b"")] if self.held or self.skipping else []

    def _line(self, rest: bytes) -> bytes | None:
        self._hold(rest)
        line = None if self.skipping else bytes(self.held)
        self.held, self.skipping = bytearray(), False
        return line

    def _hold(self, piece: bytes) -> None:
        if self.skipping:
            return
        if len(self.held) + len(piece) > MAX_LINE_BYTES:
            self.held, self.skipping = bytearray(), True
        else:
            self.held += piece
