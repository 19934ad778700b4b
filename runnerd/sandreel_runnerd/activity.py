"""When the session was last of use to somebody (behaviour §1, lastActivity). Monotonic (law 10)."""

from __future__ import annotations

import time
from collections.abc import Callable


class Activity:
    """Touched by an exec's start and end, a cancel, input, a patch of the environment, a file that is written or
    deleted. Not by output, listing or reading."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def touch(self) -> None:
        self._last = self._clock()

    @property
    def idle_s(self) -> float:
        return max(0.0, self._clock() - self._last)
