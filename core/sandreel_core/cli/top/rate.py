"""How fast something goes, smoothed. Pure: times are handed in."""

from __future__ import annotations

import math

# A burst is forgotten to 1/e in so long: calm to look at, and a job that stops reads 0 after about 15 s.
SMOOTHING_S = 2.5
_STILL = 0.05
_YOUNG_S = 1.0


class Rate:
    """An exponentially weighted mean of what was counted, per second.

    Exact in the long run whatever the spacing of the counts: each adds `count / SMOOTHING_S`, which decays. What has been
    counted for a short time only is corrected for that.
    """

    __slots__ = ("_at_ns", "_since_ns", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._at_ns = 0
        self._since_ns = 0

    def count(self, count: int, at_ns: int) -> None:
        """At a time that may be a little before one given earlier."""
        self._since_ns = self._since_ns or at_ns
        self._value = self._decayed(at_ns) + count / SMOOTHING_S
        self._at_ns = max(self._at_ns, at_ns)

    def per_s(self, now_ns: int) -> float:
        counted_s = max(_YOUNG_S, (now_ns - self._since_ns) / 1e9)
        value = self._decayed(now_ns) / -math.expm1(-counted_s / SMOOTHING_S)
        return value if value >= _STILL else 0.0

    def _decayed(self, at_ns: int) -> float:
        since_s = (at_ns - self._at_ns) / 1e9
        return self._value * math.exp(-since_s / SMOOTHING_S) if since_s > 0 else self._value
