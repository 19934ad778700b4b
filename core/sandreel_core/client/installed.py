"""How an installation was made, as it says itself."""

from __future__ import annotations

import asyncio

from sandreel_core.bus.port import Bus
from sandreel_core.contract.subjects import CMD
from sandreel_core.errors import NotFound, Unavailable

_AGAIN_S = 0.25


async def partitions_of(bus: Bus, until: float) -> int | None:
    """As the installation says; None where it was not written down, or where nothing is installed yet. Asked until a
    time of the loop's clock, because a server that has just started answers later than it connects."""
    while True:
        try:
            return (await bus.state(CMD)).partitions
        except NotFound:
            return None
        except Unavailable:
            if asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(_AGAIN_S)
