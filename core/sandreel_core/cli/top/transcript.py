"""The lines of an exec as they stand on a screen: blocks of output joined into lines, events as remarks between. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sandreel_core.cli.cells import plain, spelt
from sandreel_core.client.items import CaughtUp, Changed, Ended, ExecItem, Gap, Output
from sandreel_core.contract import exec as x

# Of one line so many characters are kept, its end; what a progress bar overwrites for ever would grow for ever.
_MAX_LINE = 4096
Kind = Literal["stdout", "stderr", "remark"]


@dataclass(slots=True)
class _Line:
    kind: Kind
    text: str
    is_open: bool


class Transcript:
    """The last `capacity` lines of what was added."""

    def __init__(self, capacity: int) -> None:
        self._lines: deque[_Line] = deque(maxlen=capacity)

    def add(self, item: ExecItem, *, newlines: int | None = None) -> None:
        """`newlines`: of a block of output only so many lines."""
        if isinstance(item, Output):
            text = item.text
            if newlines is not None and newlines < item.count:
                text = "\n".join(text.split("\n")[:newlines]) + "\n"
            self._print(item.stream, text)
        elif not isinstance(item, CaughtUp) and (said := _remark(item)):
            self._lines.append(_Line("remark", said, False))

    def lines(self) -> Sequence[tuple[Kind, str]]:
        """Oldest first; nothing in them steers a terminal."""
        return [(line.kind, plain(line.text)) for line in self._lines]

    def _print(self, kind: Kind, text: str) -> None:
        most = (self._lines.maxlen or 0) + 1  # with the piece behind the last newline
        pieces = text.rsplit("\n", most)
        if len(pieces) > most:
            del pieces[0]  # what stands before the last lines would fall out at once
        elif self._lines and self._lines[-1].is_open and self._lines[-1].kind == kind:
            last = self._lines.pop()
            pieces[0] = last.text + pieces[0]
        for piece in pieces[:-1]:
            self._lines.append(_Line(kind, piece[-_MAX_LINE:], False))
        if pieces[-1]:
            self._lines.append(_Line(kind, pieces[-1][-_MAX_LINE:], True))


def _remark(item: Ended | Changed | Gap) -> str:
    if isinstance(item, Gap):
        return f"missing: {spelt(item.why)}"
    match item.event.data:
        case x.Exited() as end:
            how = f"signal {end.signal}" if end.exit_code is None and end.signal else f"code {end.exit_code}"
            return f"exited with {how} ({end.reason}) after {end.duration_ms / 1000:.1f} s"
        case x.Lost() as lost:
            return f"lost: its recorder died ({lost.cause}); how it ended is not known"
        case x.Started() as start:
            return spelt("$ " + (start.shell if start.shell is not None else " ".join(start.argv or [])))[:400]
        case x.Signalled() as sent:
            return f"{sent.signal} was sent ({sent.why})"
        case x.Truncated() as cut:
            return f"{cut.stream} was cut at {cut.limit_bytes} bytes, as asked"
        case x.Gap() as gap:
            return f"missing: {spelt(gap.why)}"
        case x.Throttled() as slow:
            return f"made to wait: {slow.bytes_per_s} bytes/s"
        case x.Resized() as resized:
            return f"resized to {resized.cols}×{resized.rows}"
        case x.StdinWritten() as written:
            return f"{written.bytes} bytes of input" + (", then its end" if written.eof else "")
    return ""
