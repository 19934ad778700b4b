"""Buses of a stack under test, in the name of whoever may or may not be let in."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sandreel_core.bus.credentials import Creds
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.stack import Stack
from sandreel_core.keys import Key, new_key
from sandreel_core.permissions import ADMINISTRATOR
from sandreel_core.spawner.backend import Key as Name
from sandreel_core.spawner.bootstrap import feed_of
from sandreel_core.spawner.issuer import Issuer
from tests.support.system import ORG


@asynccontextmanager
async def bus_of(stack: Stack, user: str = ADMINISTRATOR.name) -> AsyncGenerator[JetStreamBus, None]:
    """A bus in the name of one of the installation's users."""
    creds = Authority(stack.place.identity).creds_file(user)
    async with bus_as(stack, Creds.parse(creds.read_text())) as bus:
        yield bus


@asynccontextmanager
async def bus_as(stack: Stack, identity: Creds) -> AsyncGenerator[JetStreamBus, None]:
    """A bus in anybody's name."""
    url = f"nats://127.0.0.1:{stack.place.keys().nats_port}"
    bus = await JetStreamBus.connect([url], name="test", identity=identity, connect_timeout_s=20)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def recorder_of(stack: Stack, session: str) -> AsyncGenerator[JetStreamBus, None]:
    """A bus with the rights of the runnerd of the session's first boot, for a key of our own."""
    async with recorder_as(stack, ORG, session) as bus:
        yield bus


@asynccontextmanager
async def recorder_as(stack: Stack, org: str, session: str) -> AsyncGenerator[JetStreamBus, None]:
    """As `recorder_of`, in any organisation."""
    key, subjects = new_key("user"), SessionSubjects(org, session)
    installation_key = (stack.place.state / "installation.key").read_text().strip().encode()
    feed = feed_of(installation_key, Name(org, session), "1-1")
    async with bus_as(stack, Creds(issuer_of(stack).session(subjects, feed, {"nats": key.public}), key)) as bus:
        yield bus


@asynccontextmanager
async def asker_of(stack: Stack, session: str) -> AsyncGenerator[JetStreamBus, None]:
    """A bus with what a boot of the session is started with, which may ask for an identity."""
    async with bus_as(stack, Creds.parse(issuer_of(stack).bootstrap(SessionSubjects(ORG, session)))) as bus:
        yield bus


def issuer_of(stack: Stack) -> Issuer:
    """Signs runnerds, as the stack's spawner does."""
    authority = Authority(stack.place.identity)
    return Issuer(authority.account_key("SESSIONS"), Key(authority.sessions_file.read_text()), 600)
