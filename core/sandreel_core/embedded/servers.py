"""The embedded servers as parts of the stack: their port is the stack's to choose, and their death is noticed."""

from __future__ import annotations

import asyncio
import os

from sandreel_core.embedded import pidfile
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.embedded.place import is_free
from sandreel_core.embedded.postgres import PostgresServer
from sandreel_core.errors import Unavailable


class PortTaken(Unavailable):
    """Another program listens on the port that was kept for this server."""


class NatsPart:
    """`Server` over NatsServer."""

    def __init__(self, server: NatsServer) -> None:
        self.server = server

    @property
    def pid(self) -> int | None:
        return self.server.pid

    async def start(self) -> None:
        # One that greets is taken for ours, so nobody else may be there.
        left_over = pidfile.alive(self.server.data / "nats.pid")
        if left_over is None and not is_free(self.server.port):
            raise PortTaken(f"port {self.server.port} is taken by another program")
        await self.server.start()

    async def wait(self) -> int:
        return await self.server.wait()

    async def stop(self) -> None:
        await self.server.stop()

    async def kill(self) -> None:
        await self.server.end()


class PostgresPart:
    """`Server` over PostgresServer."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    @property
    def pid(self) -> int | None:
        return self.server.pid if self.server.running else None

    async def start(self) -> None:
        # A thread starts it and cannot be cancelled: left alone it would bring up a server that nobody stops.
        starting = asyncio.ensure_future(self.server.start())
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait((starting,))
            if not starting.cancelled():
                starting.exception()
            await self.server.stop()
            raise
        except Unavailable as error:
            if not is_free(self.server.port):
                raise PortTaken(f"port {self.server.port} is taken by another program") from error
            raise

    async def wait(self) -> int:
        """When the postmaster has ended."""
        if not self.server.running:
            return 0
        try:
            descriptor = os.pidfd_open(self.server.pid)
        except ProcessLookupError:
            return 0
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return 0

    async def stop(self) -> None:
        await self.server.stop()

    async def kill(self) -> None:
        await self.server.kill()
