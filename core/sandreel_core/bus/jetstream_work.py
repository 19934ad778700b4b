"""Deliveries of a durable consumer on JetStream."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator

import msgspec

from sandreel_core.bus.jetstream_api import NS, ensure_work
from sandreel_core.bus.jetstream_connection import Connection
from sandreel_core.bus.jetstream_pull import Gone, Pull, Pulled
from sandreel_core.bus.port import Delivery, Stored, Work
from sandreel_core.errors import Misconfigured, NotFound, Unavailable
from sandreel_core.log import Log

# What one process takes beforehand: little, because its time to acknowledge runs already.
_BATCH = 8
_API_S = 5.0


class JetStreamDelivery:
    """Acknowledged over whatever connection there is."""

    def __init__(self, connection: Connection, pulled: Pulled) -> None:
        self._connection = connection
        self._reply = pulled.reply
        self.stored: Stored = pulled.stored
        self.attempts = pulled.attempts

    async def ack(self) -> None:
        await self._say(b"+ACK")

    async def nak(self, delay_s: float) -> None:
        await self._say(b"-NAK " + msgspec.json.encode({"delay": int(delay_s * NS)}))

    async def term(self) -> None:
        await self._say(b"+TERM")

    async def _say(self, word: bytes) -> None:
        link = self._connection.link
        if link is None:
            raise Unavailable("the connection to NATS is lost")
        await link.publish(self._reply, word)


async def deliveries(connection: Connection, work: Work) -> AsyncGenerator[Delivery, None]:
    """For ever. Raises NotFound when there is no such stream."""
    log = Log("bus.work")
    failures = 0
    while True:
        link = await connection.linked()
        pull = Pull(link, work.stream, work.name, batch=_BATCH)
        rest: list[Pulled] = []
        try:
            await pull.open()
            while True:
                rest = (await pull.take())[::-1]
                failures = 0
                while rest:
                    yield JetStreamDelivery(connection, rest.pop())
        except Gone as error:
            log.info("work goes on with a new request", work=work.name, why=str(error))
            failures += 1
        except Unavailable:
            failures += 1
        finally:
            await pull.close()
            await _give_back(connection, rest + pull.rest())
        if not link.lost.is_set():
            try:
                await ensure_work(link, work, _API_S)
            except (Unavailable, Misconfigured) as error:
                log.warning("a consumer cannot be made", work=work.name, problem=str(error))
        if failures > 1:
            await asyncio.sleep(min(2.0, 0.05 * 2**failures) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter


async def _give_back(connection: Connection, rest: list[Pulled]) -> None:
    """So that somebody else has them at once and not when their time is over."""
    for pulled in rest:
        try:
            await JetStreamDelivery(connection, pulled).nak(0)
        except (Unavailable, NotFound):
            return
