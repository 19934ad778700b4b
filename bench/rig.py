"""What every measurement stands on: a whole stack in a directory of its own, and a bare client on the same server."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from nats.aio.client import Client as Bare

from bench import bare
from sandreel_core.bus.credentials import Creds
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.client import Client, ClientSettings, ExecHandle
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.exec import Exited, Lost
from sandreel_core.contract.message import Owner
from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.stack import Stack
from sandreel_core.permissions import ADMINISTRATOR
from sandreel_core.settings import load

ORG = "bench"


class Lacking(Exception):
    """What a measurement is held against is not on this machine; says what, and how to get it."""


def scaled(name: str, scale: float) -> str:
    """A session's id by the scale of its load: letters, digits, `-` and `_`, as an id may have."""
    return name if scale == 1.0 else f"{name}-by-{scale:g}".replace(".", "_").replace("+", "")


class Rig:
    """`scale` multiplies every load, for the report of how figures move."""

    def __init__(self, stack: Stack, client: Client, raw: Bare, scale: float) -> None:
        self.stack = stack
        self.client = client
        self.bare = raw
        self.scale = scale

    def lines(self, count: int) -> int:
        return max(1000, int(count * self.scale))

    def rounds(self, count: int) -> int:
        """How often a measurement is repeated: less when each takes longer."""
        return count if self.scale <= 1 else 1

    async def session(self, name: str) -> str:
        """Its id, which says how much the loads are multiplied: `growth` measures twice."""
        name = scaled(name, self.scale)
        await self.client.create_session(ORG, name, owner=Owner(type="bench", id=name))
        return name

    async def start(self, session: str, lines: int) -> ExecHandle:
        return await self.client.exec(ORG, session, bare.chatter(lines))

    async def ended(self, handle: ExecHandle) -> tuple[int, int]:
        return await ended(self.client, handle)

    def without(self, *parts: str) -> AbstractAsyncContextManager[None]:
        return without(self.stack, *parts)

    def pid(self, part: str) -> int:
        pid = self.stack.parts[part].pid
        assert pid is not None
        return pid


async def ended(client: Client, handle: ExecHandle) -> tuple[int, int]:
    """(accepted, ended) by the server's clock, nanoseconds, without reading what is between."""
    subjects = client.subjects(ORG, handle.session)
    stream, subject = subjects.stream, subjects.exec(handle.id)
    assert handle.cursor is not None
    first = await client.bus.get(stream, handle.cursor.sequence)
    assert first is not None
    while True:
        last = await client.bus.last(stream, subject)
        if last is not None and isinstance(decode_event(subject, last.body).data, Exited | Lost):
            return first.time_ns, last.time_ns
        await asyncio.sleep(0.05)


@asynccontextmanager
async def without(stack: Stack, *parts: str) -> AsyncIterator[None]:
    """The parts are down meanwhile: a reference that has no projector is measured against none."""
    for part in parts:
        await stack.parts[part].hold()
    try:
        yield
    finally:
        for part in parts:
            stack.parts[part].release()
            await stack.parts[part].ready()


def administrator(stack: Stack) -> Path:
    """The credentials file of whoever may do everything with the streams."""
    return Authority(stack.place.identity).creds_file(ADMINISTRATOR.name)


async def bus_of(stack: Stack) -> JetStreamBus:
    """A bus in that name; to be closed."""
    settings = load(ClientSettings, environ={}, path=stack.client)
    identity = Creds.parse(administrator(stack).read_text())
    return await JetStreamBus.connect(settings.bus.nats_urls, name="bench", identity=identity)


@asynccontextmanager
async def rig(scale: float, say: Callable[[str], None]) -> AsyncIterator[Rig]:
    """Quotas are raised so that they are not what is measured."""
    environ = dict(os.environ) | {
        "SANDREEL_SPAWNER_MAX_SESSIONS": "400",
        "SANDREEL_SPAWNER_MAX_SESSIONS_PER_ORG": "400",
    }
    with tempfile.TemporaryDirectory(prefix="sandreel-bench-") as folder:
        data = Path(folder)
        data.chmod(0o711)
        async with Stack(data, environ=environ) as stack:
            say(f"stack up in {folder}")
            settings = load(ClientSettings, environ={}, path=stack.client)
            raw = await bare.connect(settings.bus.nats_urls[0], str(administrator(stack)))
            try:
                async with Client.connect(settings, actor="bench") as client:
                    yield Rig(stack, client, raw, scale)
            finally:
                await raw.close()
