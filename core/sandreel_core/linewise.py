"""Blocks of output as whole lines: a line that is split over blocks is joined. Pure; times are given."""

from __future__ import annotations

from msgspec import Struct

# A longer line is given out in pieces, so that one without end holds no more than this.
MAX_LINE_BYTES = 64 * 1024


class Line(Struct, frozen=True):
    """A line without its newline, or a piece of one.

    number  from 1, per stream
    begun   its first byte is in this piece
    ended   its newline, or the end of all output, stands behind this piece
    """

    number: int
    data: bytes
    begun: bool = True
    ended: bool = True


class Lines:
    """One stream of one exec. `held_since_s` is when the oldest byte came that no line was given out for, by the
    caller's clock; None while nothing is held."""

    __slots__ = ("_begun", "_held", "_number", "held_since_s")

    def __init__(self) -> None:
        self._held = b""
        self._number = 1
        self._begun = True
        self.held_since_s: float | None = None

    def goes_on(self, line: int) -> None:
        """The first block to come continues this line, whose beginning was given out before."""
        self._number, self._begun = line, False

    @property
    def held(self) -> Line | None:
        """The line that has not ended yet, as far as it has come and was not given out."""
        return Line(self._number, self._held, self._begun, ended=False) if self._held else None

    def feed(self, data: bytes, line: int, now_s: float) -> list[Line]:
        """The lines that end in this block. `line` is the number of the line that holds its first byte."""
        lines: list[Line] = []
        if line != self._number:
            # What lay between is missing: what is held will never get its newline.
            lines += self.release()
            self._number, self._begun = line, True
        pieces = data.split(b"\n")
        if len(pieces) > 1:
            lines.append(Line(line, self._held + pieces[0], self._begun))
            lines += [Line(line + offset, piece) for offset, piece in enumerate(pieces[1:-1], 1)]
            self._held, self._begun, self.held_since_s = b"", True, None
            self._number = line + len(pieces) - 1
        if pieces[-1]:
            self._held += pieces[-1]
            self.held_since_s = now_s if self.held_since_s is None else self.held_since_s
            if len(self._held) > MAX_LINE_BYTES:
                lines += self.release()
        return lines

    def release(self, *, ended: bool = False) -> list[Line]:
        """What is held, to be given out as it is; nothing when nothing is. `ended`: no more will come."""
        if not self._held:
            return []
        piece = Line(self._number, self._held, self._begun, ended)
        self._held, self._begun, self.held_since_s = b"", ended, None
        return [piece]
