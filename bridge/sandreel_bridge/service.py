"""The bridge, put together: it answers commands about turns, drives turns, and looks for keys that nobody needs any more."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable

from sandreel_bridge.adapters.table import ADAPTERS
from sandreel_bridge.commands import commands
from sandreel_bridge.gateway.port import Gateway
from sandreel_bridge.index import Index, streams
from sandreel_bridge.keys import Keys
from sandreel_bridge.line import ACTOR, Line
from sandreel_bridge.measures import BridgeMeasures
from sandreel_bridge.orchestrator import Orchestrator
from sandreel_bridge.orphans import revoke_orphans
from sandreel_bridge.prompts import Prompts, prompts
from sandreel_bridge.restored import reopen
from sandreel_bridge.settings import Settings
from sandreel_bridge.tools import Tools
from sandreel_core.bus import installed
from sandreel_core.bus.backoff import backoff_s
from sandreel_core.bus.measures import CommandMeasures
from sandreel_core.bus.port import Bus
from sandreel_core.bus.streams import BRIDGE_COMMANDS, CMD_MAX_AGE_S
from sandreel_core.client import Client
from sandreel_core.clock import new_token
from sandreel_core.errors import SandreelError
from sandreel_core.log import Log
from sandreel_core.metrics import Metrics


class Bridge:
    """One bridge; `run` is its whole life. Any number of them may serve one installation."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        gateway: Gateway | None,
        *,
        partitions: int = 1,
        replicas: int = 1,
        command_max_age_s: float = CMD_MAX_AGE_S,
        metrics: Metrics | None = None,
    ) -> None:
        metrics = metrics or Metrics()
        self.source = f"/bridge/{socket.gethostname()}/{new_token()}"
        self._bus = bus
        self._gateway = gateway
        self._settings = settings
        self._partitions = partitions
        self._replicas = replicas
        self._index = Index(bus)
        self._measures = BridgeMeasures(metrics)
        self._prompts = Prompts(bus)
        line = Line(bus, self._index, partitions)
        tools = Tools(
            bus=bus,
            client=Client(bus, partitions=partitions, actor=ACTOR),
            index=self._index,
            line=line,
            prompts=self._prompts,
            keys=Keys(bus),
            gateway=gateway,
            settings=settings,
            measures=self._measures,
        )
        self._orchestrator = Orchestrator(tools, source=self.source, partitions=partitions)
        self._reactor = commands(
            bus,
            self._index,
            line,
            self._prompts,
            ADAPTERS,
            self._orchestrator.decided,
            source=self.source,
            partitions=partitions,
            has_gateway=gateway is not None,
            command_max_age_s=command_max_age_s,
            measures=CommandMeasures(metrics),
        )
        self._log = Log("bridge")

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve for ever; `ready` is called when commands are answered and turns watched. Turns go on without us."""
        documents = [*streams(replicas=self._replicas), prompts(replicas=self._replicas)]
        await self._bus.ensure(documents, [BRIDGE_COMMANDS])
        if self._gateway is None:  # as it was set up, and so no trouble: who asks for a turn is told
            self._log.warning("no gateway is configured: turns are refused")
        await installed.check(self._bus, "bridge")
        watched = asyncio.Event()
        async with self._prompts.open(), asyncio.TaskGroup() as group:
            group.create_task(installed.watch(self._bus, "bridge"), name="installed")
            group.create_task(self._orchestrator.run(watched), name="turns")
            await watched.wait()
            group.create_task(self._reactor.run(), name="commands")
            group.create_task(self._reopen(), name="restored turns")
            if self._gateway is not None:
                group.create_task(self._scan(self._gateway), name="orphaned keys")
            ready()

    async def _reopen(self) -> None:
        failures = 0
        while True:
            try:
                return await reopen(self._bus, self._index, self._partitions)
            except SandreelError as error:
                failures += 1
                self._log.warning("turns of a restored log have to wait", problem=str(error))
                await asyncio.sleep(backoff_s(failures, 1.0))

    async def _scan(self, gateway: Gateway) -> None:
        while True:
            await asyncio.sleep(self._settings.scan_s * random.uniform(0.9, 1.1))  # noqa: S311 - no secret hangs on it
            try:
                found = await revoke_orphans(
                    self._bus, gateway, self._index, partitions=self._partitions, source=self.source
                )
            except SandreelError as error:
                self._log.warning("orphaned keys were not looked for", problem=str(error))
            else:
                self._measures.revoked.add(by=found)
