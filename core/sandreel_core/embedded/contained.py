"""One container of the stack, by its name: made as it should be, watched, and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sandreel_core.errors import Conflict, NotFound, SandreelError, Unavailable
from sandreel_core.log import Log
from sandreel_core.spawner import docker_services as services
from sandreel_core.spawner.docker import Engine

STOP_S = 10.0
_WAIT_S = 1.0


class Contained:
    """Methods raise Unavailable when the engine does not answer."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.pid: int | None = None
        """Of its main process, on the engine's host."""
        self._id: str | None = None
        self._log = Log("stack")

    async def made(self, body: Mapping[str, Any]) -> None:
        """It is there, and need not run. One that is so already stays, with the networks that it has joined."""
        try:
            found = await self.engine.container(self.name)
        except NotFound:
            self._id = await self.engine.create(self.name, body)
            return
        if found["Config"]["Labels"].get(services.CONFIG) != body["Labels"][services.CONFIG]:
            await self.engine.remove(str(found["Id"]), force=True)
            self._id = await self.engine.create(self.name, body)
            return
        self._id = str(found["Id"])

    async def start(self) -> None:
        """As it was made. Raises Refused, NotFound."""
        if self._id is not None:
            await self.engine.start(self._id)

    async def state(self) -> dict[str, Any]:
        """What the engine says of it now. Raises NotFound."""
        found = dict((await self.engine.container(self.name))["State"])
        self.pid = int(found["Pid"]) or None
        return found

    async def wait(self) -> int:
        """Its exit status, as soon as it has ended. An engine that does not answer is no end."""
        while self._id is not None:
            try:
                if await self.engine.ended(self._id, _WAIT_S):
                    code = int((await self.engine.container(self._id))["State"]["ExitCode"])
                    self.pid = None
                    return -(code - 128) if code > 128 else code
            except NotFound:
                self.pid = None
                return -9
            except Unavailable as error:
                await asyncio.sleep(error.retry_after_s)
        return 0

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL. The container stays, with its networks."""
        if self._id is not None:
            with suppress(NotFound, Conflict):
                await self.engine.kill(self._id, "SIGTERM")
                if not await self.engine.ended(self._id, STOP_S):
                    await self.end()
        self.pid = None

    async def end(self) -> None:
        """SIGKILL; returns when it has ended."""
        if self._id is not None:
            with suppress(NotFound, Conflict):
                await self.engine.kill(self._id, "SIGKILL")
                await self.engine.ended(self._id, STOP_S)

    async def remove(self) -> None:
        try:
            await self.engine.remove(self.name, force=True)
        except SandreelError as error:
            self._log.warning("a container stays", container=self.name, problem=str(error))
