"""The block builder of one stream behind the session's mask: lines, counts and caps are of what is recorded."""

from __future__ import annotations

from sandreel_core.contract.exec import Output, Truncated
from sandreel_runnerd.lines import Lines
from sandreel_runnerd.mask import Mask, StreamMask


class MaskedLines:
    """As `Lines`, which is `recorded` and has the counts. While the session has been given no value, nothing is done but to ask
    whether it has."""

    __slots__ = ("_mask", "_stream_mask", "recorded")

    def __init__(self, lines: Lines, mask: Mask) -> None:
        self.recorded = lines
        self._mask = mask
        self._stream_mask = StreamMask(mask)

    @property
    def masked(self) -> bool:
        """Whether anything was replaced."""
        return self._stream_mask.masked

    @property
    def held_until(self) -> float | None:
        """When `flush` is due."""
        masked = self._stream_mask.held_until
        if masked is None:
            return self.recorded.held_until
        lines = self.recorded.held_until
        return masked if lines is None else min(masked, lines)

    def feed(self, data: bytes, now: float) -> list[Output | Truncated]:
        """What was read just now. `now` in seconds, monotonic."""
        if self._mask.active:
            data = self._stream_mask.feed(data, now)
        return self.recorded.feed(data, now)

    def flush(self, now: float) -> list[Output | Truncated]:
        """What was held long enough."""
        events: list[Output | Truncated] = []
        if self._stream_mask.held_until is not None and now >= self._stream_mask.held_until:
            events += self.recorded.feed(self._stream_mask.expire(), now)
        if self.recorded.held_until is not None and now >= self.recorded.held_until:
            events += self.recorded.flush()
        return events

    def end(self, now: float) -> list[Output | Truncated]:
        """Everything that is still held: nothing follows."""
        return self.recorded.feed(self._stream_mask.expire(), now) + self.recorded.end()
