"""The spawner over the memory bus and a backend that runs nothing: what stands in the log after each story."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract.bootstrap import AskLog, ExecHead, FeedMade, LogHead, MakeFeed
from sandreel_core.contract.message import Owner
from sandreel_core.contract.requests import Done, Request
from sandreel_core.contract.runnerd import Hold
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.contract.workspace import EnvPatched
from sandreel_core.errors import Denied, Misconfigured, Unavailable
from sandreel_core.session import Session
from sandreel_core.spawner import actions as a
from sandreel_core.spawner.backend import Death, Key, Sandbox
from sandreel_core.spawner.bootstrap import MAX_OF_ONE
from sandreel_core.spawner.heads import Head, Heads
from sandreel_core.spawner.reconcile import Rules
from sandreel_core.spawner.service import Spawner
from tests.support.backend import FakeBackend
from tests.support.spawner import ONE, TWO, Hand, plan, ready, running, up


async def test_a_session_is_created_and_becomes_ready(hand: Hand, backend: FakeBackend, spawner: None) -> None:
    command = await hand.create(env={"A": "1"})
    requested = await hand.until(s.Requested, cause=command)
    assert (requested.incarnation, requested.owner) == (1, Owner(type="user", id="one"))
    answer = await hand.bootstrap()
    assert (answer.env, answer.partitions) == ({"A": "1"}, 1)
    assert await hand.types() == ["requested", "provisioned", "ready"]
    provisioned = (await hand.events())[1].data
    assert (provisioned.boot_id, provisioned.backend, provisioned.fence) == ("1-1", "fake", "none")
    assert provisioned.commands_after == answer.commands_after == 1
    settings = backend.specs[0].settings
    assert settings.token not in str(await hand.events())


async def test_bootstrap_binds_to_the_first_keys(hand: Hand, spawner: None) -> None:
    first = await ready(hand)
    again = await hand.bootstrap()
    assert again == first, "the same runnerd may ask again"
    with pytest.raises(Denied):
        await hand.bootstrap(public_keys={"sign": "another"})
    with pytest.raises(Denied):
        await hand.bootstrap(token="0" * 64)
    with pytest.raises(Denied):
        await hand.bootstrap("1-2")
    assert await hand.types() == ["requested", "provisioned", "ready"]


async def test_the_environment_is_folded_for_this_incarnation_only(hand: Hand, spawner: None) -> None:
    assert (await ready(hand, env={"A": "1", "B": "2"})).workspace_last == 0
    await hand.say(EnvPatched(set={"B": "3", "C": "4"}, unset=["A"]))
    again = await hand.bootstrap()
    assert again.env == {"B": "3", "C": "4"}
    last = await hand.bus.last("REEL-0", "evt.*.*.*.workspace")
    assert last is not None
    assert again.workspace_last == last.sequence
    await hand.send(s.Destroy())
    await hand.until(s.Destroyed)
    await hand.create(env={"A": "new"})
    assert (await up(hand, boot_id="2-1")).env == {"A": "new"}


async def test_stop_and_resume(hand: Hand, backend: FakeBackend, spawner: None) -> None:
    await ready(hand)
    await hand.send(s.Stop())
    stopped = await hand.until(s.Stopped)
    assert (stopped.reason, stopped.commands_until) == ("asked", 2)
    with pytest.raises(Denied):
        await hand.bootstrap()
    await hand.send(s.Resume())
    await hand.until(s.Provisioned, where=lambda event: event.boot == 2)
    await hand.bootstrap("1-2")
    assert [(spec.boot_id, spec.fresh) for spec in backend.specs] == [("1-1", True), ("1-2", False)]
    assert await hand.types() == (
        ["requested", "provisioned", "ready", "stopping", "stopped", "resuming", "provisioned", "ready"]
    )


async def test_what_ends_is_not_looked_at_first_where_names_are_exclusive(
    hand: Hand, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    inspect = backend.inspect

    async def look(key: Key) -> Sandbox | None:
        looked.append((await hand.types())[-1])
        return await inspect(key)

    backend.exclusive_names = True
    monkeypatch.setattr(backend, "inspect", look)
    async with running(hand.bus, backend, plan()):
        await ready(hand)
        await hand.send(s.Stop())
        assert (await hand.until(s.Stopped)).reason == "asked"
        await hand.send(s.Destroy())
        await hand.until(s.Destroyed)
    assert backend.calls == ["create 1-1", "stop 1-1", "destroy"], "what the log has of its end is not asked again"
    assert not {"stopping", "stopped", "destroying"} & set(looked), "the backend's news of the end is none to the log"


async def test_what_is_hastened_and_meets_something_else_is_looked_at(hand: Hand, backend: FakeBackend) -> None:
    backend.exclusive_names = True
    async with running(hand.bus, backend, plan()) as spawner:
        await ready(hand)
        await hand.send(s.Stop())
        await hand.until(s.Stopped)
        old = spawner._sessions.get(ONE)
        # Somebody has started it behind the spawner's back.
        backend.sandboxes[ONE] = replace(backend.sandboxes[ONE], status="running", death=None)
        await hand.send(s.Destroy())
        await hand.until(s.Destroyed)
        assert backend.calls[-3:] == ["destroy", "stop 1-1", "destroy"]
        await ready(hand, boot_id="2-1")
        going = replace(old, record=msgspec.structs.replace(old.record, session=destroying(old.session)))
        assert not await spawner._effects.hasten(a.Remove(ONE, "1-1", Death("exited")), going)
        assert backend.sandboxes[ONE].status == "running", "the next incarnation is not that one's to delete"
        assert (await hand.types())[-1] == "ready"


def destroying(session: Session) -> Session:
    return msgspec.structs.replace(session, phase="destroying")


async def test_destroy_deletes_and_the_id_can_be_used_again(hand: Hand, backend: FakeBackend, spawner: None) -> None:
    await ready(hand)
    await hand.send(s.Destroy())
    await hand.until(s.Destroyed)
    assert backend.workspaces == {}
    assert backend.calls == ["create 1-1", "stop 1-1", "destroy"]
    again = await hand.send(s.Destroy())
    await hand.until(s.CommandSettled, cause=again)
    await ready(hand, boot_id="2-1")
    assert (await hand.events())[-1].type == "session.ready"


async def test_a_new_spawner_adopts_what_the_last_one_started(hand: Hand, backend: FakeBackend) -> None:
    async with running(hand.bus, backend, plan()):
        await ready(hand)
        await hand.create(TWO)
        await hand.until(s.Provisioned, TWO)
    async with running(hand.bus, backend, plan()):
        await hand.bootstrap(key=TWO)
        assert await hand.types() == ["requested", "provisioned", "ready"]
        assert backend.calls == ["create 1-1", "create 1-1"]


async def test_a_boot_started_by_a_spawner_that_died_before_saying_so_is_adopted(
    hand: Hand, backend: FakeBackend
) -> None:
    async with running(hand.bus, backend, plan()):
        await ready(hand, TWO)
    sandbox = backend.sandboxes[TWO]
    await hand.create()
    backend.sandboxes[ONE] = replace(sandbox, key=ONE)
    backend.workspaces[ONE] = set()
    async with running(hand.bus, backend, plan()):
        await up(hand)
        assert await hand.types() == ["requested", "provisioned", "ready"]
        assert backend.calls == ["create 1-1"]


async def test_feed_and_log_are_answered_for_the_live_boot_only(hand: Hand, spawner: None) -> None:
    first = await ready(hand)
    await hand.say(x.Accepted(boot_id="1-1"), id="e", n=1)
    block = x.Output(stream="stdout", line=1, count=1, text="a\n", eol=True)
    for n in (2, 3, 5):
        await hand.say(block, id="e", n=n)

    async def ask(verb: str, request: Request) -> bytes:
        return await hand.bus.request(hand.subjects().request("spawner", verb), msgspec.json.encode(request))

    head = msgspec.json.decode(await ask("log", AskLog(boot_id="1-1", execs=["e", "none"])), type=LogHead)
    assert (head.epoch, head.commands_last) == (first.epoch, 1)
    assert head.execs == {
        "e": ExecHead(boot_id="1-1", started_by=head.execs["e"].started_by, last_n=3),
        "none": ExecHead(),
    }
    made = msgspec.json.decode(await ask("feed", MakeFeed(boot_id="1-1", after=1)), type=FeedMade)
    assert made.feed == first.feed
    command = await hand.send(x.Cancel(exec="e"))
    feed = hand.bus.feed("CMD", made.feed)
    async with asyncio.timeout(5):
        batch = await anext(feed)
    await feed.aclose()
    assert batch[0].subject.endswith(command)
    for verb, request in (("log", AskLog(boot_id="1-0")), ("feed", MakeFeed(boot_id="1-2", after=0))):
        with pytest.raises(Denied):
            await ask(verb, request)


async def test_a_session_that_asks_all_the_time_keeps_no_other_waiting(
    hand: Hand, spawner: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image of one's own may have a recorder that does, and what it asks for may take long to read."""
    await ready(hand)
    await ready(hand, TWO)
    gate, read = asyncio.Event(), Heads.read

    async def slow(heads: Heads, subjects: SessionSubjects, exec_id: str) -> Head:
        if subjects.session == ONE.session:
            await gate.wait()
        return await read(heads, subjects, exec_id)

    monkeypatch.setattr(Heads, "read", slow)

    async def ask(key: Key) -> bytes:
        question = msgspec.json.encode(AskLog(boot_id="1-1", execs=["e"]))
        return await hand.bus.request(hand.subjects(key).request("spawner", "log"), question)

    asked = [asyncio.ensure_future(ask(ONE)) for _ in range(100)]
    for _ in range(20):
        await asyncio.sleep(0)  # they are there first
    async with asyncio.timeout(4):
        await ask(TWO)
    gate.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(each, Unavailable) for each in answers) == 100 - MAX_OF_ONE
    await ask(ONE)


