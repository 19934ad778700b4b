"""The spawner over the memory bus and a backend that runs nothing: what stands in the log after each story."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from sandreel_core.bus.crew import Crew
from sandreel_core.bus.measures import CommandMeasures
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import SPAWNER_REFUSALS, ensure_installation
from sandreel_core.client import Client
from sandreel_core.clock import new_id, now
from sandreel_core.contract import exec as x
from sandreel_core.contract import requests as q
from sandreel_core.contract import session as s
from sandreel_core.contract.boot import NO_ROOM, UNWRITABLE
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.credential import Grant
from sandreel_core.contract.message import Command, Owner
from sandreel_core.contract.turn import Interrupt
from sandreel_core.contract.workspace import EnvPatched, PatchEnv
from sandreel_core.errors import Denied, Misconfigured, NotFound, Refused, Unavailable
from sandreel_core.metrics import Metrics
from sandreel_core.session import Session
from sandreel_core.spawner import actions as a
from sandreel_core.spawner.backend import Death, Key, Sandbox
from sandreel_core.spawner.commands import Limits
from sandreel_core.spawner.journal import Journal
from sandreel_core.spawner.quota import SLOTS, Quota, Quotas
from sandreel_core.spawner.reconcile import Rules
from sandreel_core.spawner.refusals import Refusals
from sandreel_core.spawner.service import Spawner
from sandreel_core.spawner.sessions import Sessions
from tests.support.backend import FakeBackend
from tests.support.spawner import ONE, Hand, plan, running

TWO = Key("acme", "two")


@pytest.fixture
async def hand() -> AsyncGenerator[Hand, None]:
    bus = MemoryBus()
    await ensure_installation(bus)
    yield Hand(bus)
    await bus.close()


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
async def spawner(hand: Hand, backend: FakeBackend) -> AsyncGenerator[None, None]:
    async with running(hand.bus, backend, plan(sweep_s=0.2)):
        yield


async def ready(hand: Hand, key: Key = ONE, boot_id: str = "1-1", **fields: object) -> q.Bootstrapped:
    await hand.create(key, **fields)
    return await up(hand, key, boot_id)


async def up(hand: Hand, key: Key = ONE, boot_id: str = "1-1") -> q.Bootstrapped:
    """runnerd, once it has been started."""
    incarnation = boot_id.partition("-")[0]
    await hand.until(s.Requested, key, where=lambda event: str(event.incarnation) == incarnation)
    return await hand.bootstrap(boot_id, key)


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


async def test_a_dead_boot_is_stopped_and_its_execs_are_lost(hand: Hand, backend: FakeBackend, spawner: None) -> None:
    await ready(hand)
    begun = await hand.send(x.Start(exec="done", argv=["true"]))
    await hand.say(x.Accepted(boot_id="1-1"), id="done", n=1, cause=begun)
    await hand.say(x.Exited(exit_code=0, reason="exited", duration_ms=1), id="done", n=2)
    running_ = await hand.send(x.Start(exec="open", argv=["true"]))
    await hand.say(x.Accepted(boot_id="1-1"), id="open", n=1, cause=running_)
    block = x.Output(stream="stdout", line=1, count=1, text="a\n", eol=True)
    await hand.say(block, id="open", n=2)
    await hand.say(block, id="open", n=4)
    written = await hand.send(x.WriteStdin(exec="open", text="b"))
    patched = await hand.send(PatchEnv(set={"A": "1"}))
    unread = await hand.send(x.Start(exec="never", argv=["true"]))
    again = await hand.send(x.Start(exec="done", argv=["true"]))
    backend.die(ONE, "oom")
    stopped = await hand.until(s.Stopped)
    assert stopped.reason == "oom"
    lost = await hand.until(x.Lost, aggregate="exec", id="open")
    assert (lost.boot_id, lost.last_n, lost.cause) == ("1-1", 2, "oom")
    never = await hand.until(x.Lost, aggregate="exec", id="never", cause=unread)
    assert never.last_n == 0
    assert await hand.refusal(written) == "OUTCOME_UNKNOWN"
    assert await hand.refusal(patched) == "OUTCOME_UNKNOWN"
    assert await hand.refusal(again) == "DUPLICATE_EXEC"
    assert [event.n for event in await hand.events(aggregate="exec", id="open")] == [1, 2, 4, 3]
    assert [event.type for event in await hand.events(aggregate="exec", id="done")] == ["exec.accepted", "exec.exited"]
    answered = [event.causationid for event in await hand.events() if event.type == "command.refused"]
    assert sorted(answered, key=str) == sorted([written, patched, again])


async def test_what_a_boot_left_is_closed_at_the_first_reconcile(hand: Hand, backend: FakeBackend) -> None:
    async with running(hand.bus, backend, plan()):
        await ready(hand)
    unread = await hand.send(x.Start(exec="never", argv=["true"]))
    await hand.say(x.Accepted(boot_id="1-1"), id="open", n=1)
    await hand.say(s.Stopped(reason="killed", commands_until=2))
    async with running(hand.bus, backend, plan()):
        await hand.until(x.Lost, aggregate="exec", id="never", cause=unread)
        await hand.until(x.Lost, aggregate="exec", id="open")
    async with running(hand.bus, backend, plan()):
        await asyncio.sleep(0)
    assert len(await hand.events(aggregate="exec", id="open")) == 2


async def test_every_boot_of_a_session_is_closed_once(hand: Hand, backend: FakeBackend) -> None:
    async with running(hand.bus, backend, plan(sweep_s=0.05)):
        await ready(hand)
        backend.die(ONE)
        await hand.until(s.Stopped)
        await hand.send(s.Resume())
        await hand.until(s.Provisioned, where=lambda event: event.boot == 2)
        await hand.bootstrap("1-2")
        await hand.say(x.Accepted(boot_id="1-2"), id="open", n=1)
        backend.die(ONE)
        await hand.until(x.Lost, aggregate="exec", id="open")
        async with asyncio.timeout(5):
            while (record := await hand.bus.last(SLOTS, "closed.acme.one")) is None or record.body != b"1-2":
                await asyncio.sleep(0.01)
    written = (await hand.bus.state(SLOTS)).last_sequence
    async with running(hand.bus, backend, plan(sweep_s=0.05)):
        assert (await hand.bus.state(SLOTS)).last_sequence == written, "what is closed is remembered"


async def test_commands_without_a_boot_are_refused_at_once(hand: Hand, backend: FakeBackend, spawner: None) -> None:
    assert await hand.refusal(await hand.send(x.Start(exec="e", argv=["true"]))) == "SESSION_NOT_FOUND"
    backend.create_error = Unavailable("not now", retry_after_s=0.05)
    await hand.create()
    await hand.until(s.Requested)
    assert await hand.refusal(await hand.send(x.Cancel(exec="e"))) == "SESSION_NOT_READY"
    backend.create_error = None
    await hand.until(s.Provisioned)
    owned = await hand.send(x.Cancel(exec="e"))
    await hand.bootstrap()
    await hand.send(s.Stop())
    await hand.until(s.Stopped)
    assert await hand.refusal(owned) == "OUTCOME_UNKNOWN"
    assert await hand.refusal(await hand.send(x.Cancel(exec="e"))) == "SESSION_NOT_READY"
    await hand.send(s.Destroy())
    await hand.until(s.Destroyed)
    assert await hand.refusal(await hand.send(x.Cancel(exec="e"))) == "SESSION_NOT_FOUND"


async def buried(hand: Hand, *subjects: str) -> None:
    """As soon as these commands are dead letters, and nothing else is."""
    wanted = {"dead." + subject.removeprefix("cmd."): 1 for subject in subjects}
    async with asyncio.timeout(10):
        while await hand.bus.subjects("DEAD", ">") != wanted:
            await asyncio.sleep(0.01)


async def test_garbage_for_runnerd_is_refused_and_a_dead_letter(hand: Hand, spawner: None) -> None:
    first, second = (hand.subjects().command("runnerd", new_id()) for _ in range(2))
    await hand.bus.append(first, b"\xff no json")
    assert await hand.refusal(first.rpartition(".")[2]) == "SESSION_NOT_FOUND"
    await ready(hand)
    await hand.bus.append(second, b"\xff no json")  # for the live boot, which refuses it
    await buried(hand, first, second)
    assert [event.causationid for event in await hand.events()].count(second.rpartition(".")[2]) == 0


@pytest.mark.parametrize("command", [Grant(slug="github"), Interrupt(turn="t1")])
async def test_a_command_for_a_role_that_is_not_installed_is_refused(
    hand: Hand, spawner: None, command: Command
) -> None:
    assert await hand.refusal(await hand.send(command)) == "ROLE_NOT_INSTALLED"
    await ready(hand)
    with pytest.raises(Refused) as refused:
        await Client(hand.bus).send("acme", "one", command)
    assert refused.value.code == "ROLE_NOT_INSTALLED"
    assert await hand.bus.subjects("DEAD", ">") == {}


async def test_whatever_names_nobody_is_a_dead_letter(hand: Hand, spawner: None) -> None:
    id = new_id()
    strays = [f"cmd.runnerd.{tail}" for tail in ("acme.one.not-a-uuid", f"a%b.one.{id}", f"acme.one.two.{id}")]
    strays += ["cmd.spawner", "cmd.runnerd", f"cmd.nobody.acme.one.{id}", f"cmd.broker.acme.{'s' * 65}.{id}"]
    for subject in strays:
        await hand.bus.append(subject, b"{}")
    await buried(hand, *strays)
    assert await hand.events() == []


async def test_what_is_nested_too_deeply_ends_no_spawner(hand: Hand, backend: FakeBackend) -> None:
    async def throw(kind: bytes, role: str, key: Key) -> str:
        id = new_id()
        subject = hand.subjects(key).command(role, id)
        head = b'{"specversion":"1.0","id":"%s","source":"/t","subject":"%s"' % (id.encode(), subject.encode())
        deep = b"[" * 2000 + b"]" * 2000
        await hand.bus.append(subject, head + b',"time":"2026-01-01T00:00:00Z","type":"%s","foo":%s}' % (kind, deep))
        return id

    async with running(hand.bus, backend, plan(sweep_s=0.2)):
        assert await hand.refusal(await throw(b"exec.cancel", "runnerd", TWO), TWO) == "SESSION_NOT_FOUND"
        assert await hand.refusal(await throw(b"session.create", "spawner", ONE)) == "BAD_REQUEST"
        await ready(hand)
        unanswered = await throw(b"exec.start", "runnerd", ONE)  # this boot's, which ends without a word
        backend.die(ONE)
        assert await hand.refusal(unanswered) == "BAD_REQUEST"


async def test_a_command_that_cannot_be_refused_is_buried_after_five_failures(hand: Hand) -> None:
    bus, failures = hand.bus, 0
    assert isinstance(bus, MemoryBus)

    def fate(subject: str, body: bytes) -> None:
        nonlocal failures
        if b"SESSION_NOT_FOUND" in body:
            failures += 1
            raise ZeroDivisionError("a mistake of ours")

    bus.fate = fate
    sessions = Sessions(bus, 1)
    journal = Journal(bus, source="/spawner/test", partitions=1)
    refusals = Refusals(bus, SPAWNER_REFUSALS, journal, sessions, CommandMeasures(Metrics()), nak_delay_s=0.001)
    async with Crew() as crew:
        crew.start(sessions.run())
        crew.start(refusals.run())
        id = await hand.send(x.Cancel(exec="e"))
        assert await hand.refusal(id) == "INTERNAL"
        assert failures == 5
        assert await bus.subjects("DEAD", ">") == {f"dead.runnerd.acme.one.{id}": 1}
        bus.fate = lambda subject, body: None
        assert await hand.refusal(await hand.send(x.Cancel(exec="e"))) == "SESSION_NOT_FOUND"


@pytest.mark.parametrize(
    ("named", "id"),
    [
        ("cmd.spawner.umbra.one.{id}", None),
        ("cmd.spawner.acme.two.{id}", None),
        ("cmd.runnerd.acme.one.{id}", None),
        ("cmd.spawner.acme.one.{id}", "another"),
    ],
    ids=["another organisation", "another session", "another role", "another id"],
)
async def test_a_command_that_says_another_name_than_where_it_was_sent_is_refused(
    hand: Hand, backend: FakeBackend, spawner: None, named: str, id: str | None
) -> None:
    """The server lets a service of one organisation send to its own sessions alone: what is written inside counts for
    nothing, and if it is something else neither the one nor the other is touched."""
    theirs = Key("umbra", "one")
    for key in (ONE, TWO, theirs):
        await ready(hand, key)
    command_id = new_id()
    sent = hand.subjects(ONE).command("spawner", command_id)
    said: dict[str, Any] = {
        "id": id or command_id,
        "source": "/test",
        "subject": named.format(id=command_id),
        "time": now(),
    }
    await hand.bus.append(sent, encode(seal(s.Destroy(), **said)))
    assert await hand.refusal(command_id) == "BAD_REQUEST"
    for key in (ONE, TWO, theirs):
        assert "destroying" not in await hand.types(key)
    # Nor can an owner or an organisation be slipped in beside the ones that count.
    for field, value in (("org", "umbra"), ("right", "operator")):
        body = msgspec.json.decode(encode(seal(s.Stop(), **said | {"id": command_id, "subject": sent})))
        body |= {"id": (again := new_id()), "subject": hand.subjects(ONE).command("spawner", again)}
        body["data"][field] = value
        await hand.bus.append(body["subject"], msgspec.json.encode(body))
        assert await hand.refusal(again) == "BAD_REQUEST"


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[]", b'{"specversion":"1.0"}', b'{"type":"session.create","data":{"owner":7}}']
)
async def test_garbage_for_the_spawner_is_refused_and_it_goes_on(hand: Hand, spawner: None, body: bytes) -> None:
    id = new_id()
    await hand.bus.append(hand.subjects().command("spawner", id), body)
    assert await hand.refusal(id) == "BAD_REQUEST"
    await ready(hand)


async def test_commands_that_do_not_fit_the_state_are_answered(hand: Hand, spawner: None) -> None:
    for command in (s.Stop(), s.Resume(), s.Destroy(), s.Pin(), s.Unpin(), s.Extend(ttl_s=1)):
        assert await hand.refusal(await hand.send(command)) == "SESSION_NOT_FOUND"
    await ready(hand)
    assert await hand.refusal(await hand.create()) == "SESSION_EXISTS"
    for command in (s.Resume(), s.Unpin()):
        await hand.until(s.CommandSettled, cause=await hand.send(command))
    extended = await hand.until(s.Extended, cause=await hand.send(s.Extend(ttl_s=1e9)))
    requested = await hand.until(s.Requested)
    assert abs((extended.expires_at - requested.expires_at).total_seconds()) < 60, "no time is over the maximum"


async def test_quotas_name_the_limit_and_count_creates_in_flight(hand: Hand, backend: FakeBackend) -> None:
    backend.silent = True
    async with running(hand.bus, backend, plan(quotas=Quotas(per_owner=1, per_org=2, per_host=3))):
        ann = Owner(type="user", id="ann")
        await hand.until(s.Requested, cause=await hand.create(owner=ann))
        second = await hand.create(TWO, owner=ann)
        assert "1 active session per owner" in (await hand.until(s.CommandRefused, TWO, cause=second)).message
        await hand.until(s.Requested, TWO, cause=await hand.create(TWO))
        third = Key("acme", "three")
        refused = await hand.until(s.CommandRefused, third, cause=await hand.create(third))
        assert (refused.code, "2 active sessions per org" in refused.message) == ("QUOTA_EXCEEDED", True)


async def test_a_stopped_session_gives_its_slot_back(hand: Hand, backend: FakeBackend) -> None:
    async with running(hand.bus, backend, plan(quotas=Quotas(per_owner=1))):
        ann = Owner(type="user", id="ann")
        await ready(hand, owner=ann)
        await hand.send(s.Stop())
        await hand.until(s.Stopped)
        await ready(hand, TWO, owner=ann)
        resumed = await hand.send(s.Resume())
        assert await hand.refusal(resumed) == "QUOTA_EXCEEDED"


async def test_it_serves_before_the_slots_are_settled(
    hand: Hand, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def settle(*_: object) -> int:
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(Quota, "settle", settle)
    async with running(hand.bus, backend, plan()):
        await ready(hand)


async def test_what_is_destroyed_keeps_no_environment_and_is_not_looked_at_every_second(
    hand: Hand, backend: FakeBackend
) -> None:
    async with running(hand.bus, backend, plan()) as spawner:
        await ready(hand, env={"A": "1"})
        await ready(hand, TWO)
        async with asyncio.timeout(10):
            while set(spawner._sessions.running()) != {ONE, TWO}:
                await spawner._sessions.changed()
        await hand.send(s.Destroy())
        assert await spawner._sessions.until(ONE, lambda session: session.phase == "destroyed", 10)
        assert set(spawner._sessions.running()) == {TWO}
        assert spawner._sessions.get(ONE).session.env == {}
        assert len(await hand.bus.subjects(SLOTS, "slot.owner.acme.*")) == 1


async def test_of_concurrent_creates_of_one_id_one_wins(hand: Hand, backend: FakeBackend, spawner: None) -> None:
    ids = [await hand.create() for _ in range(5)]
    await up(hand)
    async with asyncio.timeout(10):
        while len([event for event in await hand.events() if event.causationid in ids]) < 5:
            await asyncio.sleep(0.01)
    outcomes = [event.type for event in await hand.events() if event.causationid in ids]
    assert sorted(outcomes) == ["command.refused"] * 4 + ["session.requested"]
    assert backend.calls == ["create 1-1"]


async def test_a_backend_that_fails_to_create_is_asked_again_and_then_the_session_fails(
    hand: Hand, backend: FakeBackend
) -> None:
    backend.create_error = Unavailable("no memory", retry_after_s=0.05)
    rules = Rules(installation="ours", node="here", boot_within_s=1.5)
    async with running(hand.bus, backend, plan(rules=rules, sweep_s=0.2)):
        await hand.create()
        failed = await hand.until(s.Failed)
        assert (failed.stage, failed.code) == ("provision", "BOOT_TIMEOUT")
        assert failed.message.endswith("in time: no memory"), "what it waited for is told"
        assert backend.calls.count("create 1-1") >= 2
        backend.create_error = None
        await hand.send(s.Resume())
        await hand.until(s.Provisioned, where=lambda event: event.boot == 2)
        assert backend.specs[-1].fresh, "it has never had a workspace"


@pytest.mark.parametrize(
    ("exit_code", "code", "says"),
    [
        (UNWRITABLE, "WORKSPACE_UNWRITABLE", "cannot write its workspace"),
        (NO_ROOM, "NO_SPACE", "no room"),
        (1, "RUNNERD_EXITED", "before it was ready: exit code 1; is runnerd the entrypoint of image mine:1?"),
        (None, "RUNNERD_EXITED", "before it was ready"),
    ],
)
async def test_a_runnerd_that_could_not_begin_says_why_by_its_exit_code(
    hand: Hand, backend: FakeBackend, spawner: None, exit_code: int | None, code: str, says: str
) -> None:
    await hand.create(image="mine:1")
    await hand.until(s.Provisioned)
    backend.die(ONE, "exited", exit_code)
    failed = await hand.until(s.Failed)
    assert (failed.stage, failed.code) == ("boot", code)
    assert says in failed.message


async def test_a_boot_that_is_not_ready_in_time_fails_and_leaves_nothing(hand: Hand, backend: FakeBackend) -> None:
    async with running(hand.bus, backend, plan()):
        await hand.create()
        await hand.until(s.Provisioned)
    rules = Rules(installation="ours", node="here", boot_within_s=0.1)
    async with running(hand.bus, backend, plan(rules=rules, sweep_s=0.1)):
        failed = await hand.until(s.Failed)
        assert (failed.stage, failed.code) == ("boot", "BOOT_TIMEOUT")
        async with asyncio.timeout(10):
            while backend.workspaces:
                await asyncio.sleep(0.01)


async def test_a_failed_resume_keeps_the_files(hand: Hand, backend: FakeBackend) -> None:
    async with running(hand.bus, backend, plan()):
        await ready(hand)
        await hand.send(s.Stop())
        await hand.until(s.Stopped)
    rules = Rules(installation="ours", node="here", boot_within_s=0.5)
    async with running(hand.bus, backend, plan(rules=rules, sweep_s=0.1)):
        await hand.send(s.Resume())
        await hand.until(s.Failed)
        assert ONE in backend.workspaces
        assert "destroy" not in backend.calls


async def test_a_stop_that_fails_is_tried_again(hand: Hand, backend: FakeBackend, spawner: None) -> None:
    await ready(hand)
    backend.stop_error = Unavailable("it survives", retry_after_s=0.05)
    await hand.send(s.Stop())
    async with asyncio.timeout(10):
        while backend.calls.count("stop 1-1") < 3:
            await asyncio.sleep(0.01)
    assert (await hand.types())[-1] == "stopping"
    backend.stop_error = None
    await hand.until(s.Stopped)


async def test_an_end_that_cannot_be_reached_in_time_says_what_it_waits_for_and_is_reached_afterwards(
    hand: Hand, backend: FakeBackend
) -> None:
    async with running(hand.bus, backend, plan(limits=Limits(stop_within_s=0.3))):
        await ready(hand)
        backend.silent = True
        await hand.send(s.Stop())
        waits = await hand.until(s.Stopping, where=lambda event: bool(event.waits_for))
        assert (waits.reason, waits.waits_for) == ("asked", "the engine does not answer")
        with pytest.raises(Unavailable, match=r"but stopping \(the engine does not answer\)"):
            await Client(hand.bus, answer_timeout_s=5).stop("acme", "one", timeout_s=0.5)
        # Another cause is said as well, and then a destroy has to wait.
        backend.silent, backend.stop_error = False, Unavailable("it survives SIGKILL", retry_after_s=0.05)
        await hand.until(s.Stopping, where=lambda event: event.waits_for == "it survives SIGKILL")
        await hand.send(s.Destroy())
        await hand.until(s.Destroying, where=lambda event: event.waits_for == "it survives SIGKILL")
        backend.stop_error = None
        await hand.until(s.Destroyed)
    told = [kind for kind in await hand.types() if not kind.startswith("command.")]
    assert told == ["requested", "provisioned", "ready", *["stopping"] * 3, *["destroying"] * 2, "destroyed"]


async def test_what_cannot_be_started_because_nobody_answers_fails_and_what_comes_up_after_all_is_ended(
    hand: Hand, backend: FakeBackend
) -> None:
    rules = Rules(installation="ours", node="here", boot_within_s=0.5)
    async with running(hand.bus, backend, plan(rules=rules)):  # no sweep for a minute
        backend.silent = True
        await hand.create()
        failed = await hand.until(s.Failed)
        assert (failed.stage, failed.code) == ("provision", "BOOT_TIMEOUT")
        assert failed.message == "the session could not be started in time: the engine does not answer"
        await hand.send(s.Destroy())
        await hand.until(s.Destroying)
        backend.silent = False
        await hand.until(s.Destroyed)


async def test_what_was_asked_for_while_nobody_answered_starts_as_soon_as_somebody_does(
    hand: Hand, backend: FakeBackend
) -> None:
    async with running(hand.bus, backend, plan()):  # no sweep for a minute
        backend.silent = True
        await hand.create()
        await hand.until(s.Requested)
        await asyncio.sleep(0.1)
        backend.silent = False
        await hand.until(s.Provisioned)


async def test_nothing_is_concluded_from_a_silent_backend(hand: Hand, backend: FakeBackend, spawner: None) -> None:
    await ready(hand)
    backend.silent = True
    backend.die(ONE)
    await asyncio.sleep(0.5)
    assert (await hand.types())[-1] == "ready"
    backend.silent = False
    assert (await hand.until(s.Stopped)).reason == "killed"


async def test_a_late_heartbeat_degrades_and_the_next_recovers(hand: Hand, backend: FakeBackend) -> None:
    rules = Rules(installation="ours", node="here", late_s=0.3)
    async with running(hand.bus, backend, plan(rules=rules)):
        await ready(hand)
        await hand.until(s.Degraded)
        for _ in range(40):
            await hand.beat()
            await asyncio.sleep(0.05)
        await hand.until(s.Recovered)
        assert "stop 1-1" not in backend.calls


def drained(asked: list[str], **answer: object) -> Callable[[str, bytes], Awaitable[bytes]]:
    """A runnerd that is asked to drain, and says so."""

    async def handler(subject: str, body: bytes) -> bytes:
        verb = subject.rsplit(".", 1)[1]
        if verb != "hold":
            asked.append(verb)
        says = {"live_execs": [], "idle_s": 5.0} | answer
        return msgspec.json.encode(says if verb == "drain" else q.Done())

    return handler


async def test_the_sweep_stops_what_is_idle_after_a_drain(hand: Hand, backend: FakeBackend) -> None:
    asked: list[str] = []

    async def beats() -> None:
        while True:
            await hand.beat(idle_s=5)
            await asyncio.sleep(0.05)

    async with running(hand.bus, backend, plan(limits=Limits(max_idle_s=1), sweep_s=0.1)):
        await ready(hand)
        async with hand.bus.serve("req.runnerd.acme.one.*", drained(asked)):
            beating = asyncio.create_task(beats())
            assert (await hand.until(s.Stopping)).reason == "idle"
            assert (await hand.until(s.Stopped)).reason == "idle"
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
    assert asked == ["drain"]
    assert "destroy" not in backend.calls
    assert ONE in backend.workspaces


@pytest.mark.parametrize(
    ("open_exec", "answer", "asked"),
    [
        (False, {"live_execs": ["e"]}, ["drain", "lift"]),
        (True, {}, []),
        (False, None, []),
        (False, {"idle_s": 0.2}, ["drain", "lift"]),
        (False, {"idle_s": None}, ["drain", "lift"]),
    ],
)
async def test_the_sweep_spares_what_lives_what_was_used_since_and_what_does_not_answer(
    hand: Hand, backend: FakeBackend, open_exec: bool, answer: dict[str, object] | None, asked: list[str]
) -> None:
    heard: list[str] = []
    async with running(hand.bus, backend, plan(limits=Limits(max_idle_s=1))) as spawner:
        await ready(hand)
        if open_exec:
            await hand.say(x.Accepted(boot_id="1-1"), id="e", n=1)
        subject = "req.runnerd.acme.one.*" if answer is not None else "req.runnerd.acme.nobody.*"
        async with hand.bus.serve(subject, drained(heard, **(answer or {}))):
            assert not await spawner._sweeper.sweep(a.Sweep(ONE, "idle"))
        assert (await hand.types())[-1] == "ready"
    assert heard == asked


async def test_an_expired_session_is_stopped_however_recently_it_was_used(hand: Hand, backend: FakeBackend) -> None:
    asked: list[str] = []
    async with running(hand.bus, backend, plan()) as spawner:
        await ready(hand, ttl_s=1e-3)
        async with hand.bus.serve("req.runnerd.acme.one.*", drained(asked, idle_s=0.0)):
            assert await spawner._sweeper.sweep(a.Sweep(ONE, "ttl"))
        assert (await hand.until(s.Stopped)).reason == "ttl"


@pytest.mark.parametrize("meanwhile", [s.Extend(ttl_s=600), s.Pin()])
async def test_what_is_extended_or_pinned_during_a_sweep_is_spared(
    hand: Hand, backend: FakeBackend, meanwhile: s.SessionCommand
) -> None:
    asked: list[str] = []
    answer = drained(asked)

    async def somebody_is_quicker(subject: str, body: bytes) -> bytes:
        if subject.endswith("drain"):
            await hand.until(s.Extended | s.Pinned, cause=await hand.send(meanwhile))  # type: ignore[arg-type]
        return await answer(subject, body)

    async with running(hand.bus, backend, plan()) as spawner:
        await ready(hand, ttl_s=1e-3)
        async with hand.bus.serve("req.runnerd.acme.one.*", somebody_is_quicker):
            assert not await spawner._sweeper.sweep(a.Sweep(ONE, "ttl"))
        assert "stopping" not in await hand.types()
    assert asked == ["drain", "lift"]


async def test_a_new_spawner_that_has_heard_nothing_yet_spares_an_expired_session_that_works(
    hand: Hand, backend: FakeBackend
) -> None:
    """Behaviour 66, cold: no heartbeat, and an exec of which the log knows nothing is told by the drain."""
    asked: list[str] = []
    async with running(hand.bus, backend, plan()):
        await ready(hand, ttl_s=1e-3)
    async with hand.bus.serve("req.runnerd.acme.one.*", drained(asked, live_execs=["e"])):
        async with running(hand.bus, backend, plan()):
            async with asyncio.timeout(10):
                while "lift" not in asked:
                    await asyncio.sleep(0.01)
            assert "stopping" not in await hand.types()
    assert asked == ["drain", "lift"]


async def test_the_sweep_spares_the_pinned_and_stops_them_when_unpinned(hand: Hand, backend: FakeBackend) -> None:
    async with running(hand.bus, backend, plan(limits=Limits(max_ttl_s=0.3), sweep_s=0.1)):
        await ready(hand)
        await hand.until(s.Pinned, cause=await hand.send(s.Pin()))
        asked: list[str] = []
        async with hand.bus.serve("req.runnerd.acme.one.*", drained(asked)):
            await asyncio.sleep(0.8)
            assert (asked, (await hand.types())[-1]) == ([], "pinned")
            await hand.send(s.Unpin())
            assert (await hand.until(s.Stopping)).reason == "ttl"


@pytest.mark.parametrize("ending", [None, s.Stop(), s.Destroy()])
async def test_what_was_decided_about_a_boot_that_is_over_does_nothing_to_the_next(
    hand: Hand, backend: FakeBackend, ending: s.SessionCommand | None
) -> None:
    async with running(hand.bus, backend, plan()) as spawner:
        await ready(hand)
        backend.die(ONE)
        await hand.until(s.Stopped)
        await hand.send(s.Resume())
        await hand.until(s.Provisioned, where=lambda event: event.boot == 2)
        await hand.bootstrap("1-2")
        if ending is not None:
            backend.stop_error = Unavailable("it does not end", retry_after_s=9)
            await hand.send(ending)
            await hand.until(s.Stopping if isinstance(ending, s.Stop) else s.Destroying)
            backend.stop_error = NotFound("there is no boot 1-1")
        before = await hand.types()
        # Another spawner, which was slow, still has this on its list.
        late = a.Remove(ONE, "1-1") if isinstance(ending, s.Destroy) else a.Halt(ONE, "1-1", None)
        await spawner._effects.perform(late)
        assert await hand.types() == before
        assert backend.sandboxes[ONE].status == "running"


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

    async def ask(verb: str, request: q.Request) -> bytes:
        return await hand.bus.request(hand.subjects().request("spawner", verb), msgspec.json.encode(request))

    head = msgspec.json.decode(await ask("log", q.AskLog(boot_id="1-1", execs=["e", "none"])), type=q.LogHead)
    assert (head.epoch, head.commands_last) == (first.epoch, 1)
    assert head.execs == {
        "e": q.ExecHead(boot_id="1-1", started_by=head.execs["e"].started_by, last_n=3),
        "none": q.ExecHead(),
    }
    made = msgspec.json.decode(await ask("feed", q.MakeFeed(boot_id="1-1", after=1)), type=q.FeedMade)
    assert made.feed == first.feed
    command = await hand.send(x.Cancel(exec="e"))
    feed = hand.bus.feed("CMD", made.feed)
    async with asyncio.timeout(5):
        batch = await anext(feed)
    await feed.aclose()
    assert batch[0].subject.endswith(command)
    for verb, request in (("log", q.AskLog(boot_id="1-0")), ("feed", q.MakeFeed(boot_id="1-2", after=0))):
        with pytest.raises(Denied):
            await ask(verb, request)


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
        if msgspec.json.decode(body, type=q.Hold).hold:
            told.set()
        return msgspec.json.encode(q.Done())

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
