"""A runnerd of the release before, under the spawner and the client of now; real JetStream, sessions as processes."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandreel_core.bus.port import Bus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.client import Client
from sandreel_core.contract.catalog import CONTRACT_VERSION
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.errors import Refused, Unserved
from sandreel_core.spawner.boot_terms import BootTerms
from sandreel_core.spawner.process import ProcessBackend
from sandreel_core.spawner.reconcile import Rules
from tests.support.mark import OURS
from tests.support.nats import Connect
from tests.support.rigs import interpreter
from tests.support.spawner import KEY_BYTES, plan, running

pytestmark = pytest.mark.timeout(120)

OLD_RUNNERD = Path(__file__).parents[2] / "support" / "old_runnerd.py"
OLD = CONTRACT_VERSION
ORG = "acme"


@pytest.fixture
async def bus(nats_server: NatsServer, connect_bus: Connect) -> AsyncIterator[Bus]:
    """With a spawner at work, whose sessions get the old runnerd."""
    bus = await connect_bus()
    await ensure_installation(bus)
    data = Path(tempfile.mkdtemp(prefix="sandreel-upgrade-"))
    data.chmod(0o711)
    terms = BootTerms(
        installation=OURS,
        key=KEY_BYTES,
        partitions=1,
        nats_urls=(nats_server.url,),
        nats_user="runnerd",
        nats_password=nats_server.password("runnerd"),
        heartbeat_s=0.2,
    )
    rules = Rules(installation=OURS, node="here")
    program = (interpreter(boxed=True), "-I", str(OLD_RUNNERD), str(OLD), "--settings-stdin")
    try:
        async with ProcessBackend.open(data, node="here", program=program) as backend:
            async with running(bus, backend, plan(terms=terms, rules=rules, sweep_s=0.2)):
                yield bus
            for sandbox in await backend.list():
                await backend.stop(sandbox.key, sandbox.boot_id, grace_s=0)
    finally:
        await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)


async def test_the_next_release_works_with_a_runnerd_of_this_one(bus: Bus) -> None:
    client = Client(bus, answer_timeout_s=20, contract_version=OLD + 1)
    info = await client.create_session(ORG, "s", timeout_s=60, env={"A": "1"})
    assert info.state.contract_version == OLD

    result = await client.run(ORG, "s", shell="echo $A; cat; exit 3", stdin=b"in\n")
    assert (result.exit_code, result.stdout) == (3, b"1\nin\n")
    await client.env(ORG, "s").patch({"A": "2"})
    await client.files(ORG, "s").write("f", b"kept")
    handle = await client.exec(ORG, "s", ["sleep", "100"])
    await handle.cancel()
    assert (await handle.wait()).signal == "SIGTERM"

    await client.stop(ORG, "s")
    await client.resume(ORG, "s")
    assert (await client.run(ORG, "s", shell="echo $A; cat f")).stdout == b"2\nkept"
    await client.destroy(ORG, "s")


async def test_what_it_does_not_know_is_refused_and_ends_nothing(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandreel_core.client.recorder.SERVED_WITHIN_S", 0.5)
    client = Client(bus, answer_timeout_s=20, contract_version=OLD + 1)
    await client.create_session(ORG, "s", timeout_s=60)
    handle = await client.exec(ORG, "s", ["cat"], hold_stdin=True)

    with pytest.raises(Refused):
        await handle.keepalive()
    with pytest.raises(Unserved):
        await client.files(ORG, "s").fetch("http://example.org/", "f", timeout_s=1)
    await handle.write_stdin("still here", eof=True)
    assert (await handle.collect()).stdout == b"still here"


async def test_the_sweep_stops_it(bus: Bus) -> None:
    client = Client(bus, answer_timeout_s=20, contract_version=OLD + 1)
    info = await client.create_session(ORG, "s", timeout_s=60, idle_timeout_s=0.5)

    stopped = await client._sessions.until(client.subjects(ORG, "s"), ("stopped",), since=info.cursor, timeout_s=60)
    assert stopped.state.stop_reason == "idle"


async def test_two_releases_later_it_gets_no_execs_and_can_be_led_out(bus: Bus) -> None:
    before, after = (Client(bus, answer_timeout_s=20, contract_version=OLD + step) for step in (0, 2))
    await before.create_session(ORG, "s", timeout_s=60)
    handle = await before.exec(ORG, "s", ["sleep", "100"])

    with pytest.raises(Refused, match=r"CONTRACT_VERSION: .*stop and resume the session"):
        await after.exec(ORG, "s", ["true"])
    await after.cancel(ORG, "s", handle.id)
    assert (await after.handle(ORG, "s", handle.id).wait()).signal == "SIGTERM"
    assert (await after.stop(ORG, "s")).phase == "stopped"