async def test_a_foreign_sandbox_is_left_alone_and_the_sessions_own_life_ends(hand: Hand, backend: FakeBackend) -> None:
    async with running(hand.bus, backend, plan()):
        await ready(hand, TWO)
    foreign = replace(backend.sandboxes[TWO], key=ONE, installation="theirs")
    backend.sandboxes[ONE] = foreign
    backend.workspaces[ONE] = {"theirs"}
    backend.calls.clear()
    async with running(hand.bus, backend, plan()):
        await hand.create()
        assert (await hand.until(s.Failed)).code == "FOREIGN"
        await hand.send(s.Destroy())
        await hand.until(s.Destroyed)
        backend.sandboxes[TWO] = replace(foreign, key=TWO)
        await hand.send(s.Stop(), TWO)
        assert (await hand.until(s.Stopped, TWO)).reason == "asked"
    assert backend.sandboxes == {ONE: foreign, TWO: replace(foreign, key=TWO)}
    assert backend.workspaces[ONE] == {"theirs"}
    assert set(backend.calls) <= {"destroy"}, "which is denied"


async def test_a_full_stream_makes_runnerds_hold(backend: FakeBackend) -> None:
    bus = MemoryBus()
    await ensure_installation(bus)
    told = asyncio.Event()

    async def handler(subject: str, body: bytes) -> bytes:
        if msgspec.json.decode(body, type=Hold).hold:
            told.set()
        return msgspec.json.encode(Done())

    hand = Hand(bus)
    async with running(bus, backend, plan()), bus.serve("req.runnerd.acme.one.hold", handler):
        await ready(hand)
        state = await bus.state("REEL-0")
        real = bus.state

        async def nearly_full(stream: str) -> object:
            found = await real(stream)
            return msgspec.structs.replace(found, max_bytes=state.bytes + 1) if stream == "REEL-0" else found

        bus.state = nearly_full  # type: ignore[assignment,method-assign]
        async with asyncio.timeout(10):
            await told.wait()
    await bus.close()


async def test_a_spawner_on_another_machine_does_not_begin(hand: Hand, backend: FakeBackend) -> None:
    """Both would start the same boot, and an exec could run twice (law 2)."""
    async with running(hand.bus, backend, plan()):
        await ready(hand)
    elsewhere = plan(rules=Rules(installation="ours", node="elsewhere"))
    with pytest.raises(Misconfigured, match="node here, this is elsewhere"):
        await Spawner(hand.bus, backend, elsewhere).run()
    async with running(hand.bus, backend, plan()):
        await hand.send(s.Stop())
