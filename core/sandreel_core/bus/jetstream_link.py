"""One living connection to NATS: what is sent over it, who subscribes, who awaits an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from sandreel_core.bus.credentials import Login
from sandreel_core.bus.jetstream_parser import Parser, Tap
from sandreel_core.bus.nats_py import Client, Msg, Subscription, errors
from sandreel_core.clock import new_token
from sandreel_core.errors import Denied, TooLarge, Unavailable, Unserved

T = TypeVar("T")
OnMessage = Callable[[Msg], Awaitable[None]]
Headers = dict[str, str]

NO_RESPONDERS = "503"
_LOOK_S = 0.5
_FLUSH_S = 5


class Answer(NamedTuple):
    headers: Headers
    data: bytes


class Link:
    """One living connection. `lost` is set when it is over; every answer that is still awaited then fails."""

    def __init__(self, client: Client, generation: int, login: Login) -> None:
        self.client = client
        self.login = login
        self._parser = Parser.of(client)
        self.generation = generation
        self.lost = asyncio.Event()
        # Lost because we wanted another one.
        self.given_up = False
        # Called once, when it is.
        self.on_lost: set[Callable[[], None]] = set()
        # Called with the subject, in lower case, that the server did not let us publish to.
        self.on_denial: set[Callable[[str], None]] = {self._deny}
        self._inbox = f"{login.inbox_prefix}.{new_token()}"
        self._count = 0
        self._answers: dict[str, tuple[str, asyncio.Future[Answer]]] = {}

    def new_inbox(self) -> str:
        """A subject that nobody has used; for a subscription of its own."""
        self._count += 1
        return f"{self._inbox}.i{self._count}"

    async def open(self) -> None:
        await self.tap(f"{self._inbox}.r.*", self._on_answer)

    async def subscribe(self, subject: str, on_message: OnMessage, *, group: str = "") -> Subscription:
        """Without nats-py's pending limits, which drop messages: whoever subscribes bounds what can come.
        Raises Unavailable when the link is lost."""
        # nats-py reads 0 as "no limit" in both.
        return await self._calm(
            self.client.subscribe(subject, queue=group, cb=on_message, pending_msgs_limit=0, pending_bytes_limit=0)
        )

    async def tap(self, subject: str, tap: Tap) -> Subscription:
        """As `subscribe`, for those of whom many messages come: `tap` is called as they are read, waits for nothing and
        raises nothing. Raises Unavailable when the link is lost."""

        async def on_message(message: Msg) -> None:
            tap(message.subject, message.reply, message.headers or {}, message.data)

        subscription = await self.subscribe(subject, on_message)
        if self._parser is not None:
            self._parser.taps[subscription._id] = tap
        return subscription

    async def flush(self) -> None:
        """Returns when the server has seen everything that was sent. Raises Unavailable."""
        # nats-py writes its PING past what it still holds back, and that when the PING is out: the second is behind it.
        await self._calm(self.client.flush(_FLUSH_S))
        await self._calm(self.client.flush(_FLUSH_S))

    async def unsubscribe(self, subscription: Subscription) -> None:
        if self._parser is not None:
            self._parser.taps.pop(subscription._id, None)
        if not self.lost.is_set():
            try:
                await self._calm(subscription.unsubscribe())
            except Unavailable:
                return

    async def publish(self, subject: str, body: bytes, reply: str = "", headers: Headers | None = None) -> None:
        """Raises Unavailable when the link is lost, TooLarge for a body over the server's limit."""
        if self.lost.is_set() or not self.client.is_connected:
            self.lose()
            raise Unavailable("the connection to NATS is lost")
        try:
            await self._calm(self.client.publish(subject, body, reply, headers))
        except errors.MaxPayloadError as error:
            raise TooLarge(f"{len(body)} bytes are over the server's limit of {self.client.max_payload}") from error

    async def request(self, subject: str, body: bytes, *, timeout_s: float, headers: Headers | None = None) -> Answer:
        """The first answer. Raises Unavailable (time-out, lost), Unserved (nobody there), Denied, TooLarge."""
        self._count += 1
        token = str(self._count)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[token] = (subject, answer)
        try:
            async with asyncio.timeout(timeout_s):
                await self.publish(subject, body, f"{self._inbox}.r.{token}", headers)
                said = await answer
        except TimeoutError as error:
            raise Unavailable(f"no answer on {subject} within {timeout_s:g} s") from error
        finally:
            self._answers.pop(token, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # when publishing lost the link nobody awaits what it was told
        if status(said.headers, said.data) == NO_RESPONDERS:
            raise Unserved(f"nobody serves {subject}")
        return said

    async def end(self) -> None:
        """Returns when the link is lost. Also asks the client: nats-py calls nobody back when the socket
        breaks while it writes its last bytes."""
        while not self.lost.is_set() and not self.client.is_closed:
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self.lost.wait()
            except TimeoutError:
                continue

    def lose(self) -> None:
        self.lost.set()
        for tell in tuple(self.on_lost):
            tell()
        for _, answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unavailable("the connection to NATS was lost"))

    def _deny(self, denied: str) -> None:
        for subject, answer in self._answers.values():
            if subject.lower() == denied and not answer.done():
                answer.set_exception(Denied(f"this user may not publish to {subject[:200]}"))

    def _on_answer(self, subject: str, reply: str, headers: Headers, body: bytes) -> None:
        _, answer = self._answers.get(subject.rpartition(".")[2], ("", None))
        if answer is not None and not answer.done():
            answer.set_result(Answer(headers, body))

    async def _calm(self, call: Awaitable[T]) -> T:
        """Await a call of nats-py, which swallows a cancellation while it flushes: raise it again."""
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        try:
            result = await call
        except (errors.MaxPayloadError, asyncio.CancelledError):
            raise
        except (OSError, errors.Error) as error:
            raise Unavailable(f"the connection to NATS is lost ({type(error).__name__})") from error
        if task and task.cancelling() > before:
            raise asyncio.CancelledError
        return result


def status(headers: Headers, body: bytes) -> str:
    """The status of a message that the server itself sent, "" for any other."""
    return headers.get("Status", "") if not body else ""
