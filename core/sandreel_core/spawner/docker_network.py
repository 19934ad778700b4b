"""Each org's own network, its address range, and the containers that serve every org in it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from sandreel_core.errors import AlreadyExists, Conflict, Misconfigured, NotFound, Refused, Unavailable
from sandreel_core.log import Log
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_services import BUS_PORT
from sandreel_core.spawner.fence import OrgNetwork, of_inspection

# design §6: 61 addresses for sessions and services beside the gateway. The engine's own pools end after about 28 networks.
PREFIX = 26
Range = ipaddress.IPv4Network


class Service(NamedTuple):
    """A container that every org reaches, under one name and at one port."""

    container: str
    alias: str
    port: int = BUS_PORT

    @classmethod
    def read(cls, text: str) -> Service:
        """`container[=alias][:port]`."""
        name, _, port = text.partition(":")
        container, _, alias = name.partition("=")
        return cls(container, alias or container, int(port or BUS_PORT))


class Networks:
    """Networks of one installation. The caller holds the org's lock."""

    def __init__(self, engine: Engine, installation: str, pool: str, services: Sequence[Service]) -> None:
        """Raises Misconfigured."""
        self._engine = engine
        self._installation = installation
        self._pool = pool_of(pool)
        self._services = services
        self._log = Log("spawner.docker")

    async def ensure(self, org: str) -> None:
        """The org's network is there and the services are in it.

        Raises Refused (NO_ADDRESSES) when the pool is used up, Unavailable when a service is not there.
        """
        name = plan.network_name(self._installation, org)
        try:
            found = await self._engine.network(name)
        except NotFound:
            found = await self._make(org, name)
        await self._join(name, found)

    async def _make(self, org: str, name: str) -> dict[str, object]:
        body = plan.org_network(self._installation, org)
        return await make(self._engine, name, body, self._pool)

    async def _join(self, name: str, found: dict[str, object]) -> None:
        """All that are there, whichever is not: then Unavailable is raised."""
        inside = {str(entry.get("Name")) for entry in _containers(found)}
        absent: Unavailable | None = None
        for service in self._services:
            if service.container not in inside:
                try:
                    await self._engine.join(name, service.container, service.alias)
                except NotFound as error:
                    absent = Unavailable(f"{service.container} is not there: {error}", retry_after_s=2)
                    absent.__cause__ = error
        if absent is not None:
            raise absent

    async def rejoin(self, org: str) -> None:
        """Whatever was made anew since (a service's container) is in the org's network again, if there is one. Raises
        Unavailable when a service is not there."""
        name = plan.network_name(self._installation, org)
        with suppress(NotFound):
            # A listing does not say who is in it.
            await self._join(name, await self._engine.network(name))

    async def drop(self, org: str) -> bool:
        """Away with it, where no session is left in it; whether that was so."""
        name = plan.network_name(self._installation, org)
        if await self._has_sessions(org):
            return False
        await self._drop(name)
        return True

    async def fenced(self) -> list[OrgNetwork]:
        """All of them, with a door for each service that is in it now. Raises Unavailable for a service that is not
        running: its address is not known."""
        listed = await self._engine.networks(self._ours())
        if not listed:
            return []  # whatever the services do: at the end of a stack they go together with who asks
        inside: dict[str, dict[str, object]] = {str(network["Name"]): {} for network in listed}
        ports = {service.container: service.port for service in self._services}
        for name in ports:
            for network, address in (await self._addresses(name)).items():
                if network in inside:
                    inside[network][name] = {"Name": name, "IPv4Address": address}
        # A listing does not say who is in a network; its services do.
        return [
            of_inspection(
                network | {"Containers": (within := inside[str(network["Name"])])},
                {name: port for name, port in ports.items() if name in within},
            )
            for network in listed
        ]

    async def _addresses(self, container: str) -> dict[str, str]:
        """By network. Raises Unavailable."""
        try:
            found = await self._engine.container(container)
        except NotFound as error:
            raise Unavailable(f"{container} is not there: {error}", retry_after_s=2) from error
        if found["State"]["Status"] != "running":
            raise Unavailable(f"{container} does not run", retry_after_s=2)
        joined = found["NetworkSettings"]["Networks"]
        return {name: str(each["IPAddress"]) for name, each in joined.items() if each["IPAddress"]}

    async def orgs(self) -> list[str]:
        """Who has a network."""
        networks = await self._engine.networks(self._ours())
        return [str((network.get("Labels") or {}).get(plan.ORG, "")) for network in networks]

    async def _has_sessions(self, org: str) -> bool:
        return bool(await self._engine.containers(plan.org_labels(self._installation, org, "session")))

    async def _drop(self, name: str) -> None:
        for service in self._services:
            try:
                await self._engine.leave(name, service.container)
            except Conflict:
                continue  # it was not in it
        try:
            await self._engine.remove_network(name)
        except Conflict as error:
            self._log.warning("a network stays", network=name, problem=str(error))

    def _ours(self) -> dict[str, str]:
        return {plan.INSTALLATION: self._installation, plan.KIND: "org"}


async def make(engine: Engine, name: str, body: Mapping[str, Any], pool: Range) -> dict[str, object]:
    """The network, which may be there already, with a free range of the pool. Raises Refused (NO_ADDRESSES)."""
    taken = [subnet for network in await engine.networks() for subnet in _subnets(network)]
    for subnet in free_ranges(pool, taken):
        try:
            await engine.make_network({**body, "IPAM": {"Config": [{"Subnet": str(subnet)}]}})
        except AlreadyExists:
            # By somebody without our lock, or a range that the machine itself uses: the next one then.
            try:
                return await engine.network(name)
            except NotFound:
                continue
        return {}
    raise Refused(
        "NO_ADDRESSES",
        f"all /{PREFIX} ranges of {pool} are taken: destroy sessions of other orgs, or give [docker] pool a larger one",
    )


def pool_of(text: str) -> Range:
    """Raises Misconfigured."""
    try:
        pool = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise Misconfigured(f"[docker] pool {text!r} is no IPv4 range: {error}") from error
    if pool.prefixlen > PREFIX or not pool.is_private:
        raise Misconfigured(f"[docker] pool {text} has to be a private range of at least one /{PREFIX}")
    return pool


def free_ranges(pool: Range, taken: Iterable[Range]) -> Iterator[Range]:
    """The /26 ranges of the pool that meet no other."""
    others = [other for other in taken if other.overlaps(pool)]
    for subnet in pool.subnets(new_prefix=PREFIX):
        if not any(subnet.overlaps(other) for other in others):
            yield subnet


def _subnets(network: dict[str, object]) -> Iterator[Range]:
    ipam = network.get("IPAM")
    configs = ipam.get("Config") if isinstance(ipam, dict) else None
    for config in configs or ():
        try:
            yield ipaddress.IPv4Network(config.get("Subnet", ""))
        except ValueError:
            continue  # IPv6


def _containers(network: dict[str, object]) -> list[dict[str, object]]:
    found = network.get("Containers")
    return list(found.values()) if isinstance(found, dict) else []
