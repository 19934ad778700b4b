"""What a stream keeps of some subjects at this moment, one message after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from sandreel_core.bus.port import Bus, Item, Stored


@asynccontextmanager
async def kept(
    bus: Bus, stream: str, filters: Sequence[str], *, after: int = 0
) -> AsyncGenerator[AsyncIterator[Stored], None]:
    """Those behind sequence `after`, in order, up to the last one that is stored when it begins. What the stream has no more is passed
    over: who must know of that asks `Bus.follow`, as does who takes them in batches. Raises what that raises."""
    async with aclosing(_each(bus.follow(stream, filters, after=after, live=False))) as messages:
        yield messages


async def _each(items: AsyncGenerator[Item, None]) -> AsyncGenerator[Stored, None]:
    async with aclosing(items):
        async for item in items:
            for stored in item if isinstance(item, list) else ():
                yield stored
