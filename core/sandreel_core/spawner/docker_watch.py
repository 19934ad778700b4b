"""What happens to an installation's containers, as the engine tells it: who ended, and why."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any

from sandreel_core.errors import Unavailable
from sandreel_core.log import Log
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner import docker_spare
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker import Engine, label_pairs
from sandreel_core.spawner.docker_death import Happened, happened

# Containers of which events are kept: the engine's own memory is all that there is behind them.
MAX_CONTAINERS = 4096
_MAX_EVENTS = 16
_FIRST_PAUSE_S = 0.1
_GREATEST_PAUSE_S = 1.0  # two seconds after the engine answers again, everything that ended meanwhile is known
_COMPLAIN_EVERY_S = 30.0


class Watch:
    """One reader at a time. `everything` names the sessions that may have ended while nobody could tell."""

    def __init__(self, engine: Engine, installation: str, everything: Callable[[], Awaitable[Iterable[Key]]]) -> None:
        self._engine = engine
        labels = label_pairs({plan.INSTALLATION: installation, plan.KIND: "session"})
        self._about = {"event": ["start", "die", "oom", "kill", "destroy"], "label": labels}
        self._everything = everything
        self._seen: OrderedDict[str, list[Happened]] = OrderedDict()
        # Whose start the stream that is open now has told: between two streams the engine may have been started anew.
        self._witnessed: set[str] = set()
        # By the engine's clock: behind an interruption, what it still remembers of it is heard as well.
        self._since = time.time()
        self._log = Log("spawner.docker")

    def seen(self, container: str) -> list[Happened]:
        """What was heard of a container, oldest first."""
        return list(self._seen.get(container, ()))

    def witnessed(self, container: str) -> bool:
        """Whether everything was heard of it since it started, from one engine."""
        return container in self._witnessed

    async def ends(self) -> AsyncGenerator[Key, None]:
        """Sessions whose boot may have ended, for ever."""
        pause_s, complained = _FIRST_PAUSE_S, 0.0
        while True:
            try:
                async with self._engine.events(self._about, since=self._since) as events:
                    # Listening first, then asking what is there: what ends in between is told twice, not missed.
                    for key in await self._everything():
                        yield key
                    pause_s = _FIRST_PAUSE_S
                    async for event in events:
                        ended = self._hear(event)
                        if ended is not None:
                            yield ended
            except Unavailable as error:
                if time.monotonic() - complained > _COMPLAIN_EVERY_S:
                    complained = time.monotonic()
                    self._log.warning("the engine cannot be watched", problem=str(error))
            finally:
                self._witnessed.clear()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _GREATEST_PAUSE_S)

    def _hear(self, event: dict[str, Any]) -> Key | None:
        """Remember it; the session that it may have ended."""
        found = happened(event)
        self._since = max(self._since, found.at)
        actor = event.get("Actor", {})
        container, told = str(actor.get("ID", "")), actor.get("Attributes", {})
        labels = docker_spare.named(told, str(told.get("name", "")))
        events = self._seen.setdefault(container, [])
        events.append(found)
        del events[:-_MAX_EVENTS]
        self._seen.move_to_end(container)
        if found.action == "start":
            self._witnessed.add(container)
        while len(self._seen) > MAX_CONTAINERS:
            forgotten, _ = self._seen.popitem(last=False)
            self._witnessed.discard(forgotten)
        if found.action not in ("die", "destroy") or plan.SESSION not in labels:
            return None
        return Key(labels.get(plan.ORG, ""), labels[plan.SESSION])
