"""How fast one exec's output may be read. Pure: times come in as arguments."""

from __future__ import annotations


class Rate:
    """A bucket of `bytes_per_s` that holds a tenth of a second's worth and may be overdrawn once by one read."""

    def __init__(self, bytes_per_s: int, now: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._burst = bytes_per_s / 10
        self._level = self._burst
        self._at = now

    @property
    def read_bytes(self) -> int:
        """How much to read at a time, so that the output comes in an even flow."""
        return max(512, int(self._burst))

    def take(self, size: int, now: float) -> float:
        """Count `size` bytes that were read; how many seconds to wait before the next read."""
        self._level = min(self._burst, self._level + (now - self._at) * self.bytes_per_s) - size
        self._at = now
        return max(0.0, -self._level / self.bytes_per_s)
