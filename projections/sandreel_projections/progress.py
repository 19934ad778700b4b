"""How far a long piece of work is, and how long the rest takes, as far as that is known. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

# The rate is that of so many seconds; before the shorter time has passed nothing is foretold.
WINDOW_S = 15.0
SETTLED_S = 3.0


@dataclass(frozen=True, slots=True)
class Progress:
    """done, remaining   events; what remains is an estimate where events were purged from the stream
    done_bytes           bodies of what is done
    events_per_s         over the last seconds; None before they have passed
    remaining_s          None when it is not known; `why` then says why
    """

    done: int
    remaining: int
    done_bytes: int
    events_per_s: float | None
    remaining_s: float | None
    why: str = ""

    @property
    def share(self) -> float:
        """0 … 1."""
        return self.done / (self.done + self.remaining) if self.remaining else 1.0


class Pacer:
    """Makes a forecast of what it was told."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def tell(self, now_s: float, done: int, remaining: int, done_bytes: int) -> Progress:
        """`now_s` is a monotonic clock's.

        What is foretold comes from how fast the remainder shrinks, not from how fast events are read: while they
        pour in as fast, there is no end to be foretold.
        """
        self._seen.append((now_s, done, remaining))
        while len(self._seen) > 2 and self._seen[1][0] < now_s - WINDOW_S:
            self._seen.popleft()
        then_s, done_then, remaining_then = self._seen[0]
        passed_s = now_s - then_s
        if not remaining:
            rate = (done - done_then) / passed_s if passed_s >= SETTLED_S else None
            return Progress(done, 0, done_bytes, rate, 0.0)
        if passed_s < SETTLED_S:
            return Progress(done, remaining, done_bytes, None, None, "not known yet")
        rate, closing = (done - done_then) / passed_s, (remaining_then - remaining) / passed_s
        if not rate:
            return Progress(done, remaining, done_bytes, rate, None, "nothing moves")
        if closing <= 0:
            return Progress(done, remaining, done_bytes, rate, None, "events come as fast as they are read")
        return Progress(done, remaining, done_bytes, rate, remaining / closing)


def line(progress: Progress, what: str, width: int) -> str:
    """One line of text, at most `width` columns wide."""
    share = f"{100 * progress.share:5.1f} %"
    rate = "" if progress.events_per_s is None else f", {progress.events_per_s:,.0f} events/s"
    left = progress.why if progress.remaining_s is None else f"{duration(progress.remaining_s)} left"
    text = f" {share}  {progress.done:,} of about {progress.done + progress.remaining:,} events{rate}, {left}"
    room = min(24, width - len(what) - len(text) - 3)
    bar = ""
    if room >= 8:
        full = round(room * progress.share)
        bar = f" {'█' * full}{'░' * (room - full)}"
    return f"{what}{bar}{text}"[:width]


def duration(seconds: float) -> str:
    """1:02:03, 2:03 or 3 s: never more exact than a forecast can be."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"
