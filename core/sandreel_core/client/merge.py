"""Several readers as one: items as they come, in order for each of them, and no more than a few are held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
# Items of all readers that wait to be taken; a reader that meets it waits. They are batches, each of one read of at
# most 16 MiB (`bus/jetstream_pull.py`).
_BOUND = 2


class Merge(Generic[T]):
    """`async with`, then `next` again and again. Whatever a reader raises is raised by `next`."""

    def __init__(self, sources: Sequence[AsyncGenerator[T, None]]) -> None:
        self._sources = sources
        self._queue: asyncio.Queue[tuple[int, T] | BaseException | None] = asyncio.Queue(_BOUND)
        self._tasks: list[asyncio.Task[None]] = []
        self._left = len(sources)

    async def __aenter__(self) -> Merge[T]:
        self._tasks = [asyncio.ensure_future(self._pump(*numbered)) for numbered in enumerate(self._sources)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def next(self, timeout_s: float | None = None) -> tuple[int, T] | None:
        """(which reader, its next item); None when none came in time. Raises StopAsyncIteration when all have ended."""
        while self._left:
            if self._queue.empty():
                try:
                    async with asyncio.timeout(timeout_s):
                        item = await self._queue.get()
                except TimeoutError:
                    return None
            else:
                item = self._queue.get_nowait()
            if isinstance(item, BaseException):
                raise item
            if item is not None:
                return item
            self._left -= 1
        raise StopAsyncIteration

    async def _pump(self, number: int, source: AsyncGenerator[T, None]) -> None:
        try:
            async with aclosing(source) as items:
                async for item in items:
                    await self._queue.put((number, item))
        except Exception as error:  # noqa: BLE001 - it is raised where the items are taken
            await self._queue.put(error)
        else:
            await self._queue.put(None)
