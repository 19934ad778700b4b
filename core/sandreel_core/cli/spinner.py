"""One line at the end of a terminal that says what goes on; nothing where stderr is no terminal."""

from __future__ import annotations

import sys

from sandreel_core.cli.interactive import draws, window_size
from sandreel_core.cli.text import cut, dimmed

EVERY_S = 0.1
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Spinner:
    """`clear` before anything else is written to the terminal."""

    def __init__(self, *, shown: bool) -> None:
        self.shown = shown and draws(sys.stderr)
        self._frame = 0
        self._drawn = False

    def draw(self, text: str) -> None:
        """In place of what stands there; cut, since a line that wraps could not be taken back."""
        if not self.shown:
            return
        self._frame = (self._frame + 1) % len(_FRAMES)
        self._drawn = True
        self._write(f"\r\x1b[K{dimmed(cut(f'{_FRAMES[self._frame]} {text}', window_size()[0] - 1))}")

    def clear(self) -> None:
        if self._drawn:
            self._drawn = False
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
