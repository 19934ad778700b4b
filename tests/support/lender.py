"""Who gives out secrets: values that the broker keeps, or somebody in its place who has them at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec

from sandreel_core.client import Client
from sandreel_core.contract import exec as x
from sandreel_core.contract.credential import Grant
from sandreel_core.contract.secret import AskSecret, Secret
from sandreel_core.contract.session import Ready
from sandreel_core.embedded.stack import Stack
from sandreel_core.errors import Denied
from sandreel_core.keys import seal
from tests.support.credentials import sandreel
from tests.support.system import ORG, Site
from tests.support.system_users import bus_of


async def ready_of(client: Client, org: str, session: str) -> Ready:
    """The session's last event, which is its `session.ready`, as the log has it."""
    subjects = client.subjects(org, session)
    stored = await client.bus.last(subjects.stream, subjects.event("session"))
    assert stored is not None
    return msgspec.convert(msgspec.json.decode(stored.body)["data"], type=Ready)


async def grant(site: Site, session: str, values: Mapping[str, str]) -> str:
    """Put them into the broker's vault by the command line, by slug, and grant them to the session; what it printed."""
    said = ""
    for slug, value in values.items():
        said += await sandreel(site, "put", slug, "--recipe", "generic", value=value)
        await site.client.send(ORG, session, Grant(slug=slug, purpose="a test"))
    return said


@asynccontextmanager
async def lends(stack: Stack, client: Client, values: Mapping[str, str]) -> AsyncIterator[None]:
    """Serve these values by the name of their lease, in the place of the stack's own broker, which is held down meanwhile."""

    async def serve(subject: str, body: bytes) -> bytes:
        ask = msgspec.json.decode(body, type=AskSecret)
        if ask.lease not in values:
            raise Denied("there is no such lease")
        _, _, org, session, _ = subject.split(".")
        key = (await ready_of(client, org, session)).public_keys["seal"]
        return msgspec.json.encode(Secret(sealed=seal(key, values[ask.lease].encode())))

    broker = stack.parts["broker"]
    await broker.hold()
    try:
        async with bus_of(stack, "broker") as bus, bus.serve("req.broker.*.*.secret", serve):
            yield
    finally:
        broker.release()
        await broker.ready()


def lease(*names: str) -> dict[str, x.SecretRef]:
    """`secret_env` of an exec: each variable is named as its lease, in capitals."""
    return {name.upper(): x.SecretRef(role="broker", lease=name) for name in names}
