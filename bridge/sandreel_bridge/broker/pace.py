"""How often a session may ask, and how often the log says that it was refused: an agent that asks in a loop costs neither
the vault nor the log more than this. Pure; the clock is given."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from msgspec import Struct

# A checkout with many submodules asks once for each; nothing that works asks more often than this for long.
LEASES_BURST, LEASES_PER_S = 120.0, 2.0
# Of one credential and one code.
SAID_EVERY_S = 60.0
# Of one session, whatever it asks for.
REFUSALS_BURST, REFUSALS_PER_S = 20.0, 0.2
_REMEMBERED = 10_000


class _Bucket(Struct):
    left: float
    at: float


class Bucket:
    """A token bucket for each key; of more keys than are remembered the longest unused begins anew."""

    def __init__(self, burst: float, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._known: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, key: Hashable, now_s: float) -> bool:
        """Whether there was one."""
        bucket = self._known.setdefault(key, _Bucket(self._burst, now_s))
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        bucket.left = min(self._burst, bucket.left + (now_s - bucket.at) * self._per_s)
        bucket.at = now_s
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True


class _Saying(Struct):
    at: float
    unsaid: int = 0


class Sayings:
    """Which refusals get an event of their own."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, _Saying] = OrderedDict()
        self._room = Bucket(REFUSALS_BURST, REFUSALS_PER_S)

    def due(self, session: Hashable, what: Hashable, now_s: float) -> int | None:
        """How many went unsaid before this one, which is to be said; None when it is not."""
        key = (session, what)
        saying = self._known.get(key)
        if saying is not None and now_s - saying.at < SAID_EVERY_S:
            saying.unsaid += 1
            return None
        if not self._room.take(session, now_s):
            return None
        self._known[key] = _Saying(now_s)
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return 0 if saying is None else saying.unsaid
