"""A bounded pull loop over one consumer on one link: what is asked for at any moment bounds what can come."""

from __future__ import annotations

import asyncio

import msgspec
from msgspec import Struct

from sandreel_core.bus.jetstream_api import NS
from sandreel_core.bus.jetstream_link import Headers, Link, status
from sandreel_core.bus.nats_py import Subscription
from sandreel_core.bus.port import Stored
from sandreel_core.contract.subjects import JETSTREAM
from sandreel_core.errors import Unavailable

# A request lapses after this and is made again; the server says every _HEARTBEAT_S that it still has it.
_EXPIRES_S = 30
_HEARTBEAT_S = 5
# At most two requests' worth is outstanding. Requests share their deliveries, so that parts of up to four may be
# open: 4 × 4 MiB = 16 MiB is the most that a caller who stalls can hold (measurements.md).
_MAX_BYTES = 4 * 1024 * 1024


class Gone(Exception):
    """The consumer, or the way to it, is gone. Stays inside these rooms."""


class Pulled(Struct, frozen=True, gc=False):
    """One delivery. `ordinal` counts the consumer's deliveries from 1, `pending` is what matches behind it."""

    stored: Stored
    reply: str
    attempts: int
    ordinal: int
    pending: int


class Batch(Struct, frozen=True, gc=False):
    """Deliveries to one who acknowledges none. `first` and `last` are the consumer's ordinals at its ends, `pending` is what
    matches behind it."""

    stored: list[Stored]
    first: int
    last: int
    pending: int


class Pull:
    """`open`, then `take` or `read` again and again, then `close`."""

    def __init__(self, link: Link, stream: str, consumer: str, *, batch: int) -> None:
        self._link = link
        self._subject = link.login.pull(stream, consumer)
        self._is_imported = not self._subject.startswith(f"{JETSTREAM}.")
        self._inbox = link.new_inbox()
        self._batch = batch
        self._max_bytes = max(_MAX_BYTES, 2 * link.client.max_payload)
        self._outstanding = 0
        self._asked = 0
        self._ready: list[tuple[str, str, bytes]] = []
        self._gone = ""
        self._stir = asyncio.Event()
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        """Raises Unavailable."""
        self._link.on_lost.add(self._stir.set)
        self._subscription = await self._link.tap(f"{self._inbox}.*", self._on_message)

    async def close(self) -> None:
        self._link.on_lost.discard(self._stir.set)
        if self._subscription is not None:
            await self._link.unsubscribe(self._subscription)

    def rest(self) -> list[Pulled]:
        """What has come and was not taken."""
        ready, self._ready = self._ready, []
        return [_pulled(*each) for each in ready]

    async def take(self, patience_s: float | None = None) -> list[Pulled]:
        """What has come, at least one; after `patience_s` (None: for ever) an empty list.

        Raises Gone when the consumer or the connection is.
        """
        return self.rest() if await self._has_come(patience_s) else []

    async def read(self, patience_s: float | None = None) -> Batch | None:
        """As `take`, for those who read much: of each delivery no more is worked out than they need."""
        if not await self._has_come(patience_s):
            return None
        ready, self._ready = self._ready, []
        first, last = _pulled(*ready[0]), _pulled(*ready[-1])
        return Batch([_stored(*each) for each in ready], first.ordinal, last.ordinal, last.pending)

    async def _has_come(self, patience_s: float | None) -> bool:
        while not self._ready:
            if self._gone:
                raise Gone(self._gone)
            if self._link.lost.is_set():
                raise Gone("connection lost")
            try:
                await self._ask()
            except Unavailable as error:
                raise Gone("connection lost") from error
            if not await self._stirred(patience_s):
                return False
        return True

    async def _ask(self) -> None:
        while self._outstanding <= self._batch:
            self._outstanding += self._batch
            self._asked += 1
            request = {
                "batch": self._batch,
                "max_bytes": self._max_bytes,
                "expires": _EXPIRES_S * NS,
                "idle_heartbeat": _HEARTBEAT_S * NS,
            }
            await self._link.publish(self._subject, msgspec.json.encode(request), f"{self._inbox}.{self._asked}")

    async def _stirred(self, patience_s: float | None) -> bool:
        """Whether anything came in time. Raises Gone when the server is silent for three of its heartbeats."""
        if self._ready or self._gone:
            return True
        self._stir.clear()
        limit_s = 3.0 * _HEARTBEAT_S
        try:
            async with asyncio.timeout(limit_s if patience_s is None else min(limit_s, patience_s)):
                await self._stir.wait()
        except TimeoutError:
            if patience_s is None or patience_s >= limit_s:
                raise Gone("no heartbeat") from None
            return False
        return True

    def _on_message(self, subject: str, reply: str, headers: Headers, body: bytes) -> None:
        if self._gone:
            return  # what comes now has a hole before it
        code = status(headers, body)
        if not code or reply:
            self._outstanding -= 1
            self._ready.append((subject, reply, body))
            if self._is_imported and not body and not headers:
                # To the server an empty answer of an imported service is its last: what the consumer sends behind it is lost.
                self._gone = "an empty message has ended the request"
        elif code != "100":
            if "Nats-Pending-Messages" in headers:
                self._outstanding -= int(headers["Nats-Pending-Messages"])
            else:
                self._gone = f"{code} {headers.get('Description', '')}".strip()
        self._stir.set()


def _pulled(subject: str, reply: str, body: bytes) -> Pulled:
    # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<attempts>.<sequence>.<ordinal>.<time>.<pending>[.<random>]
    tokens = reply.split(".")
    at = 4 if len(tokens) == 9 else 6
    attempts, sequence, ordinal, time_ns, pending = map(int, tokens[at : at + 5])
    return Pulled(Stored(subject, sequence, body, time_ns), reply, attempts, ordinal, pending)


def _stored(subject: str, reply: str, body: bytes) -> Stored:
    """See `_pulled`."""
    tokens = reply.split(".")
    if len(tokens) == 9:
        return Stored(subject, int(tokens[5]), body, int(tokens[7]))
    return Stored(subject, int(tokens[7]), body, int(tokens[9]))
