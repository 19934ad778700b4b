"""The bus on NATS JetStream. Of all the code only files `jetstream*.py` know nats-py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import Any

from sandreel_core.bus import jetstream_api as api
from sandreel_core.bus import jetstream_append as appending
from sandreel_core.bus import jetstream_snapshot as snapshot
from sandreel_core.bus.credentials import Identity, Password
from sandreel_core.bus.failure import check_answer
from sandreel_core.bus.jetstream_channel import JetStreamChannel
from sandreel_core.bus.jetstream_connection import Connection
from sandreel_core.bus.jetstream_follow import Reader, read_feed
from sandreel_core.bus.jetstream_link import Link
from sandreel_core.bus.jetstream_services import JetStreamServices
from sandreel_core.bus.jetstream_work import deliveries
from sandreel_core.bus.measures import BusMeasures
from sandreel_core.bus.port import (
    MAX_HANDLERS,
    Channel,
    Delivery,
    Handler,
    Item,
    Listener,
    OnAck,
    Stored,
    Stream,
    StreamState,
    Work,
    check_batch,
    descended,
)
from sandreel_core.errors import NotFound, SandreelError, Unavailable
from sandreel_core.metrics import Metrics

# How long a call waits for the connection and the server together.
TIMEOUT_S = 5.0
_CANCEL_S = 0.1
# Batches that one process sends at a time: the server gives up a batch when it has 50 of a stream under way.
_MAX_BATCHES = 8
# A feed without a reader is forgotten after this (port.py: an hour).
_FEED_S = 3600


class JetStreamBus:
    """See `port.Bus` for every promise. Make it with `connect`, end it with `close`."""

    def __init__(self, connection: Connection, metrics: Metrics | None = None) -> None:
        self._connection = connection
        self._measures = BusMeasures(metrics or Metrics())
        self._measures.watch(self)
        self._task = asyncio.ensure_future(connection.run())
        self._batches = asyncio.Semaphore(_MAX_BATCHES)
        self._services = JetStreamServices(connection, TIMEOUT_S)

    @classmethod
    async def connect(
        cls,
        urls: Sequence[str],
        *,
        name: str,
        identity: Identity | None = None,
        user: str | None = None,
        password: str | None = None,
        connect_timeout_s: float | None = None,
        metrics: Metrics | None = None,
    ) -> JetStreamBus:
        """Connected. Without `connect_timeout_s` waits for ever; with it raises Unavailable after that, and Denied
        as soon as a server refuses `identity` (else user and password). What is measured of it counts in `metrics`."""
        bus = cls(Connection(urls, name=name, identity=identity or Password(user, password)), metrics)
        try:
            await bus._connection.first_link(connect_timeout_s)
        except BaseException:
            await bus.close()
            raise
        return bus

    @property
    def connected(self) -> bool:
        return self._connection.link is not None

    @property
    def generation(self) -> int:
        return self._connection.generation

    @property
    def max_payload(self) -> int:
        return self._connection.max_payload

    def renew(self) -> None:
        """Connect anew, with the login that the identity gives now: the end of one generation."""
        self._connection.renew()

    async def wait_connected(self, after_generation: int = 0) -> int:
        return (await self._connection.linked(after_generation)).generation

    async def ensure(self, streams: Sequence[Stream], works: Sequence[Work] = ()) -> None:
        for stream in streams:
            await api.ensure_stream(await self._link(), stream, TIMEOUT_S)
        for work in works:
            await api.ensure_work(await self._link(), work, TIMEOUT_S)

    async def renew_epoch(self, stream: str, epoch: str) -> None:
        found = await api.ask(await self._link(), f"STREAM.INFO.{stream}", timeout_s=TIMEOUT_S)
        metadata = found["config"].get("metadata") or {}
        await self.annotate(stream, {"epoch": epoch} | descended(metadata, found["state"]["last_seq"]))

    async def annotate(self, stream: str, metadata: dict[str, str]) -> None:
        """Write these into the stream's metadata, beside what is there. Raises NotFound, Denied, Unavailable."""
        link = await self._link()
        config = (await api.ask(link, f"STREAM.INFO.{stream}", timeout_s=TIMEOUT_S))["config"]
        changed = config | {"metadata": (config.get("metadata") or {}) | metadata}
        await api.ask(link, f"STREAM.UPDATE.{stream}", changed, timeout_s=TIMEOUT_S)

    async def append(
        self, subject: str, body: bytes, *, expected: int | None = None, message_id: str | None = None
    ) -> int:
        return await self._measured(lambda link: appending.append(link, subject, body, expected, message_id, TIMEOUT_S))

    async def append_all(self, subject: str, bodies: Sequence[bytes], *, expected: int) -> int:
        if len(bodies) == 1:
            return await self.append(subject, bodies[0], expected=expected)
        check_batch(bodies, self.max_payload)
        async with self._batches:
            return await self._measured(lambda link: appending.append_all(link, subject, bodies, expected, TIMEOUT_S))

    async def last(self, stream: str, subject: str) -> Stored | None:
        return await api.message(await self._link(), stream, {"last_by_subj": subject}, TIMEOUT_S)

    async def next(self, stream: str, subject: str, *, after: int = 0) -> Stored | None:
        request = {"seq": after + 1, "next_by_subj": subject}
        return await api.message(await self._link(), stream, request, TIMEOUT_S)

    async def get(self, stream: str, sequence: int) -> Stored | None:
        return await api.message(await self._link(), stream, {"seq": sequence}, TIMEOUT_S)

    async def sequence_at(self, stream: str, time_ns: int) -> int:
        return await api.sequence_at(await self._link(), stream, time_ns, TIMEOUT_S)

    async def state(self, stream: str) -> StreamState:
        return api.stream_state(await api.ask(await self._link(), f"STREAM.INFO.{stream}", timeout_s=TIMEOUT_S))

    async def subjects(self, stream: str, filter: str) -> dict[str, int]:
        return await api.subjects(await self._link(), stream, filter, TIMEOUT_S)

    async def purge(self, stream: str, subject: str, *, keep: int = 0, up_to: int | None = None) -> int:
        request: dict[str, str | int] = {"filter": subject}
        if up_to is not None:
            request["seq"] = up_to
        elif keep:
            request["keep"] = keep
        answer = await api.ask(await self._link(), f"STREAM.PURGE.{stream}", request, timeout_s=TIMEOUT_S)
        return int(answer["purged"])

    def follow(
        self, stream: str, filters: Sequence[str], *, after: int = 0, live: bool = True
    ) -> AsyncGenerator[Item, None]:
        return Reader(self._connection, stream, filters, after, live).items()

    def work(self, work: Work) -> AsyncGenerator[Delivery, None]:
        return deliveries(self._connection, work)

    async def make_feed(self, stream: str, name: str, filters: Sequence[str], *, after: int) -> None:
        link = await self._link()
        with suppress(NotFound):
            await api.ask(link, f"CONSUMER.DELETE.{stream}.{name}", timeout_s=TIMEOUT_S)
        config = api.reader_config(name, tuple(filters), after, _FEED_S)
        payload = {"stream_name": stream, "config": config, "action": "create"}
        await api.ask(link, f"CONSUMER.CREATE.{stream}.{name}", payload, timeout_s=TIMEOUT_S)

    async def drop_feed(self, stream: str, name: str) -> None:
        with suppress(NotFound):
            await api.ask(await self._link(), f"CONSUMER.DELETE.{stream}.{name}", timeout_s=TIMEOUT_S)

    def feed(self, stream: str, name: str) -> AsyncGenerator[list[Stored], None]:
        return read_feed(self._connection, stream, name)

    @asynccontextmanager
    async def channel(self, on_ack: OnAck) -> AsyncIterator[Channel]:
        channel = JetStreamChannel(self._connection, on_ack)
        try:
            yield channel
        finally:
            await channel.close()

    async def publish(self, subject: str, body: bytes) -> None:
        link = self._connection.link
        if link is None:
            raise Unavailable("the connection to NATS is lost")
        await link.publish(subject, body)

    async def request(self, subject: str, body: bytes, *, timeout_s: float = 5.0) -> bytes:
        link = await self._connection.linked_within(timeout_s)
        return check_answer((await link.request(subject, body, timeout_s=timeout_s)).data)

    async def raw_request(self, subject: str, body: bytes, *, timeout_s: float) -> bytes:
        """The first answer, as it is. Raises NotFound, Unavailable, Denied."""
        link = await self._connection.linked_within(timeout_s)
        return (await link.request(subject, body, timeout_s=timeout_s)).data

    def serve(
        self, subject: str, handler: Handler, *, group: str = "", at_once: int = MAX_HANDLERS
    ) -> AbstractAsyncContextManager[None]:
        return self._services.serve(subject, handler, group, at_once)

    def listen(self, subject: str, listener: Listener) -> AbstractAsyncContextManager[None]:
        return self._services.listen(subject, listener)

    # Copies of whole streams: of JetStream alone, for `sandreel_core.backup`.

    async def stream_names(self) -> list[str]:
        """Every stream of the account. Raises Denied, Unavailable."""
        return await snapshot.names(await self._link(), TIMEOUT_S)

    async def take_copy(self, stream: str, head: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """See `jetstream_snapshot.take`."""
        async with aclosing(snapshot.take(await self._link(), stream, head)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def put_copy(self, stream: str, head: dict[str, Any], chunks: AsyncIterable[bytes]) -> None:
        """See `jetstream_snapshot.put`."""
        await snapshot.put(await self._link(), stream, head, chunks)

    async def drop_stream(self, stream: str) -> None:
        """Delete it with all that it holds. Raises NotFound, Denied, Unavailable."""
        await snapshot.drop(await self._link(), stream, TIMEOUT_S)

    async def readers(self, stream: str) -> list[str]:
        """The consumers on which somebody waits at this moment. Raises NotFound, Denied, Unavailable."""
        return await snapshot.readers(await self._link(), stream, TIMEOUT_S)

    async def close(self) -> None:
        # More than once: nats-py swallows a cancellation here and there while it connects or closes.
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_CANCEL_S)
        if not self._task.cancelled():
            self._task.result()

    async def _measured(self, append: Callable[[Link], Awaitable[int]]) -> int:
        try:
            link = await self._link()
            began = time.monotonic()
            sequence = await append(link)
        except SandreelError as error:
            self._measures.failed(error)
            raise
        self._measures.stored(time.monotonic() - began)
        return sequence

    async def _link(self) -> Link:
        return await self._connection.linked_within(TIMEOUT_S)
