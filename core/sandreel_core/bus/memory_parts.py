"""What the memory twin hands out: channels and deliveries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal

from sandreel_core.bus.memory_store import Consumer, MemoryStreams
from sandreel_core.bus.port import OnAck, Stored
from sandreel_core.errors import SandreelError, TooLarge, Unavailable

# What becomes of one published message: stored and acknowledged (None), never stored, stored without an
# acknowledgement, or refused with this error.
Fate = Literal["lose", "lose_ack"] | SandreelError | None

Put = Callable[[str, bytes, int | None, str | None], tuple[int, Fate]]


class MemoryChannel:
    """Acknowledgements come in the order of the sends, in a later turn of the loop."""

    def __init__(self, put: Put, generation: Callable[[], int], max_payload: int, on_ack: OnAck) -> None:
        self._put = put
        self._generation = generation
        self._max_payload = max_payload
        self._on_ack = on_ack
        self.closed = False

    async def send(self, subject: str, body: bytes, token: int) -> None:
        if len(body) > self._max_payload:
            raise TooLarge(f"{len(body)} bytes are over the server's limit of {self._max_payload}")
        if not self._generation():
            raise Unavailable("the memory bus is away")
        answer: int | SandreelError
        try:
            answer, fate = self._put(subject, body, None, None)
        except SandreelError as error:
            answer, fate = error, None
        if fate is None:
            asyncio.get_running_loop().call_soon(self._answer, self._generation(), token, answer)
        await asyncio.sleep(0)

    def _answer(self, generation: int, token: int, answer: int | SandreelError) -> None:
        if self._generation() == generation and not self.closed:
            self._on_ack(token, answer)


class MemoryDelivery:
    """A delivery of the memory twin."""

    def __init__(self, store: Callable[[], MemoryStreams], consumer: Consumer, stored: Stored, attempts: int) -> None:
        self._store = store
        self._consumer = consumer
        self.stored = stored
        self.attempts = attempts

    async def ack(self) -> None:
        self._settle()

    async def nak(self, delay_s: float) -> None:
        store = self._store()
        self._consumer.again(self.stored.sequence, time.monotonic() + delay_s)
        store.changed.fire()

    async def term(self) -> None:
        self._settle()

    def _settle(self) -> None:
        store = self._store()
        self._consumer.done(self.stored.sequence)
        store.changed.fire()
