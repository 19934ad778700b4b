"""What whoever keeps views of the log says of how far they are: one answer a stream."""

from __future__ import annotations

from msgspec import Struct

# Entry points of this group are coroutine functions (dsn: str) -> list[Lag]. They raise a SandreelError when it cannot be known.
GROUP = "sandreel.lags"


class Lag(Struct, frozen=True, kw_only=True):
    """`events` and `seconds` behind the stream as it was when the projector looked, `looked_s_ago` (None: it has not yet, since
    the views were made); `quarantined` events that no view could digest."""

    stream: str
    events: int
    seconds: float
    looked_s_ago: float | None
    quarantined: int
