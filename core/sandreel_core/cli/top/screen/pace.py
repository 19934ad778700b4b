"""How often the screen is drawn."""

from __future__ import annotations

import time


class Pace:
    """When to draw. A frame may take an eighth of the time: what draws slower is drawn less often."""

    EVERY_S = 0.25
    _SHARE = 8

    def __init__(self) -> None:
        self._due_s = 0.0
        self._begun_s = 0.0

    def begin(self) -> bool:
        """Whether it is time for a frame."""
        self._begun_s = time.monotonic()
        return self._begun_s >= self._due_s

    def end(self) -> None:
        now_s = time.monotonic()
        self._due_s = self._begun_s + max(self.EVERY_S * 0.8, (now_s - self._begun_s) * self._SHARE)
