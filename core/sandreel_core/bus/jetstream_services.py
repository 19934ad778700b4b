"""What a JetStream bus serves and listens to: subscriptions that outlive their connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from nats.aio.msg import Msg

from sandreel_core.bus import failure
from sandreel_core.bus.crew import Crew
from sandreel_core.bus.jetstream_connection import Connection
from sandreel_core.bus.jetstream_link import OnMessage
from sandreel_core.bus.port import Handler, Listener
from sandreel_core.contract.subjects import matches
from sandreel_core.errors import TooLarge, Unavailable
from sandreel_core.log import Log

# Requests that wait for a free handler; beyond it they are dropped and time out at whoever asked.
_MAX_WAITING = 1024


class JetStreamServices:
    """See `port.Bus.serve` and `listen`. The first subscription is awaited for `timeout_s` at most; raises Unavailable after it."""

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._log = Log("bus")

    @asynccontextmanager
    async def serve(self, subject: str, handler: Handler, group: str, at_once: int) -> AsyncIterator[None]:
        slots = asyncio.Semaphore(at_once)
        async with Crew() as crew:

            async def on_message(message: Msg) -> None:
                # What a stream delivers bears the subject that it was stored on. It comes here when somebody names ours as
                # the place for what he pulls: nobody has asked, and the body is whatever he had stored.
                if message.reply and matches(subject, message.subject) and len(crew) < _MAX_WAITING:
                    crew.start(self._answer(message, handler, slots))

            async with self._subscribed(subject, on_message, group):
                yield

    @asynccontextmanager
    async def listen(self, subject: str, listener: Listener) -> AsyncIterator[None]:
        async def on_message(message: Msg) -> None:
            listener(message.subject, message.data)

        async with self._subscribed(subject, on_message, ""):
            yield

    async def _answer(self, message: Msg, handler: Handler, slots: asyncio.Semaphore) -> None:
        async with slots:
            said = await failure.answer(handler, message.subject, message.data, self._log)
        with suppress(Unavailable):  # whoever asked has its own time-out
            link = self._connection.link
            if link is None:
                return
            try:
                await link.publish(message.reply, said)
            except TooLarge as error:
                self._log.error("an answer is too large", subject=message.subject, problem=str(error))
                await link.publish(message.reply, failure.encode_failure(error))

    @asynccontextmanager
    async def _subscribed(self, subject: str, on_message: OnMessage, group: str) -> AsyncIterator[None]:
        """Subscribed on this link, and on every one that follows."""
        link = await self._connection.linked_within(self._timeout_s)
        subscription = await link.subscribe(subject, on_message, group=group)
        try:
            await link.flush()
        except BaseException:
            # Whoever tries again must not be called twice.
            await link.unsubscribe(subscription)
            raise

        async def keep() -> None:
            nonlocal link, subscription
            while True:
                link = await self._connection.linked(link.generation)
                with suppress(Unavailable):
                    subscription = await link.subscribe(subject, on_message, group=group)

        async with Crew() as crew:
            crew.start(keep())
            try:
                yield
            finally:
                await link.unsubscribe(subscription)
