"""What the demo prints: titles, live output, and what was killed when; in colour on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from sandreel_core.cli.interactive import has_colours
from sandreel_core.json_line import json_text

if TYPE_CHECKING:
    from sandreel_core.embedded.part import Status

_BOLD, _DIM, _RED, _GREEN, _YELLOW = "1", "2", "31", "32", "33"
# Lines of output that are shown one by one; of more only how many there are.
_SHOWN_LINES = 400
_PROGRESS_EVERY_S = 0.1


class Stage:
    """Writes to a terminal or a file. A progress line is written over itself on a terminal and is rare in a file."""

    json = False

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._colour = has_colours(out)
        self._rest = b""
        self._lines = 0
        self._drawn = False
        self._drawn_at = 0.0
        self._make_room: Callable[[], None] = lambda: None

    @contextmanager
    def beside(self, make_room: Callable[[], None]) -> Iterator[None]:
        """Meanwhile somebody else writes to the same terminal, and is asked for room before each line."""
        before, self._make_room = self._make_room, make_room
        try:
            yield
        finally:
            self._make_room = before

    def title(self, text: str) -> None:
        self.say("")
        self.say(self._paint(f"── {text}", _BOLD))
        self._drawn_at = time.monotonic()

    def say(self, text: str) -> None:
        self._clear()
        print(text, file=self._out, flush=True)

    def verdict(self, text: str, *, good: bool) -> None:
        self.say(self._paint(text, _GREEN if good else _RED))

    def part(self, status: Status) -> None:
        """For `Stack(report=…)`."""
        if status.state == "starting":
            return
        pid = f"pid {status.pid}" if status.pid else ""
        took = f"{status.took_s:.2f} s" if status.took_s is not None else ""
        words = "  ".join(word for word in (status.detail, pid, took) if word)
        line = f"  {status.part:<10} {status.state:<8} {words}".rstrip()
        self.say(self._paint(line, _YELLOW) if status.state == "died" else line)

    def kill(self, who: str, text: str) -> None:
        self.say(self._paint(f"  ✗ {who}: {text}", _RED))

    def output(self, body: bytes) -> None:
        """Of the job: its first lines as they come, then how many there are."""
        *lines, self._rest = (self._rest + body).split(b"\n")
        for line in lines:
            self._lines += 1
            if self._lines <= _SHOWN_LINES and not line.startswith(b"burst 0"):
                self.say(self._paint(f"  | {line.decode(errors='replace')[:150]}", _DIM))
        if lines and lines[-1].startswith(b"burst "):
            self.progress(f"{self._lines:,} lines … {lines[-1].decode(errors='replace')[:60]}")

    def progress(self, text: str) -> None:
        now = time.monotonic()
        if now - self._drawn_at < (_PROGRESS_EVERY_S if self._terminal else 1.0):
            return
        self._drawn_at = now
        if self._terminal:
            print(f"\r\x1b[K  {text}", end="", file=self._out, flush=True)
            self._drawn = True
        else:
            print(f"  {text}", file=self._out, flush=True)

    def end_output(self) -> None:
        self._clear()

    def compare(self, what: str, produced: object, seen: object) -> bool:
        """One line; whether the two are equal."""
        equal = produced == seen
        mark = self._paint("✓", _GREEN) if equal else self._paint("✗", _RED)
        text = f"{_short(produced)}" if equal else f"{_short(produced)} is not {_short(seen)}"
        self.say(f"  {mark} {what}: {text}")
        return equal

    def block(self, text: str) -> None:
        for line in text.splitlines():
            self.say(f"    {line}")

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text

    def _clear(self) -> None:
        self._make_room()
        if self._drawn:
            print("\r\x1b[K", end="", file=self._out)
            self._drawn = False


class JsonStage(Stage):
    """The same as one JSON object a line, without the job's output."""

    json = True

    def title(self, text: str) -> None:
        self._line({"title": text})

    def say(self, text: str) -> None:
        if text.strip():
            self._line({"text": text.strip()})

    def verdict(self, text: str, *, good: bool) -> None:
        self._line({"verdict": text, "good": good})

    def part(self, status: Status) -> None:
        self._line(status)

    def kill(self, who: str, text: str) -> None:
        self._line({"killed": who, "text": text})

    def output(self, body: bytes) -> None:
        return

    def progress(self, text: str) -> None:
        return

    def compare(self, what: str, produced: object, seen: object) -> bool:
        equal = produced == seen
        self._line({"check": what, "equal": equal, "produced": produced, "seen": seen})
        return equal

    def block(self, text: str) -> None:
        self._line({"rows": text.splitlines()})

    def _line(self, value: object) -> None:
        print(json_text(value), file=self._out, flush=True)


def _short(value: object) -> str:
    if value == []:
        return "none"
    return f"{value:,}" if isinstance(value, int) else str(value)[:200]
