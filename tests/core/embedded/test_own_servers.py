"""A NATS of the operator's own: what is wrong with it is said in a line before a role waits for it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sandreel_core.embedded.nats import NatsServer
from sandreel_core.embedded.own_servers import look_at
from sandreel_core.embedded.place import free_port
from sandreel_core.errors import Denied, Unavailable
from sandreel_core.settings import Bus


async def test_a_server_that_is_not_there_is_named_with_what_to_mend() -> None:
    port = free_port()
    bus = Bus(nats_urls=(f"nats://127.0.0.1:{port}",), connect_timeout_s=0.3)
    with pytest.raises(Unavailable) as caught:
        await look_at(bus)
    said = str(caught.value)
    assert said == (
        f"no NATS server at nats://127.0.0.1:{port} within 0.3 s: connection refused: start it, or look at [bus] nats_urls"
    )


async def test_one_that_answers_is_well_and_credentials_are_looked_at(nats_server: NatsServer) -> None:
    bus = Bus(nats_urls=(nats_server.url,), user="client", password=nats_server.password("client"))
    await look_at(bus)
    with pytest.raises(Denied, match=r"look at \[bus\] creds_file, or user and password"):
        await look_at(replace(bus, password="another"))
