"""The real agents' programs, each in a container, through the bridge and the gateway, before a stand-in of their models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.usage import UsageRecorded
from sandreel_core.images import Kind, image
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker_plan import container_name
from sandreel_core.turn import Turn
from tests.support import engine
from tests.support.bridges import Turns
from tests.support.contained import open_contained_site
from tests.support.engine import docker
from tests.support.memory_gateway import MemoryGateway
from tests.support.model_api import ModelApi, Script
from tests.support.system import ORG, Site, until

IMAGES: tuple[Kind, ...] = ("session-agents", "roles")
PROVIDER_KEY = "provider-key-of-the-operator"
PROVIDERS = ("ANTHROPIC", "OPENAI", "GEMINI")


def missing() -> str | None:
    """Why there are no agents here; None: there are."""
    return engine.missing(*IMAGES)


def address() -> str:
    """Where a container in the engine's own network finds this machine."""
    return docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}")


def settings_of(api: ModelApi, key: str = PROVIDER_KEY) -> dict[str, str]:
    """Of a stack whose sessions have the agents, and whose gateway takes the stand-in for every provider."""
    settings = {"SANDREEL_DOCKER_IMAGE": image("session-agents")}
    for provider in PROVIDERS:
        settings |= {f"SANDREEL_GATEWAY_{provider}_API_KEY": key, f"SANDREEL_GATEWAY_{provider}_URL": api.url}
    return settings


class RealAgents(Turns):
    """Turns of real programs. `api`: their model."""

    def __init__(self, site: Site, api: ModelApi) -> None:
        super().__init__(site, MemoryGateway(), Path())
        self.api = api

    def processes(self, session: str) -> list[str]:
        """Command lines of what runs in its container, but for runnerd."""
        name = container_name(self.site.stack.place.keys().installation, Key(ORG, session), "1-1")
        found = docker("top", name, "-eo", "pid,args").splitlines()[1:]
        return [each for each in found if "sandreel_runnerd" not in each]

    async def runs(self, session: str, words: str) -> bool:
        """Whether a process with that in its command line does."""
        return any(words in each for each in await asyncio.to_thread(self.processes, session))

    async def ended(self, session: str, turn: str) -> Turn:
        """Finished, and of its programs nothing runs any more: of some the shells would stay behind."""
        found = await self.until(session, turn)
        await until(lambda: self.runs_nothing(session), "every process of the turn is gone", timeout_s=60)
        return found

    async def runs_nothing(self, session: str) -> bool:
        return await asyncio.to_thread(self.processes, session) == []

    async def counted(self, session: str, turn: str) -> list[UsageRecorded]:
        """What the gateway has counted of it, call by call."""
        subjects = self.client.subjects(ORG, session)
        subject, found = subjects.event("usage"), list[UsageRecorded]()
        async with aclosing(self.client.bus.follow(subjects.stream, [subject], live=False)) as items:
            async for item in items:
                data = [decode_event(subject, stored.body).data for stored in (item if isinstance(item, list) else ())]
                found += [each for each in data if isinstance(each, UsageRecorded) and each.turn == turn]
        return found

    async def story(self, session: str, turn: str) -> list[str]:
        """What became of the messages, in order."""
        told = (event.data for event in await self.events(session, turn))
        return [
            f"{getattr(data, 'channel', data.type.removeprefix('turn.steer_'))} {'+'.join(data.message_ids)}"
            for data in told
            if isinstance(data, c.SteerDelivered | c.SteerConsumed | c.SteerRequeued)
        ]


@asynccontextmanager
async def open_agents(script: Script, **settings: str) -> AsyncGenerator[RealAgents, None]:
    """`settings`: more of them."""
    async with ModelApi(script, host=address()) as api, open_contained_site(**(settings_of(api) | settings)) as site:
        yield RealAgents(site, api)


def status(turn: Turn) -> str | None:
    assert turn.finished is not None
    return turn.finished.status


def using_a_tool(turn: Turn) -> bool:
    return bool(turn.run.tools)
