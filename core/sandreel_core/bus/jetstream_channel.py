"""Pipelined publishing on JetStream: one inbox for all acknowledgements, no future per message."""

from __future__ import annotations

from sandreel_core.bus.jetstream_append import parse_ack
from sandreel_core.bus.jetstream_connection import Connection
from sandreel_core.bus.jetstream_link import Headers, Link, status
from sandreel_core.bus.nats_py import Subscription
from sandreel_core.bus.port import OnAck
from sandreel_core.errors import Denied, TooLarge, Unavailable

# Messages whose subject is remembered, for the server names only the subject when it denies one. A sender's
# window is far smaller; what was never answered falls out at the old end.
_REMEMBERED = 4096


class JetStreamChannel:
    """Follows the connection: the first `send` on a new link subscribes anew."""

    def __init__(self, connection: Connection, on_ack: OnAck) -> None:
        self._connection = connection
        self._on_ack = on_ack
        self._link: Link | None = None
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._sent: dict[int, str] = {}

    async def send(self, subject: str, body: bytes, token: int) -> None:
        if len(body) > self._connection.max_payload:
            raise TooLarge(f"{len(body)} bytes are over the server's limit of {self._connection.max_payload}")
        link = self._connection.link
        if link is None:
            raise Unavailable("the connection to NATS is lost")
        if link is not self._link:
            await self._move(link)
        self._sent.pop(token, None)
        self._sent[token] = subject
        if len(self._sent) > _REMEMBERED:
            del self._sent[next(iter(self._sent))]
        await link.publish(subject, body, f"{self._inbox}.{token}")

    async def close(self) -> None:
        if self._link is not None:
            self._link.on_denial.discard(self._on_denial)
            if self._subscription is not None:
                await self._link.unsubscribe(self._subscription)

    async def _move(self, link: Link) -> None:
        # Before anything is awaited: the subscription is on its way before any message of another task.
        self._link, self._inbox = link, link.new_inbox()
        self._sent.clear()
        link.on_denial.add(self._on_denial)

        def on_message(subject: str, reply: str, headers: Headers, body: bytes) -> None:
            if self._link is link:
                self._hear(int(subject.rpartition(".")[2]), headers, body)

        self._subscription = await link.tap(f"{self._inbox}.*", on_message)

    def _hear(self, token: int, headers: Headers, body: bytes) -> None:
        subject = self._sent.pop(token, "")
        if status(headers, body):
            self._on_ack(token, Unavailable(f"no stream keeps {subject}, or none can now"))
        else:
            self._on_ack(token, parse_ack(body, subject))

    def _on_denial(self, denied: str) -> None:
        for token in [token for token, subject in self._sent.items() if subject.lower() == denied]:
            del self._sent[token]
            self._on_ack(token, Denied(f"this user may not publish to {denied[:200]}"))
