"""The stack's NATS server as a container, which the spawner can join to the networks of sandboxes.

The same data, the same configuration, the same port on loopback as the process has: who changes between them loses
nothing. The pid file names its process on this machine, so that either ends what the other has left running.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from sandreel_core.embedded import pidfile
from sandreel_core.embedded.account import account
from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.contained import STOP_S, Contained
from sandreel_core.embedded.nats import NatsServer, greets
from sandreel_core.embedded.place import Keys, Place, is_free
from sandreel_core.embedded.servers import NatsPart, PortTaken
from sandreel_core.embedded.wiring import Wiring
from sandreel_core.errors import Conflict, NotFound, Refused, SandreelError, Unavailable
from sandreel_core.images import image
from sandreel_core.spawner import docker_services as services
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_network import make, pool_of
from sandreel_core.spawner.docker_services import BUS_PORT

_START_S = 60.0  # as long as the process has: it reads the same streams
_POLL_S = 0.02


class NatsContainer(NatsServer):
    """`Server` of the stack (see `part`). Raises Misconfigured where the data cannot be prepared."""

    def __init__(
        self, data: Path, *, engine: Engine, installation: str, image: str, pool: str, port: int, authority: Authority
    ) -> None:
        super().__init__(data, port=port, authority=authority, listen=("0.0.0.0", BUS_PORT))  # noqa: S104 - the container's own
        self._engine = engine
        self._installation = installation
        self._image = image
        self._pool = pool_of(pool)
        self._box = Contained(engine, services.service_name(installation, "nats"))

    @property
    def pid(self) -> int | None:
        return self._box.pid

    async def start(self) -> None:
        """Until it takes connections on loopback. Raises PortTaken, Unavailable, Misconfigured."""
        user = account()
        await pidfile.end(self._pid_file, grace_s=STOP_S)  # of a stack before us, as a process or as a container
        with suppress(NotFound):  # its port is free only when the engine has seen the end as well
            await self._engine.ended(self._box.name, STOP_S)
        if not is_free(self.port):
            raise PortTaken(f"port {self.port} is taken by another program")
        await asyncio.to_thread(self._prepare, None, user)
        await asyncio.to_thread(self._write_config, user)
        body = services.nats_container(
            self._installation,
            self._image,
            user=(user.uid, user.gid) if user else (os.getuid(), os.getgid()),
            data=str(self.data),
            config=str(self._config),
            port=self.port,
            memory=self._memory,
        )
        try:
            await make_front(self._engine, self._installation, self._pool)
            await self._box.made(body)
            await self._box.start()
        except (Refused, NotFound, Conflict) as error:
            raise Unavailable(f"the NATS container cannot be started: {error}", retry_after_s=5) from error
        await self._await_ready()

    async def _await_ready(self) -> None:
        limit = time.monotonic() + _START_S
        try:
            while True:
                state = await self._box.state()
                if state["Status"] != "running":
                    said = self._last_words() or await self._engine.logs(self._box.name)
                    raise Unavailable(f"nats-server did not start: {said}")
                if await greets(self.port):
                    break
                if time.monotonic() > limit:
                    raise Unavailable(f"nats-server was not ready within {_START_S:g} s (see {self.log_path})")
                await asyncio.sleep(_POLL_S)
            pidfile.write(self._pid_file, int(state["Pid"]))
        except BaseException:
            await asyncio.shield(self.stop())
            raise

    async def wait(self) -> int:
        """Its exit status, as soon as it has ended. An engine that does not answer is no end."""
        return await self._box.wait()

    async def stop(self) -> None:
        """Everything acknowledged is kept. The container stays, with its networks."""
        await self._box.stop()
        self._pid_file.unlink(missing_ok=True)

    async def end(self) -> None:
        await self._box.end()

    async def remove(self) -> None:
        """Nothing of it is left but the data. The next one is joined to the networks by the spawner."""
        await self._box.remove()
        try:
            await self._engine.remove_network(services.front_name(self._installation))
        except SandreelError as error:
            self._log.warning("the front network stays", problem=str(error))


@asynccontextmanager
async def open_container(place: Place, keys: Keys, wiring: Wiring, port: int) -> AsyncGenerator[NatsContainer, None]:
    """The stack's, with an engine to talk to until the end."""
    docker = wiring.docker
    name = docker.nats_image or wiring.environ.get("NATS_IMAGE") or await asyncio.to_thread(image, "nats")
    async with Engine.open(docker.host) as engine:
        container = NatsContainer(
            place.nats,
            engine=engine,
            installation=keys.installation,
            image=str(name),
            pool=docker.pool,
            port=port,
            authority=Authority(place.identity),
        )
        try:
            yield container
        finally:
            await container.remove()


class NatsContainerPart(NatsPart):
    """`Server` over NatsContainer, which looks itself whether its port is free: the engine gives it back a little later."""

    async def start(self) -> None:
        await self.server.start()


async def make_front(engine: Engine, installation: str, pool: Any) -> None:
    """The network by which services are published. Raises Refused (NO_ADDRESSES)."""
    name = services.front_name(installation)
    try:
        await engine.network(name)
    except NotFound:
        await make(engine, name, services.front_network(installation), pool)
