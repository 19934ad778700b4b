"""The memory twin of the bus: for tests of whatever stands on the port, with faults on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from msgspec.structs import replace

from sandreel_core.bus.memory_parts import Fate, MemoryChannel, MemoryDelivery
from sandreel_core.bus.memory_services import MemoryServices
from sandreel_core.bus.memory_store import Feed, MemoryStreams
from sandreel_core.bus.port import (
    MAX_HANDLERS,
    CaughtUp,
    Channel,
    Delivery,
    Handler,
    Item,
    Listener,
    Missing,
    OnAck,
    Stored,
    Stream,
    StreamState,
    Work,
    check_batch,
    descended,
)
from sandreel_core.bus.wake import Signal
from sandreel_core.contract.subjects import matches
from sandreel_core.errors import Malformed, NotFound, SandreelError, TooLarge, Unavailable

MAX_PAYLOAD_BYTES = 1024 * 1024  # the NATS server's default
_BATCH = 256


class MemoryServer:
    """What several `MemoryBus` share. `crash` is a kill -9 of the server: feeds and connections are gone."""

    def __init__(self) -> None:
        self.store = MemoryStreams()
        self.services = MemoryServices()
        self.listeners: list[tuple[MemoryBus, str, Listener]] = []
        self.buses: list[MemoryBus] = []

    def crash(self) -> None:
        self.store.feeds.clear()
        for bus in self.buses:
            bus.go_away()

    def start(self) -> None:
        for bus in self.buses:
            bus.come_back()


class MemoryBus:
    """One connection to a `MemoryServer` (its own, unless one is given).

    fate       asked for every `append` and every `Channel.send` with subject and body; see `Fate`
    go_away    the connection is lost: everything raises Unavailable, readers wait, no acknowledgement comes
    come_back  it is there again, one generation later
    """

    def __init__(self, server: MemoryServer | None = None, *, max_payload: int = MAX_PAYLOAD_BYTES) -> None:
        self.server = server or MemoryServer()
        self.server.buses.append(self)
        self.fate: Callable[[str, bytes], Fate] = lambda subject, body: None
        self._max_payload = max_payload
        self._connected = True
        self._generation = 1
        self._moved = Signal()

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def max_payload(self) -> int:
        return self._max_payload

    def go_away(self) -> None:
        self._connected = False
        self._wake()

    def come_back(self) -> None:
        if not self._connected:
            self._connected = True
            self._generation += 1
        self._wake()

    async def wait_connected(self, after_generation: int = 0) -> int:
        while not (self._connected and self._generation > after_generation):
            await self._moved.wait()
        return self._generation

    async def ensure(self, streams: Sequence[Stream], works: Sequence[Work] = ()) -> None:
        store = self._store()
        for stream in streams:
            store.ensure(stream)
        for work in works:
            store.consumer(work)
        self._wake()

    async def renew_epoch(self, stream: str, epoch: str) -> None:
        found = self._store().stream(stream)
        before = found.config.metadata
        came_from = descended(before, found.last_sequence)
        found.config = replace(found.config, metadata=before | {"epoch": epoch} | came_from)

    async def append(
        self, subject: str, body: bytes, *, expected: int | None = None, message_id: str | None = None
    ) -> int:
        self._store()
        await asyncio.sleep(0)
        sequence, fate = self.put(subject, body, expected, message_id)
        if fate is not None:
            raise Unavailable(f"no acknowledgement for {subject}")
        return sequence

    def put(self, subject: str, body: bytes, expected: int | None, message_id: str | None) -> tuple[int, Fate]:
        store = self._store()
        if len(body) > self._max_payload:
            raise TooLarge(f"{len(body)} bytes are over the server's limit of {self._max_payload}")
        fate = self.fate(subject, body)
        if isinstance(fate, SandreelError):
            raise fate
        if fate == "lose":
            return 0, fate
        stream = store.stream_for(subject)
        if stream is None:
            raise Unavailable(f"no stream keeps {subject}")
        sequence = stream.append(subject, body, expected, message_id)
        store.changed.fire()
        return sequence, fate

    async def append_all(self, subject: str, bodies: Sequence[bytes], *, expected: int) -> int:
        check_batch(bodies, self._max_payload)
        self._store()
        await asyncio.sleep(0)
        store = self._store()
        fates = [self.fate(subject, body) for body in bodies]
        for fate in fates:
            if isinstance(fate, SandreelError):
                raise fate
        stream = store.stream_for(subject)
        if stream is None or "lose" in fates:
            raise Unavailable(f"no stream keeps {subject}, or it heard nothing")
        sequence = stream.append_all(subject, bodies, expected)
        store.changed.fire()
        if "lose_ack" in fates:
            raise Unavailable(f"no acknowledgement for {subject}")
        return sequence

    async def last(self, stream: str, subject: str) -> Stored | None:
        return self._store().stream(stream).last(subject)

    async def next(self, stream: str, subject: str, *, after: int = 0) -> Stored | None:
        return next(self._store().stream(stream).after(after, [subject]), None)

    async def get(self, stream: str, sequence: int) -> Stored | None:
        return self._store().stream(stream).messages.get(sequence)

    async def sequence_at(self, stream: str, time_ns: int) -> int:
        kept = self._store().stream(stream)
        later = (stored.sequence for stored in kept.messages.values() if stored.time_ns > time_ns)
        return next(later, kept.last_sequence + 1) - 1

    async def state(self, stream: str) -> StreamState:
        return self._store().stream(stream).state()

    async def subjects(self, stream: str, filter: str) -> dict[str, int]:
        return self._store().stream(stream).subjects(filter)

    async def purge(self, stream: str, subject: str, *, keep: int = 0, up_to: int | None = None) -> int:
        return self._store().stream(stream).purge(subject, keep, up_to)

    async def follow(
        self, stream: str, filters: Sequence[str], *, after: int = 0, live: bool = True
    ) -> AsyncGenerator[Item, None]:
        await self.wait_connected()
        kept = self.server.store.stream(stream)
        epoch, until, position, caught_up = kept.state().epoch, kept.last_sequence, after, False
        reached = until
        if kept.first_sequence > after + 1:
            yield Missing(after + 1, kept.first_sequence - 1)
        while True:
            await self.wait_connected()
            state = self.server.store.stream(stream).state()
            if state.epoch != epoch or state.last_sequence < reached:
                raise Malformed(f"{stream} was restored or replaced while it was read: read it from the beginning")
            reached = state.last_sequence
            batch: list[Stored] = []
            for stored in self.server.store.stream(stream).after(position, filters):
                batch.append(stored)
                if len(batch) == _BATCH or (not caught_up and stored.sequence == until):
                    break
            if batch:
                position = batch[-1].sequence
                yield batch
            if not caught_up and (not batch or position >= until):
                caught_up = True
                yield CaughtUp(max(until, after))
                if not live:
                    return
            elif not batch:
                await self._changed()

    async def work(self, work: Work) -> AsyncGenerator[Delivery, None]:
        while True:
            await self.wait_connected()
            store = self.server.store
            consumer, now = store.consumer(work), time.monotonic()
            given = consumer.take(store.stream(work.stream), now)
            if given is None:
                await self._changed(consumer.next_due_s(now))
            else:
                yield MemoryDelivery(self._store, consumer, *given)

    async def make_feed(self, stream: str, name: str, filters: Sequence[str], *, after: int) -> None:
        store = self._store()
        store.stream(stream)
        store.feeds[stream, name] = Feed(tuple(filters), after)
        store.changed.fire()

    async def drop_feed(self, stream: str, name: str) -> None:
        store = self._store()
        store.feeds.pop((stream, name), None)
        store.changed.fire()

    async def feed(self, stream: str, name: str) -> AsyncGenerator[list[Stored], None]:
        generation = await self.wait_connected()
        mine = self.server.store.feeds.get((stream, name))
        while True:
            store = self.server.store
            feed = store.feeds.get((stream, name))
            if feed is None or feed is not mine or not self._connected or self._generation != generation:
                raise NotFound(f"there is no feed {name} of {stream}")
            batch: list[Stored] = []
            for stored in store.stream(stream).after(feed.position, feed.filters):
                batch.append(stored)
                if len(batch) == _BATCH:
                    break
            if batch:
                feed.position = batch[-1].sequence
                yield batch
            else:
                await self._changed()

    @asynccontextmanager
    async def channel(self, on_ack: OnAck) -> AsyncIterator[Channel]:
        channel = MemoryChannel(self.put, lambda: self._generation if self._connected else 0, self._max_payload, on_ack)
        try:
            yield channel
        finally:
            channel.closed = True

    async def publish(self, subject: str, body: bytes) -> None:
        self._store()
        loop = asyncio.get_running_loop()
        for bus, filter, listener in self.server.listeners:
            if bus.connected and matches(filter, subject):
                loop.call_soon(listener, subject, body)

    async def request(self, subject: str, body: bytes, *, timeout_s: float = 5.0) -> bytes:
        self._store()
        return await self.server.services.request(subject, body, timeout_s=timeout_s)

    @asynccontextmanager
    async def serve(
        self, subject: str, handler: Handler, *, group: str = "", at_once: int = MAX_HANDLERS
    ) -> AsyncIterator[None]:
        async with self.server.services.serve(self, subject, handler, group=group, at_once=at_once):
            yield

    @asynccontextmanager
    async def listen(self, subject: str, listener: Listener) -> AsyncIterator[None]:
        entry = (self, subject, listener)
        self.server.listeners.append(entry)
        try:
            yield
        finally:
            self.server.listeners.remove(entry)

    async def close(self) -> None:
        self.go_away()

    def _store(self) -> MemoryStreams:
        if not self._connected:
            raise Unavailable("the memory bus is away")
        return self.server.store

    def _wake(self) -> None:
        self._moved.fire()
        self.server.store.changed.fire()

    async def _changed(self, timeout_s: float | None = None) -> None:
        await self.server.store.changed.wait(timeout_s)
