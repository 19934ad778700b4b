"""What a terminal shows now, gathered from what its program has printed so far. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from sandreel_core.cli.modes import Modes
from sandreel_core.client.items import Changed, ExecItem, Output
from sandreel_core.contract import exec as x

# How much of the newest output is drawn: what is on the screen was printed lately, and pyte takes about a second for
# so much. What was switched on before is followed from the first byte, by `Modes`.
MAX_BYTES = 256 * 1024
_SAFE = re.compile(rb"[\n\x1b]")

Size = tuple[int, int]


class Picture:
    """Fed with an exec's items from the first on.

    size       (columns, rows) of the terminal by the last that was heard; None for an exec without one
    shortened  there was (or, once painted, it asked for) more than is drawn, so a program that draws only what changes may be shown in part
    """

    def __init__(self) -> None:
        self.size: Size | None = None
        self.modes = Modes()
        self.shortened = False
        self._first: Size = (80, 24)
        self._reel: deque[bytes | Size] = deque()
        self._bytes = 0

    def take(self, item: ExecItem) -> None:
        if isinstance(item, Output):
            self.modes.feed(item.data)
            self._reel.append(item.data)
            self._bytes += len(item.data)
            self._forget()
        elif isinstance(item, Changed) and isinstance(item.event.data, x.Started):
            terminal = item.event.data.tty
            if terminal is not None:
                self.size = self._first = (terminal.cols, terminal.rows)
        elif isinstance(item, Changed) and isinstance(item.event.data, x.Resized):
            self.size = (item.event.data.cols, item.event.data.rows)
            self._reel.append(self.size)

    def _forget(self) -> None:
        while self._bytes > MAX_BYTES:
            oldest = self._reel.popleft()
            if isinstance(oldest, tuple):
                self._first = oldest
                continue
            self.shortened = True
            self._bytes -= len(oldest)
            if self._bytes < MAX_BYTES:
                # What is left of it, from where no sequence and no character is cut.
                safe = _SAFE.search(oldest, len(oldest) - (MAX_BYTES - self._bytes))
                if safe is not None:
                    self._reel.appendleft(oldest[safe.start() :])
                    self._bytes += len(oldest) - safe.start()
                return

    def painted(self, cols: int, rows: int, *, enough: Callable[[], bool] = lambda: False) -> bytes:
        """What draws it on a terminal of this size. May take a second, and may be made to take much longer: what
        follows when `enough()` has become true is left out. Raises ImportError without pyte."""
        from sandreel_core.cli.emulator import Emulator
        from sandreel_core.cli.painting import paint

        emulator = Emulator(*self._first, enough=enough)
        pending: list[bytes] = []
        for part in (*self._reel, None):
            if isinstance(part, bytes):
                pending.append(part)
                continue
            emulator.feed(b"".join(pending))
            pending.clear()
            if part is not None:
                emulator.resize(*part)
        self.shortened |= emulator.shortened
        return paint(emulator, self.modes, cols, rows)
