"""What a long command says while it works: to a person in a terminal, to a log file, or to a program."""

# Printing is what it is for.
# ruff: noqa: T201

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any, Protocol, TextIO

from sandreel_core.json_line import harmless
from sandreel_projections.progress import Progress, duration, line
from sandreel_projections.table import cell

# How often a line comes where the last one cannot be written over.
_LINE_S = 5.0


class Report(Protocol):
    """`event` and `fields` are for programs, `text` is one line for people."""

    def say(self, event: str, text: str, **fields: Any) -> None: ...
    def progress(self, what: str, progress: Progress) -> None: ...


class Terminal:
    """A line that is written over while it moves; plain lines now and then where it is no terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._moving = out.isatty()
        self._shown = False
        self._next_s = 0.0

    def say(self, event: str, text: str, **fields: Any) -> None:
        self._clear()
        print(cell(text), file=self._out, flush=True)

    def progress(self, what: str, progress: Progress) -> None:
        width = max(40, shutil.get_terminal_size().columns - 1) if self._moving else 200
        if self._moving:
            print(f"\r\x1b[2K{line(progress, what, width)}", end="", file=self._out, flush=True)
            self._shown = True
        elif time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _LINE_S
            print(line(progress, what, width), file=self._out, flush=True)

    def _clear(self) -> None:
        if self._shown:
            print("\r\x1b[2K", end="", file=self._out)
            self._shown = False


class JsonLines:
    """One JSON object a line on standard output."""

    def say(self, event: str, text: str, **fields: Any) -> None:
        self._print({"event": event, **fields, "text": text})

    def progress(self, what: str, progress: Progress) -> None:
        known = {} if progress.remaining_s is None else {"remaining": duration(progress.remaining_s)}
        self._print(
            {
                "event": "progress",
                "doing": what,
                "events": progress.done,
                "bytes": progress.done_bytes,
                "remaining_events_estimate": progress.remaining,
                "events_per_s": None if progress.events_per_s is None else round(progress.events_per_s),
                "remaining_s": None if progress.remaining_s is None else round(progress.remaining_s, 1),
                **known,
                **({"why": progress.why} if progress.why else {}),
            }
        )

    def _print(self, fields: dict[str, Any]) -> None:
        print(harmless(json.dumps(fields, default=str, ensure_ascii=False)), flush=True, file=sys.stdout)
