"""Stands before a UNIX socket: cuts every connection and answers nobody, until it is let go again. As an engine that is
being restarted looks to its clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class UnixProxy:
    def __init__(self, path: Path, target: str) -> None:
        self.path = path
        self._target = target
        self._away = False
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def cut(self) -> None:
        self._away = True
        for writer in list(self._writers):
            writer.transport.abort()

    def back(self) -> None:
        self._away = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._away:
            writer.transport.abort()
            return
        there, out = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, out}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(reader, out))
                both.create_task(_copy(there, writer))
        finally:
            self._writers -= {writer, out}
            for each in (writer, out):
                each.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while body := await reader.read(1 << 16):
            writer.write(body)
            await writer.drain()
        with suppress(RuntimeError):
            writer.write_eof()


@asynccontextmanager
async def proxied(path: Path, target: str = "/var/run/docker.sock") -> AsyncIterator[UnixProxy]:
    proxy = UnixProxy(path, target)
    server = await asyncio.start_unix_server(proxy.serve, path)
    try:
        yield proxy
    finally:
        proxy.cut()
        server.close()
