"""A TCP proxy in front of a server, with faults: cut, refuse, hold what one side says, swallow it."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from urllib.parse import urlsplit


class Proxy:
    """`async with Proxy(server.url) as proxy`, then connect to `proxy.url`.

    cut                close every connection now
    refuse             while set, new connections are closed at once
    hold_up/hold_down  while set, bytes of the client / of the server wait, and come later in order
    drop_up/drop_down  while set, they vanish; the connection is unusable after that, so `cut` it
    """

    def __init__(self, target: str) -> None:
        where = urlsplit(target)
        self._target = (where.hostname or "127.0.0.1", where.port or 4222)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._up_free = asyncio.Event()
        self._down_free = asyncio.Event()
        self._up_free.set()
        self._down_free.set()
        self.refuse = False
        self.drop_up = False
        self.drop_down = False
        self.delay_s = 0.0
        self.connections = 0
        self.url = ""

    @property
    def hold_up(self) -> bool:
        return not self._up_free.is_set()

    @hold_up.setter
    def hold_up(self, hold: bool) -> None:
        self._up_free.clear() if hold else self._up_free.set()

    @property
    def hold_down(self) -> bool:
        return not self._down_free.is_set()

    @hold_down.setter
    def hold_down(self, hold: bool) -> None:
        self._down_free.clear() if hold else self._down_free.set()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            return
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self.connections += 1
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self._pump(reader, far_writer, up=True), self._pump(far_reader, writer, up=False))
        finally:
            self._writers -= {writer, far_writer}
            far_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await (self._up_free if up else self._down_free).wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if not (self.drop_up if up else self.drop_down):
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()
