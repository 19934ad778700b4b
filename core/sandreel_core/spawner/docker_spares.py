"""The warm pools of one spawner: spares that are made in the background, handed out, and taken away again.

A spare that runs has an owner that lives: its standard input is held open by whoever made it, and with that it ends. So what
is left of a spawner that was killed are containers that have ended under a spare's name (see `docker_remains`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from sandreel_core.clock import new_token
from sandreel_core.errors import SandreelError, Unavailable
from sandreel_core.log import Log
from sandreel_core.metrics import Metrics
from sandreel_core.spawner import docker_spare as spare
from sandreel_core.spawner.backend import BootSpec
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_images import Image, chosen
from sandreel_core.spawner.docker_line import Line
from sandreel_core.spawner.docker_orgs import Orgs
from sandreel_core.spawner.docker_plan import Terms
from sandreel_core.spawner.docker_remains import Remains
from sandreel_core.spawner.docker_spare import Warm
from sandreel_core.spawner.docker_workspace import fill_workspace
from sandreel_core.spawner.measures import SPARES, SPARES_MADE, SPARES_MISSED, SPARES_REMOVED, SPARES_TAKEN
from sandreel_core.spawner.to_the_end import to_its_end

# How often the pools are looked at without a cause: an image that was built anew, an engine that was restarted.
LOOK_S = 10.0
# After one that could not be made: the cause is in the log, and sessions start without.
FAILED_S = 60.0
# Behind a take: a session's boot has the machine to itself first, and its spare comes after it.
BEHIND_S = 1.0
CLOSE_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Spare:
    """One that waits. `line` is its standard input, `image` the id of what it was made of."""

    id: str
    token: str
    line: Line
    image: str


@dataclass(frozen=True, slots=True)
class Making:
    """What spares have in common with sessions."""

    terms: Terms
    orgs: Orgs
    spool_bytes: int
    disk_bytes: int | None


class Spares:
    """`keep` fills the pools for ever; `take` never waits for one."""

    def __init__(
        self, engine: Engine, wanted: Sequence[Warm], making: Making, remains: Remains, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._remains = remains
        self._wanted = wanted
        self._making = making
        self._terms = making.terms
        self._ready: defaultdict[Warm, deque[Spare]] = defaultdict(deque)
        self._wake = asyncio.Event()
        self._told = ""
        self._count = metrics.gauge(SPARES)
        self._counters = {f: metrics.counter(f) for f in (SPARES_MADE, SPARES_TAKEN, SPARES_MISSED, SPARES_REMOVED)}
        self._log = Log("spawner.spares")

    def pool(self, spec: BootSpec) -> Warm | None:
        """The one that the boot could come from."""
        return next((warm for warm in self._wanted if warm.fits(spec)), None)

    def take(self, warm: Warm, image: Image) -> Spare | None:
        """One that is made of just this image, and the caller's from now on."""
        waiting = self._ready[warm]
        found = next((each for each in waiting if each.image == image.id), None)
        if found is not None:
            waiting.remove(found)
        self._counters[SPARES_MISSED if found is None else SPARES_TAKEN].add()
        self._log.info("no spare" if found is None else "a spare was taken", org=warm.org, left=len(waiting))
        self._tell()
        self._wake.set()
        return found

    async def keep(self) -> None:
        """For ever. At its end there is none any more."""
        try:
            while True:
                self._wake.clear()
                pause_s = LOOK_S
                try:
                    await self._tidy()
                    for warm in self._wanted:
                        await self._fill(warm)
                    self._told = ""
                except SandreelError as error:
                    if str(error) != self._told:  # and not again every ten seconds
                        self._told = str(error)
                        self._log.warning("a spare could not be made", problem=self._told)
                    pause_s = LOOK_S if isinstance(error, Unavailable) else FAILED_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
                        await asyncio.sleep(BEHIND_S)
        finally:
            await asyncio.shield(self._close())

    async def _fill(self, warm: Warm) -> None:
        waiting = self._ready[warm]
        asked = (warm.image,) if warm.image is not None else self._terms.defaults(warm.profile)
        image = await chosen(self._engine, asked)
        for old in [each for each in waiting if each.image != image.id]:
            waiting.remove(old)
            await self.remove(old, "its image is another one now")
        while len(waiting) < warm.count:
            waiting.append(await self._make(warm, image))
            self._counters[SPARES_MADE].add()
            self._tell()

    async def _make(self, warm: Warm, image: Image) -> Spare:
        began, token, own = time.monotonic(), new_token(), self._making
        installation = self._terms.installation
        await own.orgs.prepare(warm.org, image.name)
        body = spare.container(self._terms, warm, token, image=image.name, spool_bytes=own.spool_bytes)
        volume = spare.volume_name(installation, token)
        options = {"size": str(own.disk_bytes)} if own.disk_bytes is not None else {}
        labels = spare.volume_labels(installation, warm.org, token)
        ids: list[str] = []
        lines: list[Line] = []

        async def create() -> None:
            ids.append(await self._engine.create(spare.container_name(installation, token), body))

        async def start() -> None:
            lines.append(await self._engine.start_held(ids[0]))

        try:
            await self._engine.make_volume(volume, labels, options)
            await to_its_end(create())
            await fill_workspace(self._engine, installation, image.name, volume, self._terms.user(warm.profile))
            await own.orgs.admit(warm.org)
            await to_its_end(start())
        except BaseException:
            for line in lines:
                line.close()
            await asyncio.shield(self._erase(ids[0] if ids else None, token))
            raise
        self._log.info("a spare waits", org=warm.org, profile=warm.profile, took_s=round(time.monotonic() - began, 3))
        return Spare(ids[0], token, lines[0], image.id)

    async def _tidy(self) -> None:
        """Away with what has ended, also of those that wait here."""
        alive, removed = await self._remains.clear_containers()
        self._counters[SPARES_REMOVED].add(by=removed)
        for waiting in self._ready.values():
            for gone in [each for each in waiting if each.token not in alive]:
                waiting.remove(gone)
                gone.line.close()
        self._tell()

    async def remove(self, found: Spare, why: str) -> None:
        """One that is the caller's, whatever it is called by now."""
        found.line.close()
        await self._erase(found.id, found.token)
        self._counters[SPARES_REMOVED].add()
        self._log.info("a spare was removed", why=why)
        self._tell()

    async def _erase(self, id: str | None, token: str) -> None:
        if id is not None:
            await self._engine.remove(id, force=True)
        await self._engine.remove_volume(spare.volume_name(self._terms.installation, token))

    async def _close(self) -> None:
        """What is not removed in time has ended all the same."""
        left = [each for waiting in self._ready.values() for each in waiting]
        self._ready.clear()
        with contextlib.suppress(TimeoutError, SandreelError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await asyncio.gather(*(self.remove(each, "the spawner ends") for each in left), return_exceptions=True)
                for org in {warm.org for warm in self._wanted}:
                    await self._making.orgs.release(org)

    def _tell(self) -> None:
        self._count.set(sum(len(waiting) for waiting in self._ready.values()))
