"""Several works at once, each to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def each_to_its_end(*works: Coroutine[Any, Any, object]) -> None:
    """All at once. Whoever cleans up behind a failure meets nothing that is still being done. Raises the first failure."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
