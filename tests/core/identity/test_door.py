"""What a service of one organisation reads: its own log, by the ordinary client, and nobody else's by any request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from sandreel_core import permissions as p
from sandreel_core.bus.credentials import Creds
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.jetstream_door import Door
from sandreel_core.bus.port import CaughtUp, Stored
from sandreel_core.bus.streams import WORKS
from sandreel_core.clock import new_id
from sandreel_core.errors import Denied
from tests.support.town import KEY, LIMIT_S, ONE, Raw, Town, pull

NS = 1_000_000_000
MINE = "f" + "0" * 32


@pytest.fixture
async def open_town(town: Town) -> AsyncIterator[Town]:
    async with Door(await town.bus("spawner")).open():
        yield town


async def service(town: Town, *rights: p.Right, org: str = "acme") -> JetStreamBus:
    bus = await JetStreamBus.connect(
        [town.server.url],
        name="service",
        identity=Creds.parse(town.creds(p.platform(rights), org=org)),
        connect_timeout_s=LIMIT_S,
    )
    town.exit.push_async_callback(bus.close)
    return bus


async def read(bus: JetStreamBus, stream: str, *filters: str) -> list[Stored]:
    found: list[Stored] = []
    async with aclosing(bus.follow(stream, filters, live=False)) as items:
        async for item in items:
            found += item if isinstance(item, list) else []
    return found


async def test_a_service_follows_its_own_sessions(open_town: Town) -> None:
    town, bus = open_town, await service(open_town, "follow")
    assert [each.subject for each in await read(bus, "REEL-0", "evt.0.acme.>")] == [
        "evt.0.acme.s1.exec.theirs",
        "evt.0.acme.s2.exec.theirs",
    ]
    state = await bus.state("REEL-0")
    assert (state.last_sequence, state.epoch) == (3, (await town.log.state("REEL-0")).epoch)
    last = await bus.last("REEL-0", "evt.0.acme.s2.exec.theirs")
    assert last is not None
    assert await bus.get("REEL-0", last.sequence) == last
    assert await bus.next("REEL-0", "evt.*.acme.>", after=1) == last
    assert await bus.subjects("REEL-0", "evt.0.acme.>") == {
        "evt.0.acme.s1.exec.theirs": 1,
        "evt.0.acme.s2.exec.theirs": 1,
    }
    # Live, with no seam.
    async with aclosing(bus.follow("REEL-0", ["evt.0.acme.s1.exec.theirs"])) as items:
        async for item in items:
            if isinstance(item, CaughtUp):
                await town.log.append("evt.0.acme.s1.exec.theirs", b"news")
                await town.log.append("evt.0.umbra.s9.exec.theirs", b"not for them")
            elif isinstance(item, list) and item[-1].body == b"news":
                break


async def test_it_reads_nobody_elses(open_town: Town) -> None:
    bus = await service(open_town, "command", "follow")
    for subject in ("evt.0.umbra.>", "evt.>", "evt.*.*.s9.exec.*", ">", "cmd.>", "evt.0.*.s1.>", "evt.0.acme2.>"):
        with pytest.raises(Denied):
            await read(bus, "REEL-0", subject)
        with pytest.raises(Denied):
            await bus.last("REEL-0", subject)
        with pytest.raises(Denied):
            await bus.subjects("REEL-0", subject)
    with pytest.raises(Denied):
        await read(bus, "REEL-0", "evt.0.acme.>", "evt.0.umbra.>")
    theirs = await open_town.log.last("REEL-0", "evt.0.umbra.>")
    assert theirs is not None
    with pytest.raises(Denied):
        await bus.get("REEL-0", theirs.sequence)
    for stream in ("DEAD", "SLOTS", "KV_x"):
        with pytest.raises(Denied):
            await bus.state(stream)


def consumer(name: str, **config: Any) -> bytes:
    return msgspec.json.encode({"stream_name": "CMD", "action": "create", "config": {"name": name} | config})


async def test_no_request_makes_the_server_write_or_hand_out_more(open_town: Town) -> None:
    town = open_town
    raw: Raw = await town.connect(town.creds(p.platform(("command", "follow")), org="acme"))
    own = "cmd.runnerd.acme.s1.*"
    for verb, body in (
        # A consumer without a filter, of another name, and with ones that begin where only a clock says.
        (f"CONSUMER.CREATE.CMD.{MINE}", consumer(MINE)),
        ("CONSUMER.CREATE.CMD.spawner", consumer("spawner", filter_subject=own)),
        (f"CONSUMER.CREATE.CMD.{MINE}", consumer(MINE, filter_subject=own, deliver_policy="by_start_time")),
        (f"CONSUMER.CREATE.CMD.{MINE}.{own}", consumer(MINE, filter_subject=own)),
        ("CONSUMER.DURABLE.CREATE.CMD.mine", consumer("mine", filter_subject=own)),
        *((verb, b"") for verb in ("CONSUMER.DELETE.CMD.spawner", "CONSUMER.INFO.CMD.spawner", "CONSUMER.NAMES.CMD")),
        *(
            (verb, b"")
            for verb in ("STREAM.DELETE.CMD", "STREAM.PURGE.CMD", "STREAM.NAMES", "STREAM.INFO.DEAD", "INFO")
        ),
        *((verb, b"[]") for verb in ("STREAM.INFO.CMD", "STREAM.MSG.GET.CMD")),
        ("STREAM.MSG.GET.CMD", b'{"seq": "1"}'),
        ("DIRECT.GET.CMD", b'{"seq": 1}'),
    ):
        answer = await raw.ask(f"api.acme.{verb}", body)
        assert msgspec.json.decode(answer.data)["error"]["code"] == 403, verb
    # What would deliver elsewhere is made without that: it is pulled from, and by its maker.
    pushing = consumer(MINE, filter_subject=own, deliver_subject="cmd.spawner.umbra.s9.x", ack_policy="explicit")
    made = msgspec.json.decode((await raw.ask(f"api.acme.CONSUMER.CREATE.CMD.{MINE}", pushing)).data)["config"]
    assert "deliver_subject" not in made
    assert (made["ack_policy"], made["filter_subject"]) == ("none", own)
    got = await raw.ask(f"pull.CMD.{MINE}", pull())
    assert (got.data, got.subject.split(".")[:4]) == (b"acme/s1", own.split(".")[:4])
    await raw.publish(f"pull.CMD.{MINE}", pull(), f"cmd.spawner.umbra.s9.{new_id()}")
    # Commands of others: no consumer of a role, and no feed but by a name that nobody can make.
    for name in (work.name for work in WORKS):
        assert not await raw.publish(f"pull.CMD.{name}", pull(), f"{raw.inbox}.x"), name
    for subject in ("api.umbra.STREAM.INFO.REEL-0", "api.*.STREAM.INFO.CMD", "$JS.API.CONSUMER.MSG.NEXT.CMD.x"):
        assert not await raw.publish(subject, b"", f"{raw.inbox}.x"), subject
    assert len(await town.stored("CMD")) == 3


async def test_every_consumer_of_a_role_is_closed_to_services() -> None:
    assert {work.name for work in WORKS} <= set(p.DURABLES)
    assert set(p.platform(("command", "follow")).deny) == {f"pull.*.{name}" for name in p.DURABLES}


async def test_a_feed_has_a_name_that_only_the_installation_can_make() -> None:
    from sandreel_core.spawner.bootstrap import feed_of

    assert feed_of(KEY, ONE, "1-1") != feed_of(KEY + b"!", ONE, "1-1")
    assert feed_of(KEY, ONE, "1-1") != feed_of(KEY, ONE, "1-2")


async def test_only_who_may_follow_reads(open_town: Town) -> None:
    bus = await service(open_town, "command")
    with pytest.raises(Denied):
        await bus.state("REEL-0")
    assert await bus.append(f"cmd.spawner.acme.s1.{new_id()}", b"{}")
    reader = await service(open_town, "follow")
    with pytest.raises(Denied):
        await reader.append(f"cmd.spawner.acme.s1.{new_id()}", b"{}")
