"""What a spawner answers for a boot that is over or never was: lost execs, refused commands, dead letters."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from sandreel_core.bus.crew import Crew
from sandreel_core.bus.installed import SLOTS
from sandreel_core.bus.measures import CommandMeasures
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import SPAWNER_REFUSALS
from sandreel_core.client import Client
from sandreel_core.clock import new_id, now
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.credential import Grant
from sandreel_core.contract.message import Command
from sandreel_core.contract.turn import Interrupt
from sandreel_core.contract.workspace import PatchEnv
from sandreel_core.errors import Refused, Unavailable
from sandreel_core.metrics import Metrics
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.journal import Journal
from sandreel_core.spawner.refusals import Refusals
from sandreel_core.spawner.sessions import Sessions
from tests.support.backend import FakeBackend
from tests.support.spawner import ONE, TWO, Hand, plan, ready, running


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
