"""The stack's egress proxy as a container: in every org's network, as the bus is, and in the one that leads outside.

It is no session's and no host's process: sandboxes talk to it, so it has no capability, a read-only root, a user without
the log (`permissions.EGRESS`), and of the machine's files its own settings alone.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sandreel_core.embedded.account import Account, account
from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.contained import Contained
from sandreel_core.embedded.place import Keys, Place, toml, write_secret
from sandreel_core.embedded.wiring import LOOPBACK, Wiring
from sandreel_core.errors import Conflict, Misconfigured, NotFound, Refused, Unavailable
from sandreel_core.health_reading import read
from sandreel_core.images import image
from sandreel_core.permissions import EGRESS
from sandreel_core.spawner import docker_services as services
from sandreel_core.spawner.docker import Engine

_START_S = 60.0
_POLL_S = 0.05
_CREDS, _SETTINGS = "bus.creds", "sandreel.toml"


class EgressContainer:
    """`Server` of the stack (see `part`). `prepare` makes it, so that the spawner can join it to networks before it runs."""

    def __init__(
        self, place: Place, keys: Keys, wiring: Wiring, *, engine: Engine, image: str, health_port: int
    ) -> None:
        self._directory = place.data / "egress"
        self._place = place
        self._wiring = wiring
        self._keys = keys
        self._image = image
        self._health = f"{LOOPBACK}:{health_port}"
        self._health_port = health_port
        self._box = Contained(engine, services.service_name(keys.installation, EGRESS.name))

    @property
    def pid(self) -> int | None:
        return self._box.pid

    async def prepare(self) -> None:
        """Raises Misconfigured, Unavailable."""
        user = account()
        await asyncio.to_thread(self._write, user)
        body = services.egress_container(
            self._keys.installation,
            self._image,
            user=(user.uid, user.gid) if user else (os.getuid(), os.getgid()),
            settings=str(self._directory),
            health_port=self._health_port,
        )
        try:
            await self._box.made(body)
        except (Refused, NotFound, Conflict) as error:
            raise Unavailable(f"the egress container cannot be made: {error}", retry_after_s=5) from error

    def _write(self, user: Account | None) -> None:
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            bus, _ = self._wiring.connection(self._place, self._keys)
            name = services.service_name(self._keys.installation, "nats")
            bus |= {
                "nats_urls": [f"nats://{name}:{services.BUS_PORT}"],
                "creds_file": f"{services.EGRESS_SETTINGS}/{_CREDS}",
            }
            egress = self._wiring.egress | {"listen": f"0.0.0.0:{services.EGRESS_PORT}"}
            creds = Authority(self._place.identity).creds_file(EGRESS.name).read_text()
            for file, text in ((_CREDS, creds), (_SETTINGS, toml({"bus": bus, "egress": egress}))):
                write_secret(self._directory / file, text)
                if user is not None:
                    user.own(self._directory / file)
            if user is not None:
                user.own(self._directory)
        except OSError as error:
            raise Misconfigured(
                f"{self._directory} cannot be written: {(error.strerror or 'error').lower()}"
            ) from error

    async def start(self) -> None:
        """Until it serves. Raises Unavailable, Misconfigured."""
        await self.prepare()
        try:
            await self._box.stop()  # what a stack that was killed has left
            await self._box.start()
            await self._await_ready()
        except (Refused, NotFound, Conflict) as error:
            raise Unavailable(f"the egress container cannot be started: {error}", retry_after_s=5) from error

    async def _await_ready(self) -> None:
        limit, why = time.monotonic() + _START_S, "it does not answer"
        while time.monotonic() < limit:
            if (await self._box.state())["Status"] != "running":
                said = (await self._box.engine.logs(self._box.name, lines=1)).strip()
                raise Unavailable(f"the egress proxy did not start: {said[:400]}")
            try:
                report = (await read(self._health)).report
                if report.status != "failing":
                    return
                why = "; ".join(reason.text for reason in report.reasons)
            except Unavailable:
                pass  # it is not there yet
            await asyncio.sleep(_POLL_S)
        await self._box.stop()
        raise Unavailable(f"the egress proxy was not ready within {_START_S:g} s: {why}")

    async def wait(self) -> int:
        return await self._box.wait()

    async def stop(self) -> None:
        """Every tunnel ends. The container stays, with its networks."""
        await self._box.stop()

    async def kill(self) -> None:
        await self._box.end()

    async def remove(self) -> None:
        await self._box.remove()


def image_of(wiring: Wiring) -> str:
    """Reads the source tree: call it in a thread."""
    return wiring.docker.egress_image or str(image("roles"))


@asynccontextmanager
async def open_egress(
    place: Place, keys: Keys, wiring: Wiring, *, health_port: int
) -> AsyncGenerator[EgressContainer, None]:
    """The stack's, made and not started. Raises NotFound, in one line, when its image is not there."""
    name = await asyncio.to_thread(image_of, wiring)
    async with Engine.open(wiring.docker.host) as engine:
        try:
            await engine.image(name)
        except NotFound as error:
            raise NotFound(f"image {name} is not built (make image): sessions do not reach the world") from error
        container = EgressContainer(place, keys, wiring, engine=engine, image=name, health_port=health_port)
        try:
            await container.prepare()
            yield container
        finally:
            await container.remove()
