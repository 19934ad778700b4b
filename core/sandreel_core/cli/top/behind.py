"""How far a reader of the log is behind it, by its own clock alone. Pure: times are handed in."""

from __future__ import annotations

from collections import deque

# Sightings that wait to be reached; of more the newer ones are left out. At one a second: four minutes.
_MAX_SIGHTINGS = 256


class Behind:
    """A sighting is the log's last sequence at some moment. The reader is as far behind as the oldest sighting that it has
    not reached is old; no clock of another machine is asked."""

    def __init__(self) -> None:
        self._sightings: deque[tuple[int, float]] = deque()
        self._reached = 0

    def saw(self, sequence: int, at_s: float) -> None:
        """The log ends at this sequence."""
        if sequence > self._reached and len(self._sightings) < _MAX_SIGHTINGS:
            self._sightings.append((sequence, at_s))

    def reached(self, sequence: int) -> None:
        """Everything up to this sequence has been taken."""
        self._reached = max(self._reached, sequence)
        while self._sightings and self._sightings[0][0] <= self._reached:
            self._sightings.popleft()

    def seconds(self, now_s: float) -> float:
        return max(0.0, now_s - self._sightings[0][1]) if self._sightings else 0.0

    def events(self) -> int:
        """At most so many are still to be taken: the log also counts what has been purged."""
        return max(0, self._sightings[-1][0] - self._reached) if self._sightings else 0
