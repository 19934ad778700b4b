"""A NATS server in operator mode with two organisations on it, and anybody's connection, raw, to try tricks from.

town   LOG's streams exist; sessions `acme/s1` and `acme/s2` and `umbra/s9` have feeds with a command each
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from sandreel_core import jwt
from sandreel_core import permissions as p
from sandreel_core.bus.credentials import Creds
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.clock import new_id
from sandreel_core.contract.subjects import CMD, SessionSubjects
from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.errors import Denied
from sandreel_core.keys import Key, new_key
from sandreel_core.spawner.backend import Key as Name
from sandreel_core.spawner.bootstrap import feed_of
from sandreel_core.spawner.issuer import Issuer

ONE, TWO, NINE = Name("acme", "s1"), Name("acme", "s2"), Name("umbra", "s9")
LIMIT_S = 20.0
KEY = b"the key of the installation, 32 b"


@dataclass
class Raw:
    """One connection, with what the server has denied it and what has arrived in its inbox."""

    client: Client
    inbox: str
    denied: list[str] = field(default_factory=list)
    heard: list[Msg] = field(default_factory=list)

    async def publish(self, subject: str, body: bytes = b"{}", reply: str = "") -> bool:
        """Whether the server let it. `reply` "": none."""
        before = len(self.denied)
        await self.client.publish(subject, body, reply)
        await self.flush()
        return len(self.denied) == before

    async def subscribe(self, subject: str) -> bool:
        """Whether the server let it."""
        before = len(self.denied)
        with suppress(nats.errors.Error):
            await self.client.subscribe(subject, cb=self._hear)
        await self.flush()
        return len(self.denied) == before

    async def ask(self, subject: str, body: bytes = b"{}", *, within_s: float = LIMIT_S) -> Msg:
        """The first answer, in its own inbox."""
        reply = f"{self.inbox}.{new_id()}"
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        async def hear(message: Msg) -> None:
            if not answer.done():
                answer.set_result(message)

        await self.client.subscribe(reply, cb=hear)
        await self.client.publish(subject, body, reply)
        async with asyncio.timeout(within_s):
            return await answer

    async def flush(self) -> None:
        """Returns when the server has seen everything, and we what it said."""
        # nats-py writes its PING past what it still holds back: the second is behind it.
        await self.client.flush()
        await self.client.flush()

    async def closed(self) -> None:
        """Returns when the server has ended the connection."""
        async with asyncio.timeout(LIMIT_S):
            while self.client.is_connected:
                await asyncio.sleep(0.05)

    async def _hear(self, message: Msg) -> None:
        self.heard.append(message)


@dataclass
class Town:
    server: NatsServer
    authority: Authority
    issuer: Issuer
    log: JetStreamBus
    exit: AsyncExitStack

    async def connect(self, creds: str) -> Raw:
        """Whoever these credentials are."""
        token, seed = jwt.parse_creds(creds)
        login = Creds(token, Key(seed))
        denied: list[str] = []

        async def failed(error: Exception) -> None:
            denied.append(str(error))

        client = await nats.connect(
            self.server.url, allow_reconnect=False, max_reconnect_attempts=1, error_cb=failed, **login.options()
        )
        self.exit.push_async_callback(client.close)
        return Raw(client, login.inbox_prefix, denied)

    async def refuses(self, creds: str) -> bool:
        """Whether the server does not take these credentials."""
        try:
            bus = await JetStreamBus.connect(
                [self.server.url], name="t", identity=Creds.parse(creds), connect_timeout_s=LIMIT_S
            )
        except Denied:
            return True
        await bus.close()
        return False

    async def bus(self, user: str) -> JetStreamBus:
        """A bus of one of the installation's users."""
        bus = await JetStreamBus.connect(
            [self.server.url],
            name=f"test-{user}",
            identity=Creds.parse(self.authority.creds_file(user).read_text()),
            connect_timeout_s=LIMIT_S,
        )
        self.exit.push_async_callback(bus.close)
        return bus

    def creds(self, user: p.User, **names: str) -> str:
        """Fresh credentials of that kind."""
        key = new_key("user")
        return jwt.creds(self.authority.issue(user.at(key=key.public, **names), key), key.seed)

    def session_creds(self, name: Name, *, lasts_s: float = 3600) -> str:
        """What the runnerd of the session's first boot has in hand, once it has its identity."""
        key = new_key("user")
        issuer = Issuer(self.issuer.account, self.issuer.key, lasts_s)
        token = issuer.session(SessionSubjects(*name), feed_of(KEY, name, "1-1"), {"nats": key.public})
        return jwt.creds(token, key.seed)

    async def session(self, name: Name) -> Raw:
        return await self.connect(self.session_creds(name))

    async def bus_of_session(self, name: Name) -> JetStreamBus:
        """The bus of such a runnerd."""
        identity = Creds.parse(self.session_creds(name))
        bus = await JetStreamBus.connect([self.server.url], name="t", identity=identity, connect_timeout_s=LIMIT_S)
        self.exit.push_async_callback(bus.close)
        return bus

    async def stored(self, stream: str = "REEL-0") -> dict[str, int]:
        """Every subject of the stream, with how many messages it has."""
        return await self.log.subjects(stream, ">")


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    data = Path(tempfile.mkdtemp(prefix="sandreel-town-"))
    data.chmod(0o711)
    try:
        authority = Authority(data / "identity")
        async with NatsServer(data / "nats", authority=authority) as server, AsyncExitStack() as exit:
            issuer = Issuer(authority.account_key("SESSIONS"), Key(authority.sessions_file.read_text()), 3600)
            identity = Creds.parse(authority.creds_file("administrator").read_text())
            log = await JetStreamBus.connect([server.url], name="log", identity=identity, connect_timeout_s=LIMIT_S)
            exit.push_async_callback(log.close)
            await ensure_installation(log)
            for name in (ONE, TWO, NINE):
                subjects = SessionSubjects(*name)
                await log.append(subjects.command("runnerd", new_id()), str(name).encode())
                await log.make_feed(CMD, feed_of(KEY, name, "1-1"), [subjects.commands("runnerd")], after=0)
                await log.append(subjects.exec("theirs"), b"an event of it")
            yield Town(server, authority, issuer, log, exit)
    finally:
        shutil.rmtree(data)


def pull(batch: int = 10) -> bytes:
    """A request to a consumer."""
    body: dict[str, Any] = {"batch": batch, "expires": 1_000_000_000}
    return msgspec.json.encode(body)
