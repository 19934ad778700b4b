"""The built-in gateway as a role: it takes up its keys, serves sandboxes and the bridge, and records what calls use."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from aiohttp import web

from sandreel_bridge.gateway.daybook import open_daybook
from sandreel_bridge.gateway.desk import QUIET_S, SUBJECT, Desk
from sandreel_bridge.gateway.doors import Doors
from sandreel_bridge.gateway.front import front, opener
from sandreel_bridge.gateway.keyring import Keyring
from sandreel_bridge.gateway.measures import GatewayMeasures
from sandreel_bridge.gateway.orgs import Orgs
from sandreel_bridge.gateway.provider import Providers
from sandreel_bridge.gateway.proxy import Proxy
from sandreel_bridge.gateway.recorder import Recorder
from sandreel_bridge.gateway.settings import Settings
from sandreel_bridge.gateway.store import Store, documents
from sandreel_core.bus.crew import Crew
from sandreel_core.bus.port import Bus
from sandreel_core.clock import new_id, new_token, now
from sandreel_core.errors import Misconfigured, SandreelError, Unavailable
from sandreel_core.health import Health
from sandreel_core.log import Log
from sandreel_core.metrics import Metrics

# How often it looks for another gateway, for keys that nobody has ended, and for changed settings of orgs.
_LOOK_S = 1.0
# To cut what is under way and to record it, when the role is told to end.
_LAST_WORDS_S = 5.0
_CLOCK = (
    "turns were charged in a month that is still to come: this machine's clock is behind, or was ahead; what was spent there"
    " counts now as well"
)


class Service:
    """One gateway on one bus. `run` is its whole life."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        *,
        partitions: int,
        health: Health,
        metrics: Metrics,
        replicas: int = 1,
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._replicas = replicas
        self._health = health
        self._measures = GatewayMeasures(metrics)
        self._partitions = partitions
        self._listening = False
        self._log = Log("gateway")

    async def run(self, ready: Callable[[tuple[str, int] | None], None] = lambda where: None) -> None:
        """Serve for ever; `ready` is told (host, port), None where it listens on networks. Raises Misconfigured, also
        once another gateway has taken the keys over."""
        settings = self._settings
        _ = settings.ranges, settings.address, settings.state  # a mistake in them is said before anything is changed
        orgs = await asyncio.to_thread(Orgs, settings)
        if not settings.keys:
            self._health.trouble("providers", settings.missing_key, fails_after_s=None)
        await self._bus.ensure([documents(replicas=self._replicas)])
        store, boot_id = Store(self._bus), new_token()
        await store.take(boot_id)  # a gateway before us sees it and leaves, and with it the file that it has open
        opened = open_daybook(
            settings.state, max_bytes=settings.max_daybook_bytes, health=self._health, measures=self._measures
        )
        async with opened as daybook:
            recorder = Recorder(
                self._bus,
                store,
                daybook,
                partitions=self._partitions,
                max_unrecorded=settings.max_unrecorded,
                health=self._health,
                measures=self._measures,
            )
            keyring = Keyring(store, recorder, orgs, now=now, boot_id=boot_id)
            await keyring.open(daybook.found)
            await self._serve(keyring, orgs, recorder, ready)

    async def _serve(
        self, keyring: Keyring, orgs: Orgs, recorder: Recorder, ready: Callable[[tuple[str, int] | None], None]
    ) -> None:
        settings, ranges = self._settings, self._settings.ranges
        where = None if ranges else settings.address
        desk = Desk(keyring, orgs, recorder, self._works)
        async with Providers(settings) as providers:
            proxy = Proxy(settings, orgs, keyring, recorder, providers, self._measures, new_id=new_id, now=now)
            runner = front(proxy.handle, settings, self._measures)
            await runner.setup()
            try:
                async with Crew() as crew, self._bus.serve(SUBJECT, desk.handle, group="gateway"):
                    crew.start(recorder.run())
                    crew.start(self._look(keyring, orgs, recorder))
                    if where is not None:
                        await self._listen(runner, *where)
                    else:
                        crew.start(Doors(ranges, settings.port, opener(runner)).follow())
                    self._listening = True
                    ready(where)
                    await asyncio.Event().wait()
            finally:
                await asyncio.shield(self._last_words(runner, recorder))

    async def _listen(self, runner: web.ServerRunner, host: str, port: int) -> None:
        try:
            await opener(runner)(host, port)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is taken by another program" if taken else f"cannot be used ({error.strerror or error})"
            raise Misconfigured(f"[gateway] listen: {host}:{port} {why}") from error

    async def _works(self) -> None:
        """What `enforce` confirms beside what an org may do."""
        if not self._listening:
            raise Unavailable("the gateway does not listen yet")

    async def _look(self, keyring: Keyring, orgs: Orgs, recorder: Recorder) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            recorder.retry()
            self._measures.keys.set(len(keyring))
            try:
                if await asyncio.to_thread(orgs.reload):
                    self._log.info("the orgs' settings were read again")
                self._health.well("orgs")
            except Misconfigured as error:
                self._health.trouble("orgs", f"{error}; what was read before holds")
            try:
                await keyring.check_owner()  # its Misconfigured ends the role
            except Unavailable as error:
                self._log.warning("the keys cannot be looked after", problem=str(error))
            if keyring.is_ahead():
                self._health.trouble("clock", _CLOCK, fails_after_s=None)
            else:
                self._health.well("clock")
            for org, name in keyring.expired():
                try:
                    await keyring.end(org, name, within_s=QUIET_S)
                    self._log.warning("a key has expired that nobody had revoked", key=name)
                except Unavailable as error:  # the others need not wait for this one
                    self._log.warning("a key that has expired is not settled yet", key=name, problem=str(error))

    async def _last_words(self, runner: web.ServerRunner, recorder: Recorder) -> None:
        await runner.cleanup()  # cuts what is under way, and so settles it
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await recorder.send()
        except (TimeoutError, SandreelError) as error:
            self._log.error("calls are not recorded", calls=recorder.unrecorded, problem=str(error))
