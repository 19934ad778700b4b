"""A role of the stack as a container, because sandboxes talk to it: the egress proxy and the gateway. It is in every org's
network, as the bus is, and in the one that leads outside.

It is no session's and no host's process: it has no capability, a read-only root, a NATS user without the log
(`permissions.EGRESS`, `permissions.GATEWAY`), and of the machine's files its own settings alone.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sandreel_core.embedded.account import Account, account
from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.contained import Contained
from sandreel_core.embedded.place import Keys, Place, toml
from sandreel_core.embedded.secret_file import write_secret
from sandreel_core.embedded.wiring import LOOPBACK, Wiring
from sandreel_core.errors import Conflict, Misconfigured, NotFound, Refused, Unavailable
from sandreel_core.health_reading import read
from sandreel_core.images import image
from sandreel_core.spawner import docker_services as services
from sandreel_core.spawner.docker import Engine

_START_S = 60.0
_POLL_S = 0.05
_CREDS, _SETTINGS = "bus.creds", "sandreel.toml"


@dataclass(frozen=True, slots=True)
class ContainedRole:
    """What is run: `name` is the part's and the NATS user's, `table` its section of the settings. `files` lie beside its
    settings and may be secret; `variables` are not. `without`: what does not work without it. `keeps`: whether it has a directory
    of its own, at `docker_services.STATE`."""

    name: str
    module: str
    table: Mapping[str, Any]
    without: str
    files: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    keeps: bool = False


def egress(wiring: Wiring) -> ContainedRole:
    table = wiring.egress | {"listen": f"0.0.0.0:{services.EGRESS_PORT}"}
    return ContainedRole("egress", "sandreel_core.egress", table, "sessions do not reach the world")


def gateway(wiring: Wiring) -> ContainedRole:
    """It listens in the orgs' networks and in no other that it is in. Raises Misconfigured."""
    table, variables, files = wiring.gateway.contained()
    table |= {"networks": [wiring.docker.pool], "port": services.GATEWAY_PORT, "state_directory": services.STATE}
    without = "agents do not reach a model"
    return ContainedRole("gateway", "sandreel_bridge.gateway", table, without, files, variables, keeps=True)


class RoleContainer:
    """`Server` of the stack (see `part`). `prepare` makes it, so that the spawner can join it to networks before it runs."""

    def __init__(
        self,
        role: ContainedRole,
        place: Place,
        keys: Keys,
        wiring: Wiring,
        *,
        engine: Engine,
        image: str,
        health_port: int,
    ) -> None:
        self._role = role
        self._directory = place.data / role.name
        self._state = place.data / f"{role.name}-state" if role.keeps else None
        self._place = place
        self._wiring = wiring
        self._keys = keys
        self._image = image
        self._health = f"{LOOPBACK}:{health_port}"
        self._health_port = health_port
        self._box = Contained(engine, services.service_name(keys.installation, role.name))

    @property
    def pid(self) -> int | None:
        return self._box.pid

    async def prepare(self) -> None:
        """Raises Misconfigured, Unavailable."""
        user = account()
        await asyncio.to_thread(self._write, user)
        body = services.role_container(
            self._keys.installation,
            self._image,
            self._role.module,
            user=(user.uid, user.gid) if user else (os.getuid(), os.getgid()),
            settings=str(self._directory),
            state=None if self._state is None else str(self._state),
            health_port=self._health_port,
            variables=self._role.variables,
        )
        try:
            await self._box.made(body)
        except (Refused, NotFound, Conflict) as error:
            raise Unavailable(f"the {self._role.name} container cannot be made: {error}", retry_after_s=5) from error

    def _write(self, user: Account | None) -> None:
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            bus, _ = self._wiring.connection(self._place, self._keys)
            name = services.service_name(self._keys.installation, "nats")
            bus |= {
                "nats_urls": [f"nats://{name}:{services.BUS_PORT}"],
                "creds_file": f"{services.SETTINGS}/{_CREDS}",
            }
            creds = Authority(self._place.identity).creds_file(self._role.name).read_text()
            settings = toml({"bus": bus, self._role.name: self._role.table})
            for file, text in {**self._role.files, _CREDS: creds, _SETTINGS: settings}.items():
                write_secret(self._directory / file, text)
                if user is not None:
                    user.own(self._directory / file)
            if user is not None:
                user.own(self._directory)
            if self._state is not None:
                self._state.mkdir(mode=0o700, exist_ok=True)
            if self._state is not None and user is not None:
                for path in (self._state, *self._state.iterdir()):
                    user.own(path)  # also what the role wrote when it was a process of this machine
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
            raise Unavailable(f"the {self._role.name} container cannot be started: {error}", retry_after_s=5) from error

    async def _await_ready(self) -> None:
        limit, why = time.monotonic() + _START_S, "it does not answer"
        while time.monotonic() < limit:
            if (await self._box.state())["Status"] != "running":
                said = (await self._box.engine.logs(self._box.name, lines=1)).strip()
                raise Unavailable(f"the {self._role.name} container did not start: {said[:400]}")
            try:
                report = (await read(self._health)).report
                if report.status != "failing":
                    return
                why = "; ".join(reason.text for reason in report.reasons)
            except Unavailable:
                pass  # it is not there yet
            await asyncio.sleep(_POLL_S)
        await self._box.stop()
        raise Unavailable(f"the {self._role.name} container was not ready within {_START_S:g} s: {why}")

    async def wait(self) -> int:
        return await self._box.wait()

    async def stop(self) -> None:
        """Every connection ends. The container stays, with its networks."""
        await self._box.stop()

    async def kill(self) -> None:
        await self._box.end()

    async def remove(self) -> None:
        """And of its files those that may be secret: a provider's key does not outlive the stack that was given it."""
        await self._box.remove()
        for file in self._role.files:
            (self._directory / file).unlink(missing_ok=True)


def image_of(wiring: Wiring) -> str:
    """Reads the source tree: call it in a thread."""
    return wiring.docker.egress_image or str(image("roles"))


@asynccontextmanager
async def open_role(
    role: ContainedRole, place: Place, keys: Keys, wiring: Wiring, *, health_port: int
) -> AsyncGenerator[RoleContainer, None]:
    """The stack's, made and not started. Raises NotFound, in one line, when its image is not there."""
    name = await asyncio.to_thread(image_of, wiring)
    async with Engine.open(wiring.docker.host) as engine:
        try:
            await engine.image(name)
        except NotFound as error:
            raise NotFound(f"image {name} is not built (make image): {role.without}") from error
        container = RoleContainer(role, place, keys, wiring, engine=engine, image=name, health_port=health_port)
        try:
            await container.prepare()
            yield container
        finally:
            await container.remove()
