"""runnerd's sign of life: stored nowhere, so that being late makes a session degraded and never dead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from sandreel_core.bus.port import Bus
from sandreel_core.contract.runnerd import Heartbeat
from sandreel_core.errors import Unavailable

Tell = Callable[[], Heartbeat]


async def beat(bus: Bus, subject: str, tell: Tell, *, every_s: float, on_beat: Callable[[], None]) -> None:
    """For ever. `on_beat` runs with every beat, connected or not: what looks at the connection looks then."""
    encoder = msgspec.json.Encoder()
    while True:
        on_beat()
        with contextlib.suppress(Unavailable):  # the next one tells more than this one would
            await bus.publish(subject, encoder.encode(tell()))
        await asyncio.sleep(every_s)
