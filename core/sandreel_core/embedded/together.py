"""Several things at once, whose first error is told as it is; and one that is done whoever gives up waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

from sandreel_core.errors import SandreelError


async def together(starts: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    """All at once; the first error that somebody can do something about, alone."""
    try:
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(start) for start in starts]
    except BaseExceptionGroup as group:
        known, rest = group.split(SandreelError)
        if known is None or rest is not None:
            raise
        raise known.exceptions[0] from group
    return [task.result() for task in started]


async def to_the_end(work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.done():
                break
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError
