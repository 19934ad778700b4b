"""What requests may take of the gateway at one time: so many in all and of one key, and so much memory for their bodies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sandreel_core.errors import Refused, Unavailable


class Room:
    """`tell` hears how many there are whenever that changes."""

    def __init__(
        self, *, calls: int, calls_of_key: int, bodies_bytes: int, tell: Callable[[int], None] = lambda calls: None
    ) -> None:
        self._calls, self._calls_of_key, self._bodies_bytes = calls, calls_of_key, bodies_bytes
        self._tell = tell
        self._open: Counter[str] = Counter()
        self._held_bytes = 0

    @contextmanager
    def taken(self, key: str, body_bytes: int) -> Iterator[Callable[[int], None]]:
        """By one request, before its body of at most so many bytes is read; what it gives is told how many came. Raises
        Refused (TOO_MANY_CALLS: the key has too many), Unavailable: all keys together have."""
        if self._open[key] >= self._calls_of_key:
            raise Refused("TOO_MANY_CALLS", f"the key has {self._calls_of_key} calls under way, which is its limit")
        if self._open.total() >= self._calls:
            raise Unavailable(f"{self._calls} calls are under way, which is the gateway's limit", retry_after_s=1)
        # One that is larger than all that there is passes when it is alone: its own limit has let it.
        if self._held_bytes and self._held_bytes + body_bytes > self._bodies_bytes:
            raise Unavailable("the gateway holds as many requests in memory as it may", retry_after_s=1)
        self._open[key] += 1
        self._held_bytes += body_bytes
        self._tell(self._open.total())
        held = body_bytes

        def came(bytes: int) -> None:
            nonlocal held
            self._held_bytes -= held - bytes
            held = bytes

        try:
            yield came
        finally:
            self._held_bytes -= held
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]
            self._tell(self._open.total())
