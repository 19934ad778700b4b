"""Output that is held back while the stream is nearly full: children wait."""

from __future__ import annotations

import asyncio

from sandreel_runnerd.execs import Execs
from sandreel_runnerd.outbox import Outbox

LAPSES_S = 60.0  # contract/runnerd.py, Hold


class Hold:
    """Of one boot. What was held is let go after a minute in which nobody said it again: a spawner that died with the stream full must
    not hold the children for ever."""

    def __init__(self, outbox: Outbox, execs: Execs) -> None:
        self._outbox = outbox
        self._execs = execs
        self._closed = False
        self._lapse: asyncio.TimerHandle | None = None

    def set(self, hold: bool) -> None:
        """Children wait at once, and what they have said already goes into the spool."""
        if self._lapse is not None:
            self._lapse.cancel()
            self._lapse = None
        hold = hold and not self._closed
        self._outbox.hold(hold)
        self._execs.hold(hold)
        if hold:
            self._lapse = asyncio.get_running_loop().call_later(LAPSES_S, self.set, False)

    def close(self) -> None:
        """Let go, for good: what ends now ends with what it has printed, and an end that waits for room in the log would be none."""
        self._closed = True
        self.set(False)
