"""Who has typed how much at one terminal. Pure.

Each writer's offsets count its own bytes. With one offset for all, a second writer would name the place where the
first one's next key belongs: one of the two keys would be taken for a repeat of the other, and vanish.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

# Writers that are remembered; the one that has been silent longest is forgotten first. One a person and attach.
MAX_WRITERS = 64
RECENT_S = 60.0  # contract/runnerd.py, KeysTaken


class _Writer(NamedTuple):
    taken: int
    last_at: float


class Keyboards:
    """`writer` None is whoever does not name itself, and counts the bytes of all."""

    def __init__(self) -> None:
        self._total = 0
        self._writers: OrderedDict[str | None, _Writer] = OrderedDict()

    def taken(self, writer: str | None) -> int:
        """How many bytes of this writer's have been taken."""
        if writer is None:
            return self._total
        return self._writers[writer].taken if writer in self._writers else 0

    def add(self, writer: str | None, count: int, now: float) -> None:
        """So many more were taken. `now` in seconds, of any clock that only grows."""
        self._total += count
        known = self._writers.get(writer)
        self._writers[writer] = _Writer((known.taken if known else 0) + count, now)
        self._writers.move_to_end(writer)
        if len(self._writers) > MAX_WRITERS:
            self._writers.popitem(last=False)

    def others(self, writer: str | None, now: float) -> int:
        """How many besides this one have typed within the last minute."""
        return sum(1 for name, other in self._writers.items() if name != writer and now - other.last_at < RECENT_S)
