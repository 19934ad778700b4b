"""What an engine says as it happens, read in a thread of its own and heard in the loop. The SDK's stream blocks, and ends when it is
closed from beside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

from sandreel_core.errors import SandreelError, Unavailable
from sandreel_core.spawner.docker_failure import FAILURES, ours

_WAITING = 4096  # events, to be listened to


class Stream(Protocol):
    """As the SDK gives it: each event decoded."""

    def __iter__(self) -> Iterator[dict[str, Any]]: ...

    def close(self) -> None: ...


@asynccontextmanager
async def heard(stream: Stream) -> AsyncGenerator[AsyncIterator[dict[str, Any]], None]:
    """Its events. They end with Unavailable, when the engine goes or nobody listens; the stream is closed with this."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[dict[str, Any] | SandreelError] = asyncio.Queue(_WAITING + 1)

    def take(found: dict[str, Any] | SandreelError) -> None:
        if queue.qsize() < _WAITING:
            queue.put_nowait(found)
        elif not queue.full():  # whoever listens asks again, from where it has heard
            queue.put_nowait(Unavailable("more has happened than was listened to"))

    def read() -> None:
        ended: SandreelError = Unavailable("the engine's events have ended")
        try:
            for event in stream:
                loop.call_soon_threadsafe(take, event)
        except (*FAILURES, ValueError) as error:  # ValueError: it was closed between two reads
            ended = ours(error)
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(take, ended)

    async def events() -> AsyncIterator[dict[str, Any]]:
        while True:
            found = await queue.get()
            if isinstance(found, SandreelError):
                raise found
            yield found

    reader = threading.Thread(target=read, name="docker-events", daemon=True)
    reader.start()
    try:
        yield events()
    finally:
        with suppress(*FAILURES, ValueError):
            stream.close()
        await asyncio.to_thread(reader.join)
