"""Where things stand in the log of one exec: marks, in bounded memory, from which any place of it can be read again. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sandreel_core.client.items import CaughtUp, Ended, ExecItem, Gap, Output
from sandreel_core.contract.cursor import Cursor
from sandreel_core.errors import Malformed

MAX_MARKS = 4096
Axis = Literal["n", "line", "time", "sequence"]


@dataclass(frozen=True, slots=True)
class Mark:
    """After the event with ordinal `n`: so many complete lines had been printed on both streams."""

    n: int
    cursor: Cursor
    stored_ns: int
    lines: int


@dataclass(frozen=True, slots=True)
class Target:
    """A place to show: everything up to and with the event `n`, the line, the moment (ns since 1970), the sequence."""

    axis: Axis
    value: int


_KEYS: dict[Axis, Callable[[Mark], int]] = {
    "n": lambda mark: mark.n,
    "line": lambda mark: mark.lines,
    "time": lambda mark: mark.stored_ns,
    "sequence": lambda mark: mark.cursor.sequence,
}


class Recording:
    """Fed with every item of the exec, in order. Keeps every k-th mark, so that there are at most `max_marks`."""

    def __init__(self, *, max_marks: int = MAX_MARKS) -> None:
        self._marks: list[Mark] = []
        self._every = 1
        self._max = max_marks
        self.first: Mark | None = None
        self.last: Mark | None = None
        self.ended = False
        self.caught_up = False
        self.bytes = 0

    def add(self, item: ExecItem) -> None:
        if isinstance(item, CaughtUp):
            self.caught_up = True
        if isinstance(item, CaughtUp | Gap):
            return
        lines = self.last.lines if self.last else 0
        if isinstance(item, Output):
            lines += item.count
            self.bytes += len(item.data)
        self.ended = self.caught_up = isinstance(item, Ended) or self.caught_up
        self.ended = isinstance(item, Ended)
        self.last = Mark(item.n, item.cursor, item.stored_ns, lines)
        self.first = self.first or self.last
        if item.n % self._every == 0 or not self._marks:
            self._marks.append(self.last)
            if len(self._marks) > self._max:
                del self._marks[1::2]
                self._every *= 2

    def before(self, target: Target, lines: int) -> Mark | None:
        """A mark from which reading on shows the target and at least so many lines before it; None: from the beginning."""
        key = _KEYS[target.axis]
        at = bisect_right(self._marks, target.value, key=key) - 1
        if at < 0:
            return None
        enough = self._marks[at].lines - lines
        while at >= 0 and (self._marks[at].lines > enough or key(self._marks[at]) >= target.value):
            at -= 1
        return self._marks[at] if at >= 0 else None

    def share(self, mark: Mark) -> float:
        """How far the mark is between the first event and the last, by time, 0 to 1."""
        if self.first is None or self.last is None or self.last.stored_ns == self.first.stored_ns:
            return 1.0
        return (mark.stored_ns - self.first.stored_ns) / (self.last.stored_ns - self.first.stored_ns)

    def at_share(self, share: float) -> Target:
        """The moment at that share of the time between the first event and the last."""
        if self.first is None or self.last is None:
            return Target("n", 1)
        length = self.last.stored_ns - self.first.stored_ns
        return Target("time", self.first.stored_ns + round(min(1.0, max(0.0, share)) * length))

    def parse(self, text: str) -> Target:
        """`45%`, `90s` or `1m30s` after its first event, `+12` (line), `#7` (event), `2026-01-31T12:00:00Z`, a cursor.
        Raises Malformed."""
        import argparse

        from sandreel_core.cli.duration import instant, seconds

        word = text.strip()
        if self.first is None or self.last is None:
            raise Malformed("nothing of it has been read yet")
        if word.endswith("%") and word[:-1].replace(".", "", 1).isdecimal():
            return self.at_share(float(word[:-1]) / 100)
        if word[:1] in ("+", "#") and word[1:].isdecimal():
            return Target("line" if word[0] == "+" else "n", int(word[1:]))
        if word.count(":") == 2 and (at := instant(word)) is None:
            cursor = Cursor.parse(word)
            cursor.check(self.first.cursor.epoch)
            if cursor.partition != self.first.cursor.partition:
                raise Malformed(
                    f"cursor {cursor} belongs to partition {cursor.partition}, not to {self.first.cursor.partition}"
                )
            return Target("sequence", cursor.sequence)
        if (at := instant(word)) is not None:
            return Target("time", int(at.timestamp() * 1e9))
        try:
            return Target("time", self.first.stored_ns + int(seconds(word) * 1e9))
        except argparse.ArgumentTypeError as error:
            raise Malformed(
                f"{word[:40]!r} is none of 45%, 90s, +LINE, #EVENT, a time like 2026-01-31T12:00Z, or a cursor"
            ) from error


def is_behind(target: Target, item: Any, lines: int) -> bool:
    """Whether an event lies behind the target, `lines` having been printed with it."""
    if target.axis == "n":
        return bool(item.n > target.value)
    if target.axis == "time":
        return bool(item.stored_ns > target.value)
    if target.axis == "sequence":
        return bool(item.cursor.sequence > target.value)
    return lines > target.value


def when(mark: Mark) -> str:
    """The server's clock, in UTC, to the millisecond."""
    return datetime.fromtimestamp(mark.stored_ns / 1e9, UTC).isoformat(sep=" ", timespec="milliseconds")[:23]
