"""Whoever gives out secrets, as the broker does: values by lease, sealed for the session that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec

from sandreel_core.client import Client
from sandreel_core.contract import exec as x
from sandreel_core.contract.requests import AskSecret, Secret
from sandreel_core.contract.session import Ready
from sandreel_core.embedded.stack import Stack
from sandreel_core.errors import Denied
from sandreel_core.keys import seal
from tests.support.system import bus_of


async def ready_of(client: Client, org: str, session: str) -> Ready:
    """The session's last event, which is its `session.ready`, as the log has it."""
    subjects = client.subjects(org, session)
    stored = await client.bus.last(subjects.stream, subjects.event("session"))
    assert stored is not None
    return msgspec.convert(msgspec.json.decode(stored.body)["data"], type=Ready)


@asynccontextmanager
async def lends(stack: Stack, client: Client, values: Mapping[str, str]) -> AsyncIterator[None]:
    """Serve these values, by the name of their lease."""

    async def serve(subject: str, body: bytes) -> bytes:
        ask = msgspec.json.decode(body, type=AskSecret)
        if ask.lease not in values:
            raise Denied("there is no such lease")
        _, _, org, session, _ = subject.split(".")
        key = (await ready_of(client, org, session)).public_keys["seal"]
        return msgspec.json.encode(Secret(sealed=seal(key, values[ask.lease].encode())))

    async with bus_of(stack, "broker") as bus, bus.serve("req.broker.*.*.secret", serve):
        yield


def lease(*names: str) -> dict[str, x.SecretRef]:
    """`secret_env` of an exec: each variable is named as its lease, in capitals."""
    return {name.upper(): x.SecretRef(role="broker", lease=name) for name in names}
