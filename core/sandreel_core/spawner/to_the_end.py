"""Works that are not left half done: one, or several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def to_its_end(work: Coroutine[Any, Any, object]) -> None:
    """Also when the caller is cancelled, who is told only then: what somebody else was asked for is done, and known."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def each_to_its_end(*works: Coroutine[Any, Any, object]) -> None:
    """All at once. Whoever cleans up behind a failure meets nothing that is still being done. Raises the first failure."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
