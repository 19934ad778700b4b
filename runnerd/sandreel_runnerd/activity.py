"""When the session was last of use to somebody (behaviour §1, lastActivity). Monotonic (law 10)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Activity:
    """Touched by an exec's start and end, a cancel, input, a patch of the environment, a file that is written or
    deleted. Not by output, listing or reading."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._under_way = 0

    def touch(self) -> None:
        self._last = self._clock()

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """Of use for as long as the block is open: a download may take longer than a session may be idle."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self.touch()

    @property
    def idle_s(self) -> float:
        """0 while something lasts."""
        return 0.0 if self._under_way else max(0.0, self._clock() - self._last)
