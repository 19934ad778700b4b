"""When a file descriptor can be read or written, told by the event loop."""

from __future__ import annotations

import asyncio


async def ready(fd: int, *, writing: bool) -> None:
    """Returns as soon as it is. One waiter a descriptor and direction: a second takes the first one's place."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)

    def settle() -> None:
        if not ready.done():
            ready.set_result(None)

    add(fd, settle)
    try:
        await ready
    finally:
        remove(fd)
