"""Writes down what calls use: `usage.recorded` in the log, and behind it the keys' progress, without a call waiting for it.

While NATS is away it keeps what it has to say, up to a bound; beyond it `full` is true and no call is let through (law 8).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from sandreel_bridge.gateway.measures import GatewayMeasures
from sandreel_bridge.gateway.purse import Purse
from sandreel_bridge.gateway.store import Store
from sandreel_core.bus.port import Bus
from sandreel_core.clock import now
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.contract.usage import UsageRecorded
from sandreel_core.errors import SandreelError, Unavailable
from sandreel_core.health import Health
from sandreel_core.log import Log


class _Event(NamedTuple):
    key: str
    subject: str
    body: bytes
    call_id: str


class Recorder:
    """`run` sends; everything else returns at once."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        *,
        partitions: int,
        max_unrecorded: int,
        health: Health,
        measures: GatewayMeasures,
    ) -> None:
        self._bus = bus
        self._store = store
        self._partitions = partitions
        self._max = max_unrecorded
        self._health = health
        self._measures = measures
        self._events: deque[_Event] = deque()
        self._changed: dict[str, Purse] = {}
        self._ended: dict[str, None] = {}
        self._news = asyncio.Event()
        self._sent = asyncio.Event()
        self._log = Log("gateway")

    @property
    def unrecorded(self) -> int:
        """Calls that ended and are not in the log yet."""
        return len(self._events)

    @property
    def full(self) -> bool:
        return len(self._events) + len(self._changed) >= self._max

    def note(self, purse: Purse) -> None:
        """The key's progress has changed: a call has begun. The newest counts, however often it changed meanwhile."""
        self._changed[purse.key.name] = purse
        self._ended.pop(purse.key.name, None)  # of a key that had this name before
        self._tell()

    def record(self, purse: Purse, event: UsageRecorded) -> None:
        """A call has ended."""
        terms = purse.key.terms
        subject = SessionSubjects(terms.org, terms.session, self._partitions).event("usage")
        envelope = seal(
            event,
            id=event.call_id,
            source="/gateway",
            subject=subject,
            time=now(),
            correlationid=terms.correlation_id,
        )
        self._events.append(_Event(purse.key.name, subject, encode(envelope), event.call_id))
        self.note(purse)

    def forget(self, name: str) -> None:
        """The key has ended, and its account says how: its progress is not needed any more."""
        self._changed.pop(name, None)
        self._ended[name] = None
        self._tell()

    async def recorded(self, name: str, within_s: float) -> bool:
        """Wait until every call of the key that has ended is in the log; False when one is not."""
        try:
            async with asyncio.timeout(within_s):
                while any(event.key == name for event in self._events):
                    self._sent.clear()
                    await self._sent.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self.send()
            except Unavailable as error:
                self._health.trouble("usage", "what calls used cannot be recorded: NATS does not take it")
                await asyncio.sleep(error.retry_after_s)
                self._news.set()

    async def send(self) -> None:
        """Everything that there is to say now. A call's event goes before the progress that no longer names it: whoever
        comes after a crash in between tells the call again, under the same id. Raises Unavailable, with the rest kept."""
        while self._events or self._changed or self._ended:
            if self._events:
                await self._send_event(self._events[0])
                self._events.popleft()
                self._sent.set()
            elif self._changed:
                name, purse = next(iter(self._changed.items()))
                # Encoded now, after all events: what it says of the key's calls is in the log.
                progress = purse.progress
                del self._changed[name]
                try:
                    await self._store.save_progress(progress)
                except Unavailable:
                    self._changed.setdefault(name, purse)
                    raise
            else:
                name = next(iter(self._ended))
                await self._store.drop_progress(name)
                del self._ended[name]
            self._measures.unrecorded.set(len(self._events))
        self._health.well("usage")

    async def _send_event(self, event: _Event) -> None:
        try:
            await self._bus.append(event.subject, event.body, message_id=event.call_id)
        except Unavailable:
            raise
        except SandreelError as error:
            # It will not be taken another time either. The key's budget is charged all the same.
            self._log.error("a call cannot be recorded", call=event.call_id, problem=str(error))
            self._measures.unrecordable.add()
            self._health.trouble("usage", "a call could not be recorded: the log refused it")

    def _tell(self) -> None:
        self._measures.unrecorded.set(len(self._events))
        self._news.set()
