"""Writes down what calls use: in the gateway's own file first (`daybook`), and then, without a call waiting for it, `usage.recorded` in
the log, and behind it the keys' progress.

While NATS is away it keeps what it has to say, up to a bound; beyond it `check` raises and no call is let through (law 8).
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from msgspec import Raw

from sandreel_bridge.gateway.daybook import Began, Daybook, Dropped, Ended, Sent
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

# What has begun and ended within this time is told together, and not while the call's first bytes are on their way. The daybook has it.
_GATHERED_S = 0.1


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
        daybook: Daybook,
        *,
        partitions: int,
        max_unrecorded: int,
        health: Health,
        measures: GatewayMeasures,
    ) -> None:
        self._bus = bus
        self._store = store
        self._daybook = daybook
        self._partitions = partitions
        self._max = max_unrecorded
        self._health = health
        self._measures = measures
        self._events: deque[_Event] = deque()
        self._changed: dict[str, Purse] = {}
        self._ended: dict[str, None] = {}
        self._news = asyncio.Event()
        self._sent = asyncio.Event()
        self._urgent = asyncio.Event()
        self._log = Log("gateway")

    @property
    def unrecorded(self) -> int:
        """Calls that ended and are not in the log yet."""
        return len(self._events)

    def check(self) -> None:
        """Raises Unavailable when no call may begin: what it used could not be recorded."""
        if len(self._events) >= self._max:
            raise Unavailable("the gateway cannot record what calls use: NATS is away", retry_after_s=5)
        self._daybook.check()

    def retry(self) -> None:
        """To be called now and then: whether a disk that took nothing does again."""
        self._daybook.retry()

    def begin(self, purse: Purse, call_id: str) -> None:
        """A call has taken its hold of the purse, and is not on its way yet. Raises Unavailable when it cannot be written down:
        then it does not begin."""
        call = purse.calls[call_id]
        self._daybook.begin(Began(key=purse.key.name, since=purse.key.created_at, step=purse.step, call=call))
        self.note(purse)

    def note(self, purse: Purse) -> None:
        """The key's progress has changed. The newest counts, however often it changed meanwhile."""
        self._changed[purse.key.name] = purse
        self._ended.pop(purse.key.name, None)  # of a key that had this name before
        self._tell()

    def drop(self, purse: Purse, call_id: str) -> None:
        """A call has ended that never reached its provider."""
        key = purse.key
        self._daybook.add(Dropped(key=key.name, since=key.created_at, step=purse.step, call_id=call_id))
        self.note(purse)

    def resume(self, ended: Ended) -> None:
        """A call that a gateway before us has written down, and whose event may not be in the log."""
        self._events.append(_Event(ended.key, ended.subject, bytes(ended.event), ended.call_id))
        self._tell()

    def record(self, purse: Purse, event: UsageRecorded) -> None:
        """A call has ended, and the purse is settled."""
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
        body = encode(envelope)
        self._daybook.add(
            Ended(
                key=purse.key.name,
                since=purse.key.created_at,
                step=purse.step,
                call_id=event.call_id,
                subject=subject,
                event=Raw(body),
            )
        )
        self._events.append(_Event(purse.key.name, subject, body, event.call_id))
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
                    self._urgent.set()
                    self._sent.clear()
                    await self._sent.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self._news.wait()
            await self._gather()
            self._news.clear()
            try:
                await self.send()
            except Unavailable as error:
                self._health.trouble("usage", "what calls used cannot be recorded: NATS does not take it")
                await self._daybook.sync()
                await asyncio.sleep(error.retry_after_s)
                self._news.set()

    async def _gather(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_GATHERED_S):
                await self._urgent.wait()
        self._urgent.clear()

    async def send(self) -> None:
        """Everything that there is to say now. A call's event goes before the progress that no longer names it: whoever
        comes after a crash in between tells the call again, under the same id. Raises Unavailable, with the rest kept."""
        while self._events or self._changed or self._ended:
            if self._events:
                await self._send_event(self._events[0])
                # Before any progress is saved that counts it.
                self._daybook.add(Sent(call_id=self._events.popleft().call_id))
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
        self._daybook.settled()
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
