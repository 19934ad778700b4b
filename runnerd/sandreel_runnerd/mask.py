"""Values that this session was given do not leave it in output: they are replaced before anything is recorded.

Pure: times are seconds of a monotonic clock and come in as arguments. What a program prints is replaced wherever a value, or one
of its `forms`, stands in it, however it was cut into writes. That guards against accidents (a trace, `env`, an error text
with an address in it), not against a program that means to tell: it could print a value backwards.
"""

from __future__ import annotations

from sandreel_core.errors import Refused
from sandreel_runnerd.finder import Finder
from sandreel_runnerd.forms import forms

MARKER = b"[masked]"
# A shorter value stands in ordinary output by accident (a number, a word, git's short hashes have 7 digits), and what is
# masked tells who guesses that he guessed right: all 7-digit numbers are printed in a second.
MIN_VALUE_BYTES = 8
# What is looked for takes about 10 KiB of memory a value, and 100 bytes for each of its bytes. At the bound nothing more is
# given out until the session is stopped and resumed: what cannot be masked is not leased.
MAX_VALUES = 1024
MAX_VALUES_BYTES = 256 * 1024
# How long a suffix may be held that may be the beginning of a value (issue 7, part 4), and of how many bytes it may be sent
# all the same then.
HOLD_S = 1.0
SENT_ANYWAY_BYTES = 3


class Mask:
    """The values of one session, from when they were given until it stops. One for a runnerd.

    `active`: whether there are any. Asked for every read of every exec, so it is an attribute and no property.
    """

    def __init__(self) -> None:
        self.finder = Finder()
        self.active = False
        # Whether each is passing, the oldest first.
        self._values: dict[bytes, bool] = {}
        self._bytes = 0

    def add(self, value: bytes, *, passing: bool = False) -> bool:
        """To be called before anybody in the session has the value. False: it is too short to be masked (and is shown as
        it is).

        passing  it will be worth nothing soon, by itself (a turn's key, a minted token): at the bound the oldest such are let go,
                 so that a session may have any number of turns
        Raises Refused(SECRET_UNAVAILABLE) when no more are masked: then it must not be given out.
        """
        value = value.strip()
        if len(value) < MIN_VALUE_BYTES:
            return False
        if value in self._values:
            self._values[value] = self._values[value] and passing
            return True
        if self._is_full(value):
            self._let_go()
        if self._is_full(value):
            raise Refused(
                "SECRET_UNAVAILABLE",
                f"output is masked for at most {MAX_VALUES} values of {MAX_VALUES_BYTES // 1024} KiB in all, and this session "
                "was given so many: stop and resume it",
            )
        self._look_for(value)
        self._values[value] = passing
        self._bytes += len(value)
        self.active = True
        return True

    def _is_full(self, value: bytes) -> bool:
        return len(self._values) >= MAX_VALUES or self._bytes + len(value) > MAX_VALUES_BYTES

    def _let_go(self) -> None:
        """The older half of those that are passing: to forget is to begin anew, so not for one at a time."""
        passing = [value for value, passes in self._values.items() if passes]
        for value in passing[: (len(passing) + 1) // 2]:
            del self._values[value]
            self._bytes -= len(value)
        self.finder.clear()
        for value in self._values:
            self._look_for(value)

    def _look_for(self, value: bytes) -> None:
        for form in forms(value):
            self.finder.add(form)


class StreamMask:
    """One stream of output on its way through the mask.

    `held_until` is when `expire` is due; `masked` whether anything was replaced.
    """

    __slots__ = ("_covering", "_finder", "_sent", "_tail", "held_until", "masked")

    def __init__(self, mask: Mask) -> None:
        self._finder = mask.finder
        # The longest suffix of all that came which is the beginning of a value; of it so many bytes are sent (or replaced)
        # already: the rest of the value is known for what it is when it comes after all.
        self._tail = b""
        self._sent = 0
        # Whether what was sent last was the marker: what is covered without a break gets one.
        self._covering = False
        self.held_until: float | None = None
        self.masked = False

    def feed(self, data: bytes, now: float) -> bytes:
        """What may be sent of what was read just now and held before."""
        came_before = len(self._tail)
        whole = self._tail + data if came_before else data
        found, tail_at = self._finder.find(whole)
        # What one covers goes at once, though it may be the beginning of another.
        until = tail_at
        for start, end in found:
            if start <= until:
                until = max(until, end)
        clear = self._replace(whole, self._sent, until, found)
        sent = max(self._sent, until)
        if sent == len(whole):
            self.held_until = None
        elif sent >= came_before or self.held_until is None:
            self.held_until = now + HOLD_S
        self._tail, self._sent = whole[tail_at:], sent - tail_at
        return clear

    def expire(self) -> bytes:
        """What is held, because it was held long enough or nothing follows: as it is, or replaced."""
        held = self._tail[self._sent :]
        if not held:
            return b""
        self.held_until = None
        self._sent = len(self._tail)
        if len(self._tail) > SENT_ANYWAY_BYTES:
            return self._cover()
        self._covering = False
        return held

    def _replace(self, whole: bytes, at: int, until: int, found: list[tuple[int, int]]) -> bytes:
        pieces: list[bytes] = []
        for start, end in found:
            if end <= at:
                continue
            if start >= until:
                break
            if start > at:
                pieces.append(whole[at:start])
                self._covering = False
            pieces.append(self._cover())
            at = end
        if at < until:
            pieces.append(whole[at:until])
            self._covering = False
        return b"".join(pieces)

    def _cover(self) -> bytes:
        if self._covering:
            return b""
        self._covering = self.masked = True
        return MARKER
