"""How far a copy is, on one line of stderr that overwrites itself; nothing where that is no terminal."""

from __future__ import annotations

import sys
import time

from sandreel_core.cli.interactive import window_size
from sandreel_core.cli.text import amount, clean

_EVERY_S = 0.1


class Progress:
    """`total` bytes are None while they are not known."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown and sys.stderr.isatty()
        self._name = ""
        self._total: int | None = None
        self._done = 0
        self._began = self._drawn = 0.0

    def begin(self, name: str, total: int | None) -> None:
        self._name, self._total, self._done = clean(name), total, 0
        self._began = time.monotonic()

    def add(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._shown and now - self._drawn >= _EVERY_S:
            self._drawn = now
            rate = amount(self._done / max(now - self._began, 1e-3))
            part = f"{100 * self._done // max(self._total, 1):3d} %  " if self._total is not None else ""
            figures = f"  {part}{amount(self._done)}  {rate}/s"
            room = window_size()[0] - len(figures) - 1
            self._draw(f"{self._name[-max(room, 0) :]}{figures}" if room > 0 else figures)

    def clear(self) -> None:
        """Make room for a line that stays."""
        if self._shown and self._drawn:
            self._draw("")
            self._drawn = 0.0

    def _draw(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
