"""Requests of a runnerd that is ready by the log and does not listen yet, over the memory twin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.client import Client
from sandreel_core.client import recorder as under_test
from sandreel_core.contract.files import FileEntry, FileList
from sandreel_core.errors import NotFound, Unserved
from tests.core.client.conftest import ORG, STREAMS
from tests.support.fake_roles import fake_roles

pytestmark = pytest.mark.timeout(20)


class Watched(MemoryBus):
    """Tells when a request has met nobody."""

    met_nobody = 0
    told: asyncio.Event

    async def request(self, subject: str, body: bytes, *, timeout_s: float = 2.0) -> bytes:
        try:
            return await super().request(subject, body, timeout_s=timeout_s)
        except Unserved:
            self.met_nobody += 1
            self.told.set()
            raise


@pytest.fixture
async def bus() -> AsyncIterator[Watched]:
    bus = Watched()
    bus.told = asyncio.Event()
    await bus.ensure(STREAMS)
    async with fake_roles(MemoryBus(bus.server)):
        yield bus


async def test_a_request_waits_until_a_ready_session_listens(bus: Watched) -> None:
    client = Client(bus, answer_timeout_s=10)
    await client.create_session(ORG, "late", timeout_s=5)
    asking = asyncio.create_task(client.files(ORG, "late").list())
    await bus.told.wait()

    async def listed(subject: str, body: bytes) -> bytes:
        return msgspec.json.encode(FileList(entries=[FileEntry(name="a", kind="file", size=1, modified_ms=0)]))

    async with bus.serve(client.subjects(ORG, "late").request("runnerd", "list_files"), listed):
        assert [entry.name for entry in (await asking).entries] == ["a"]


async def test_one_that_is_stopped_is_said_so_at_once(bus: Watched) -> None:
    client = Client(bus, answer_timeout_s=10)
    await client.create_session(ORG, "over", timeout_s=5)
    await client.stop(ORG, "over")

    with pytest.raises(Unserved, match="the session is stopped"):
        await client.files(ORG, "over").kind("a")
    with pytest.raises(NotFound, match="the session is not there"):
        await client.files(ORG, "never").list()
    assert bus.met_nobody == 2


async def test_the_wait_for_one_that_never_listens_is_bounded(bus: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "SERVED_WITHIN_S", 0.1)
    client = Client(bus, answer_timeout_s=10)
    await client.create_session(ORG, "mute", timeout_s=5)

    with pytest.raises(Unserved, match="the session is ready"):
        await client.files(ORG, "mute").list()
    assert bus.met_nobody > 1
