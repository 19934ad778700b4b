"""The egress proxy as a role: it follows its documents, serves, and tells what it decided."""

from __future__ import annotations

import asyncio
import errno
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import NamedTuple

from sandreel_core.bus.crew import Crew
from sandreel_core.bus.port import Bus, CaughtUp, Missing
from sandreel_core.clock import new_id, now
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.contract.usage import EgressDenied
from sandreel_core.descriptors import make_room
from sandreel_core.egress.decision import by_address
from sandreel_core.egress.denials import Tally, Verdict
from sandreel_core.egress.dial import LookUp, dial, lookups
from sandreel_core.egress.measures import EgressMeasures
from sandreel_core.egress.proxy import ByAddress, Dial, Proxy
from sandreel_core.egress.register import EGRESS, Table, documents
from sandreel_core.egress.settings import Settings
from sandreel_core.errors import Malformed, Misconfigured, SandreelError, Unavailable
from sandreel_core.health import Health
from sandreel_core.log import Log
from sandreel_core.metrics import Metrics

# How often what is due is looked for: a first refusal is told this soon.
TELL_S = 0.25
AGAIN_S = 1.0
# Events that wait while NATS is away; one look may add as many as the tally has kinds.
MAX_UNSENT = 1000
# To tell what is counted when the role is told to end.
LAST_WORDS_S = 3.0
# Beside two descriptors a connection: NATS, health, the resolver's sockets, standard streams.
SPARE_FILES = 128


class _Unsent(NamedTuple):
    """An event that is not in NATS yet, and how many refusals it tells of."""

    subject: str
    body: bytes
    id: str
    refusals: int


class Egress:
    """One proxy on one bus. `run` is its whole life."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        *,
        partitions: int,
        health: Health,
        metrics: Metrics,
        replicas: int = 1,
        look_up: LookUp | None = None,
        by_address: ByAddress = by_address,
        dial: Dial = dial,
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._partitions = partitions
        self._replicas = replicas
        self._health = health
        self._measures = EgressMeasures(metrics, settings.max_connections)
        self._look_up = look_up
        self._by_address = by_address
        self._dial = dial
        self._table = Table()
        self._tally = Tally()
        self._unsent: deque[_Unsent] = deque()
        self._news = asyncio.Event()
        self._log = Log("egress")

    async def run(self, ready: Callable[[tuple[str, int]], None] = lambda where: None) -> None:
        """Serve for ever; `ready` is told (host, port), once the documents were read. Raises Misconfigured."""
        make_room(2 * self._settings.max_connections + SPARE_FILES, "[egress] max_connections")
        await self._bus.ensure([documents(replicas=self._replicas)])
        known = asyncio.Event()
        with lookups(self._look_up) as looking:
            proxy = Proxy(
                *(self._settings, self._table, looking, self._measures, self._tally.add),
                by_address=self._by_address,
                dial=self._dial,
            )
            async with Crew() as crew:
                crew.start(self._follow(proxy, known))
                telling = [crew.start(work) for work in (self._tell(), self._send())]
                # Not before: an empty table would call every session a stranger, and every list open.
                await known.wait()
                try:
                    await proxy.serve(ready)
                except OSError as error:
                    taken = error.errno == errno.EADDRINUSE
                    why = "is taken by another program" if taken else f"cannot be used ({error.strerror or error})"
                    raise Misconfigured(f"[egress] listen: {self._settings.listen} {why}") from error
                finally:
                    for task in telling:
                        task.cancel()
                    await asyncio.shield(self._last_words())

    async def _follow(self, proxy: Proxy, known: asyncio.Event) -> None:
        while True:
            try:
                await self._read(proxy, known)
            except SandreelError as error:
                # The stream was made anew or brought back from a copy: what is known holds until it is read again.
                self._log.warning("the documents cannot be followed", problem=str(error))
                self._health.trouble("documents", "the documents of places and rules cannot be followed")
            await asyncio.sleep(AGAIN_S)

    async def _read(self, proxy: Proxy, known: asyncio.Event) -> None:
        table, caught_up = Table(), False
        async with aclosing(self._bus.follow(EGRESS, ["egress.>"])) as items:
            async for item in items:
                if isinstance(item, CaughtUp):
                    caught_up = True
                    self._health.well("documents")
                elif not isinstance(item, Missing):
                    for stored in item:
                        try:
                            table.apply(stored)
                        except Malformed as error:
                            self._log.error("a document cannot be read", problem=str(error))
                if caught_up:
                    if table.broken:
                        self._health.trouble("rules", "an allowlist cannot be read: the one before it holds")
                    else:
                        self._health.well("rules")
                    proxy.table_changed(table)
                    known.set()

    async def _tell(self) -> None:
        """Into the log, and refusals into the queue to their sessions' streams; what finds no room there is counted on."""
        while True:
            await asyncio.sleep(TELL_S)
            if len(self._unsent) < MAX_UNSENT:
                self._queue(self._tally.due(time.monotonic()))
            self._measures.untold.set(self._tally.untold + sum(each.refusals for each in self._unsent))

    def _queue(self, due: Iterable[tuple[Verdict, int]]) -> None:
        for verdict, count in due:
            self._write_line(verdict, count)
            if verdict.denied and verdict.session:
                self._unsent.append(self._event(verdict, count))
                self._news.set()

    async def _send(self) -> None:
        while True:
            await self._news.wait()
            while self._unsent:
                try:
                    await self._send_first()
                except Unavailable as error:
                    await asyncio.sleep(error.retry_after_s)
            self._news.clear()

    async def _send_first(self) -> None:
        """Raises Unavailable, with it still in the queue; the id makes a repeat harmless that was stored after all."""
        event = self._unsent[0]
        try:
            await self._bus.append(event.subject, event.body, message_id=event.id)
        except Unavailable:
            raise
        except SandreelError as error:
            self._log.error("a refusal cannot be told", subject=event.subject, problem=str(error))
        self._unsent.popleft()

    async def _last_words(self) -> None:
        self._queue(self._tally.rest().items())
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                while self._unsent:
                    await self._send_first()
        except (TimeoutError, Unavailable) as error:
            self._log.warning("refusals were not told to NATS", events=len(self._unsent), problem=str(error))

    def _event(self, verdict: Verdict, count: int) -> _Unsent:
        subject = SessionSubjects(verdict.org, verdict.session, self._partitions).event("egress")
        event = EgressDenied(host=verdict.host, port=verdict.port, why=verdict.why, count=count)
        envelope = seal(event, id=new_id(), source="/egress", subject=subject, time=now())
        return _Unsent(subject, encode(envelope), envelope.id, count)

    def _write_line(self, verdict: Verdict, count: int) -> None:
        fields = {"decision": "denied" if verdict.denied else "allowed" if not verdict.why else "failed"}
        for name in ("org", "session", "host", "port", "code", "why"):
            if value := getattr(verdict, name):
                fields[name] = value
        self._log.info("connection", **fields, count=count)
