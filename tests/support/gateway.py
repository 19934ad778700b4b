"""A built-in gateway in the test's own process, before a stand-in of the providers, on any bus."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sandreel_bridge.gateway.client import GatewayClient
from sandreel_bridge.gateway.port import KeyTerms, VirtualKey, key_name
from sandreel_bridge.gateway.service import Service
from sandreel_bridge.gateway.settings import Settings
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import Bus
from sandreel_core.bus.streams import streams
from sandreel_core.clock import now
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.subjects import SessionSubjects, reel
from sandreel_core.contract.usage import UsageRecorded
from sandreel_core.embedded.place import free_port
from sandreel_core.health import Health
from sandreel_core.metrics import Metrics
from tests.support.model_api import ModelApi

PROVIDER_KEY = "sk-the-operators-own"
ORG, SESSION = "acme", "s1"


@dataclass
class Gateway:
    """`task` is the service: cancelled is SIGTERM."""

    url: str
    bus: Bus
    client: GatewayClient
    health: Health
    metrics: Metrics
    task: asyncio.Task[None]

    async def mint(self, turn: str = "t1", **terms: Any) -> VirtualKey:
        return await self.client.mint(key_name(ORG, SESSION, 1, turn, 1), key_terms(turn, **terms))

    async def recorded(self, count: int, org: str = ORG, session: str = SESSION) -> list[UsageRecorded]:
        """As soon as so many calls are in the session's log."""
        subject = SessionSubjects(org, session).event("usage")
        after, found = 0, list[UsageRecorded]()
        while len(found) < count:
            stored = await self.bus.next(reel(0), subject, after=after)
            if stored is None:
                await asyncio.sleep(0.01)
                continue
            after = stored.sequence
            event = decode_event(subject, stored.body).data
            assert isinstance(event, UsageRecorded)
            found.append(event)
        return found


def key_terms(turn: str = "t1", **terms: Any) -> KeyTerms:
    given: dict[str, Any] = {
        "org": ORG,
        "session": SESSION,
        "turn": turn,
        "user": "ada",
        "models": ("claude-sonnet-4-5", "claude-haiku-4-5", "gpt-5.2", "gemini-3-flash-preview"),
        "budget_micro_usd": 5_000_000,
        "expires_at": now() + timedelta(hours=1),
    }
    return KeyTerms(**(given | terms))


def settings(api: ModelApi, port: int = 0, **own: Any) -> Settings:
    return Settings(
        **(
            {
                "listen": f"127.0.0.1:{port}",
                "anthropic_api_key": PROVIDER_KEY,
                "openai_api_key": PROVIDER_KEY,
                "gemini_api_key": PROVIDER_KEY,
                "anthropic_url": api.url,
                "openai_url": f"{api.url}/v1",
                "gemini_url": api.url,
            }
            | own
        )
    )


@asynccontextmanager
async def gateway(api: ModelApi, *, bus: Bus | None = None, asker: Bus | None = None, **own: Any) -> AsyncGenerator[Gateway, None]:  # fmt: skip
    """asker: the bridge's connection, where it is another than the gateway's."""
    if bus is None:
        bus = MemoryBus()
        await bus.ensure(streams())
    port = own.pop("port", None) or free_port()
    if "state_directory" not in own:
        with tempfile.TemporaryDirectory(prefix="sandreel-gateway-") as directory:
            async with gateway(api, bus=bus, asker=asker, port=port, state_directory=directory, **own) as served:
                yield served
        return
    health = Health("gateway", version="test", pid=1, monotonic=asyncio.get_running_loop().time)
    metrics = Metrics()
    serving = asyncio.Event()
    service = Service(bus, settings(api, port, **own), partitions=1, health=health, metrics=metrics)
    task = asyncio.create_task(service.run(lambda where: serving.set()))
    waiting = asyncio.create_task(serving.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield Gateway(f"http://127.0.0.1:{port}", bus, GatewayClient(asker or bus), health, metrics, task)
    finally:
        waiting.cancel()
        if not task.done():  # else a test has seen how it ended
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
