"""`follow` on JetStream: a short-lived consumer without acknowledgements, made again wherever it breaks off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence

from sandreel_core.bus.jetstream_api import ask, reader_config, stream_state
from sandreel_core.bus.jetstream_connection import Connection
from sandreel_core.bus.jetstream_link import Link
from sandreel_core.bus.jetstream_pull import Batch, Gone, Pull
from sandreel_core.bus.port import CaughtUp, Item, Missing, Stored, StreamState
from sandreel_core.clock import new_token
from sandreel_core.contract.subjects import READER
from sandreel_core.errors import Malformed, NotFound, SandreelError, Unavailable
from sandreel_core.log import Log

# How long the server keeps the consumer of a reader that is gone, or that has stalled: it is then made again.
_INACTIVE_S = 5
_BATCH = 1024
# Until it is caught up a reader looks after so long whether what it waits for has been deleted meanwhile.
_LOOK_S = 0.25
_API_S = 5.0
# A server that has just started may answer from an older state (decision 0005). With the pauses between: about 2 s.
_DOUBTS = 5


class Reader:
    """One `follow`. `position` is the last sequence that was given out or is known to be nothing of ours."""

    def __init__(self, connection: Connection, stream: str, filters: Sequence[str], after: int, live: bool) -> None:
        self._connection = connection
        self._stream = stream
        self._filters = tuple(filters)
        self._after = after
        self._live = live
        self._position = after
        self._until: int | None = None
        self._epoch = ""
        # The greatest sequence that the server has told us of, and how often in a row it then told of a smaller one.
        self._reached = 0
        self._doubts = 0
        self._caught_up = False
        self._log = Log("bus.follow")

    async def items(self) -> AsyncGenerator[Item, None]:
        failures = 0
        while True:
            link = await self._connection.linked()
            name = new_token(READER) + new_token()  # 128 bits: see `permissions.FOLLOW`
            pull = Pull(link, self._stream, name, batch=_BATCH)
            try:
                missing, pending = await self._begin(link, pull, name)
                if missing is not None:
                    yield missing
                if not self._caught_up and pending == 0:
                    yield self._catch_up()
                ordinal = 0
                while self._live or not self._caught_up:
                    batch = await pull.read(None if self._caught_up else _LOOK_S)
                    failures = 0
                    if batch is None and await self._nothing_left(link, name, ordinal):
                        yield self._catch_up()
                    if batch is not None:
                        self._check(batch, ordinal)
                        ordinal = batch.last
                        for item in self._sort(batch):
                            yield item
                return
            except (Gone, Unavailable) as error:
                failures += 1
                self._log.info("reading goes on with a new consumer", stream=self._stream, why=str(error))
            finally:
                await self._end(link, pull, name)
            if failures > 1:
                await asyncio.sleep(min(2.0, 0.05 * 2**failures) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    async def _begin(self, link: Link, pull: Pull, name: str) -> tuple[Missing | None, int]:
        """What the stream has lost, and how many messages match."""
        state = stream_state(await ask(link, f"STREAM.INFO.{self._stream}", timeout_s=_API_S))
        if self._until is None:
            self._until, self._epoch = state.last_sequence, state.epoch
        self._check_history(state)
        missing = None
        if state.first_sequence > self._position + 1:
            missing = Missing(self._position + 1, state.first_sequence - 1)
            self._position = state.first_sequence - 1
        config = reader_config(name, self._filters, self._position, _INACTIVE_S)
        await pull.open()
        payload = {"stream_name": self._stream, "config": config, "action": "create"}
        made = await ask(link, f"CONSUMER.CREATE.{self._stream}.{name}", payload, timeout_s=_API_S)
        return missing, made["num_pending"]

    def _check_history(self, state: StreamState) -> None:
        """That the stream is the one whose events were given out. Raises Malformed, Unavailable while that is in doubt."""
        if state.epoch != self._epoch:
            raise Malformed(f"{self._stream} was restored or replaced while it was read: read it from the beginning")
        if state.last_sequence >= self._reached:
            self._reached, self._doubts = state.last_sequence, 0
            return
        self._doubts += 1
        said = f"{self._stream} ends at {state.last_sequence} and was read up to {self._reached}"
        if self._doubts < _DOUBTS:
            raise Unavailable(said)
        raise Malformed(f"{said}: it was restored or replaced; read it from the beginning")

    def _check(self, batch: Batch, ordinal: int) -> None:
        if batch.first != ordinal + 1 or batch.last != ordinal + len(batch.stored):
            raise Gone(f"a delivery is missing behind {ordinal}")

    def _sort(self, batch: Batch) -> list[Item]:
        """The batch without what was had already, with the marker where it belongs."""
        news, newest = batch.stored, batch.stored[-1].sequence
        if news[0].sequence <= self._position:
            news = [stored for stored in news if stored.sequence > self._position]
        self._position = max(self._position, newest)
        self._reached = max(self._reached, newest)
        until = self._until or 0
        if self._caught_up or (batch.pending and newest < until):
            return [news] if news else []
        older = [stored for stored in news if stored.sequence <= until]
        newer = news[len(older) :] if self._live else []
        items: list[Item] = [older] if older else []
        items.append(self._catch_up())
        return [*items, newer] if newer else items

    def _catch_up(self) -> CaughtUp:
        self._caught_up = True
        return CaughtUp(max(self._until or 0, self._after))

    async def _nothing_left(self, link: Link, name: str, ordinal: int) -> bool:
        try:
            info = await ask(link, f"CONSUMER.INFO.{self._stream}.{name}", timeout_s=_API_S)
        except NotFound as error:
            raise Gone("the consumer is gone") from error
        return (info["num_pending"], info["delivered"]["consumer_seq"]) == (0, ordinal)

    async def _end(self, link: Link, pull: Pull, name: str) -> None:
        """Best effort: the server forgets it by itself."""
        try:
            await pull.close()
            await link.publish(f"{link.login.api}.CONSUMER.DELETE.{self._stream}.{name}", b"")
        except SandreelError:
            return


async def read_feed(connection: Connection, stream: str, name: str) -> AsyncGenerator[list[Stored], None]:
    """Until a delivery may have been lost: raises NotFound then, because there are no acknowledgements."""
    link = await connection.linked()
    pull = Pull(link, stream, name, batch=_BATCH)
    ordinal = 0
    try:
        await pull.open()
        while True:
            batch = await pull.read()
            if batch is None:
                continue
            if (ordinal and batch.first != ordinal + 1) or batch.last - batch.first != len(batch.stored) - 1:
                raise Gone(f"a delivery is missing behind {ordinal}")
            ordinal = batch.last
            yield batch.stored
    except Gone as error:
        raise NotFound(f"the feed {name} of {stream} is gone: {error}") from error
    finally:
        await pull.close()
