"""A role under test that serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def at_work(
    name: str, run: Callable[[Callable[[], None]], Coroutine[Any, Any, None]]
) -> AsyncGenerator[None, None]:
    """`run` gets what it calls when it is ready; killed without ceremony at the end. Raises what it raises."""
    ready = asyncio.Event()
    task = asyncio.create_task(run(ready.set))
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({task, waiting}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        assert ready.is_set(), f"the {name} did not become ready"
        yield
        if task.done():
            await task
    finally:
        waiting.cancel()
        task.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
