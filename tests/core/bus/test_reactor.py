"""The command loop: one answer to every command, whatever is delivered, and whatever breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandreel_core import clock
from sandreel_core import session as sessions
from sandreel_core.bus import measures as m
from sandreel_core.bus.aggregate import Aggregate, Decision
from sandreel_core.bus.loading import Loaded, load
from sandreel_core.bus.memory import MemoryBus, MemoryServer
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.bus.reactor import MAX_ATTEMPTS, Reactor
from sandreel_core.bus.streams import SPAWNER_COMMANDS, ensure_installation
from sandreel_core.contract import session as s
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.message import Command, Envelope, Event, Owner
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Full, Refused
from sandreel_core.ids import uuid7
from sandreel_core.metrics import Metrics
from sandreel_core.session import Session, Terms
from tests.core.bus.conftest import World

LIMIT_S = 20
SUBJECTS = SessionSubjects("acme", "s1")
SESSION = SUBJECTS.event("session")
CREATE = s.Create(owner=Owner(type="user", id="u1"))

Decide = Callable[[Session, Command, Terms], Event | Refused | None]


async def context(stored: Stored) -> Terms:
    return Terms(now=clock.now())


def aggregate(decide: Decide = sessions.decide, **more: Any) -> Aggregate[Session, Terms]:
    return Aggregate(
        initial=Session(),
        evolve=sessions.evolve,
        decide=decide,
        subject=lambda where: SessionSubjects(where.org, where.session).event("session"),
        context=context,
        **more,
    )


def reactor(bus: Bus, of: Aggregate[Session, Terms] | None = None, **more: Any) -> Reactor[Session, Terms]:
    return Reactor(bus, SPAWNER_COMMANDS, of or aggregate(), source="/spawner", **{"nak_delay_s": 0.005} | more)


@asynccontextmanager
async def running(*reactors: Reactor[Session, Terms]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(one.run()) for one in reactors]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def command(payload: Command = CREATE, *, id: str | None = None, **attributes: Any) -> Envelope:
    id = id or clock.new_id()
    subject = SUBJECTS.command("spawner", id)
    return seal(payload, id=id, source="/test", subject=subject, time=clock.now(), **attributes)


async def send(bus: Bus, *commands: Envelope) -> None:
    for one in commands:
        await bus.append(one.subject, encode(one))


async def answers(bus: Bus, count: int, subject: str = SESSION) -> list[Envelope]:
    """The subject's events, as soon as there are so many that answer a command."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            found: Loaded[tuple[Envelope, ...]] = await load(bus, subject, (), lambda state, event: (*state, event))
            if len(found.answers) >= count:
                return list(found.state)
            await asyncio.sleep(0.005)


async def settled(bus: Bus) -> None:
    """Until nothing is left to be acknowledged (memory twin)."""
    assert isinstance(bus, MemoryBus)
    store = bus.server.store
    consumer = store.consumers["CMD", "spawner"]
    async with asyncio.timeout(LIMIT_S):
        while consumer.pending or consumer.position < store.stream("CMD").last_sequence:
            await asyncio.sleep(0.002)


async def memory() -> MemoryBus:
    bus = MemoryBus(MemoryServer())
    await ensure_installation(bus)
    return bus


def types(events: list[Envelope]) -> list[str]:
    return [event.type for event in events]


def code(event: Envelope) -> str:
    assert isinstance(event.data, s.CommandRefused), event
    return event.data.code


async def test_a_command_gets_one_event_that_names_it(world: World) -> None:
    await ensure_installation(world.bus)
    create, pin, again = command(actor="ada", correlationid="root"), command(s.Pin()), command(s.Pin())
    async with running(reactor(world.bus), reactor(await world.another())):
        await send(world.bus, create)
        events = await answers(world.bus, 1)
        await send(world.bus, pin)
        await answers(world.bus, 2)
        await send(world.bus, again)
        events = await answers(world.bus, 3)
    assert types(events) == ["session.requested", "session.pinned", "command.settled"]
    assert [event.causationid for event in events] == [create.id, pin.id, again.id]
    assert (events[0].actor, events[0].correlationid, events[1].correlationid) == ("ada", "root", pin.id)


async def test_commands_of_many_sessions_by_two_replicas_get_one_answer_each(world: World) -> None:
    await ensure_installation(world.bus)
    other = await world.another()
    sent: list[Envelope] = []
    async with running(reactor(world.bus), reactor(other)):
        for number in range(10):
            for payload in (CREATE, s.Pin(), s.Stop()):
                id = clock.new_id()
                subject = SessionSubjects("acme", f"s{number}").command("spawner", id)
                sent.append(seal(payload, id=id, source="/test", subject=subject, time=clock.now()))
        await send(world.bus, *sent)
        for number in range(10):
            events = await answers(world.bus, 3, SessionSubjects("acme", f"s{number}").event("session"))
            assert len(events) == 3
            assert {event.causationid for event in events} == {c.id for c in sent[number * 3 : number * 3 + 3]}


async def test_a_command_that_is_delivered_again_has_its_answer_already() -> None:
    bus = await memory()
    create = command()
    lost = iter([True])
    # The answer is stored, its acknowledgement never comes: the reactor must not answer twice.
    bus.fate = lambda subject, body: "lose_ack" if subject == SESSION and next(lost, False) else None
    async with running(reactor(bus)):
        await send(bus, create)
        await settled(bus)
    assert types(await answers(bus, 1)) == ["session.requested"]


async def test_who_meets_a_conflict_loads_and_decides_again() -> None:
    bus = await memory()
    rival = MemoryBus(bus.server)
    first, second = command(), command(s.Pin())
    async with running(reactor(bus)):
        await send(bus, first)
        await settled(bus)
        # Somebody else appends: what the reactor knows is old now.
        stopping = s.Stopping(reason="idle", until=clock.now())
        event = seal(stopping, id=clock.new_id(), source="/x", subject=SESSION, time=clock.now())
        await rival.append(SESSION, encode(event))
        await send(bus, second, command(s.Stop()))
        await settled(bus)
    events = await answers(bus, 3)
    assert types(events) == ["session.requested", "session.stopping", "session.pinned", "command.settled"]


async def test_what_is_appended_beside_it_is_learnt_and_not_found_out_by_a_conflict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bus = await memory()
    mine = reactor(bus)
    tried: list[str] = []
    append = bus.append

    async def counted(subject: str, body: bytes, **more: Any) -> int:
        tried.append(subject)
        return await append(subject, body, **more)

    async with running(mine):
        await send(bus, command())
        await settled(bus)
        last = await bus.last("REEL-0", SESSION)
        assert last is not None
        stopping = s.Stopping(reason="idle", until=clock.now())
        event = seal(stopping, id=clock.new_id(), source="/x", subject=SESSION, time=clock.now())
        sequence = await bus.append(SESSION, encode(event), expected=last.sequence)
        mine.learn(SESSION, event, last.sequence, sequence)
        mine.learn(SESSION, event, last.sequence, sequence + 7)  # behind what is not known any more: passed over
        monkeypatch.setattr(bus, "append", counted)
        stop = command(s.Stop())
        await bus.append(stop.subject, encode(stop))
        await settled(bus)
    assert types(await answers(bus, 2)) == ["session.requested", "session.stopping", "command.settled"]
    assert tried == [stop.subject, SESSION]


async def test_what_cannot_be_read_is_refused_and_kept_as_a_dead_letter() -> None:
    bus = await memory()
    id = clock.new_id()
    async with running(reactor(bus)):
        await bus.append(SUBJECTS.command("spawner", id), b"no json at all")
        await bus.append("cmd.spawner.nobody", b"{}")
        await settled(bus)
        events = await answers(bus, 1)
    assert (code(events[0]), events[0].causationid) == ("BAD_REQUEST", id)
    dead = await bus.subjects("DEAD", "dead.>")
    assert dead == {f"dead.spawner.acme.s1.{id}": 1, "dead.spawner.nobody": 1}


async def test_five_failures_make_a_dead_letter_and_the_role_goes_on() -> None:
    bus = await memory()
    calls: list[str] = []

    def decide(state: Session, payload: Command, terms: Terms) -> Event | Refused | None:
        calls.append(payload.type)
        if isinstance(payload, s.Pin):
            raise ZeroDivisionError
        return sessions.decide(state, payload, terms)

    poison = command(s.Pin())
    metrics = Metrics()
    async with running(reactor(bus, aggregate(decide), measures=m.CommandMeasures(metrics))):
        await send(bus, command(), poison, command(s.Stop()))
        await settled(bus)
        events = await answers(bus, 3)
    assert metrics.counter(m.RETRIES).total() == 4
    assert metrics.counter(m.REDELIVERIES).total() == 4
    assert metrics.counter(m.DEAD_LETTERS).total() == 1
    assert metrics.counter(m.REFUSED).total("INTERNAL") == 1
    assert (metrics.counter(m.ANSWERED).total(), metrics.histogram(m.OUTCOME_S).count) == (3, 3)
    assert calls.count("session.pin") == 5
    assert sorted(types(events)) == ["command.refused", "session.requested", "session.stopping"]
    assert next(code(event) for event in events if event.causationid == poison.id) == "INTERNAL"
    assert await bus.subjects("DEAD", "dead.>") == {f"dead.spawner.acme.s1.{poison.id}": 1}


async def test_an_outage_is_no_failure_of_the_command() -> None:
    bus = await memory()
    refusals = iter(range(MAX_ATTEMPTS + 5))
    bus.fate = lambda subject, body: (
        Full("no room") if subject == SESSION and next(refusals, None) is not None else None
    )
    async with running(reactor(bus, nak_delay_s=1e-6)):
        await send(bus, command())
        await settled(bus)
    assert types(await answers(bus, 1)) == ["session.requested"]
    assert await bus.subjects("DEAD", "dead.>") == {}


async def test_expired_and_stale_commands_are_refused() -> None:
    bus = await memory()
    now = clock.now()
    old = uuid7(int((now - timedelta(days=7, minutes=-59)).timestamp() * 1000), bytes(10))
    kept = uuid7(int((now - timedelta(days=7, minutes=-61)).timestamp() * 1000), bytes(10))
    late = command(deadline=now - timedelta(seconds=1))
    metrics = Metrics()
    async with running(reactor(bus, measures=m.CommandMeasures(metrics))):
        await send(bus, command(id=old), late, command(id=kept, deadline=now + timedelta(hours=1)))
        events = await answers(bus, 3)
        await settled(bus)
    assert [metrics.counter(m.REFUSED).total(code) for code in ("STALE", "EXPIRED")] == [1, 1]
    assert metrics.counter(m.ANSWERED).total() == 3
    found = {event.causationid: event for event in events}
    assert (code(found[old]), code(found[late.id]), found[kept].type) == ("STALE", "EXPIRED", "session.requested")


async def test_a_sender_may_say_which_revision_it_has_seen() -> None:
    bus = await memory()
    epoch = (await bus.state("REEL-0")).epoch
    wanted = [
        (CREATE, f"{epoch}:0:0", "session.requested"),
        (s.Pin(), f"{epoch}:0:7", "WRONG_REVISION"),
        (s.Pin(), f"{epoch}:0:2", "session.pinned"),
        (s.Unpin(), f"{epoch}:1:3", "WRONG_REVISION"),
        (s.Unpin(), "other:0:4", "WRONG_REVISION"),
        (s.Unpin(), "nonsense", "BAD_REQUEST"),
        (s.Unpin(), f"{epoch}:0:6", "session.unpinned"),
    ]
    async with running(reactor(bus)):
        for count, (payload, revision, _) in enumerate(wanted, 1):
            await send(bus, command(payload, expectedrevision=revision))
            await answers(bus, count)
    events = await answers(bus, len(wanted))
    assert [code(e) if e.type == "command.refused" else e.type for e in events] == [answer for *_, answer in wanted]


async def test_admit_may_refuse_and_decided_is_told_once() -> None:
    bus = await memory()
    told: list[tuple[str, int]] = []

    async def admit(decision: Decision[Session]) -> Refused | None:
        return Refused("QUOTA_EXCEEDED", "no more") if decision.event.type == "session.pinned" else None

    async def decided(decision: Decision[Session]) -> None:
        told.append((decision.event.type, decision.sequence))

    async with running(reactor(bus, admit=admit, decided=decided)):
        await send(bus, command(), command(s.Pin()), command(s.Stop()))
        await settled(bus)
    events = await answers(bus, 3)
    assert types(events) == ["session.requested", "command.refused", "session.stopping"]
    assert told == [("session.requested", 1), ("command.refused", 2), ("session.stopping", 3)]


async def test_what_is_not_the_roles_own_is_only_acknowledged() -> None:
    bus = await memory()

    def mine(state: Session, stored: Stored) -> bool:
        return not state.pinned

    async with running(reactor(bus, aggregate(mine=mine))):
        await send(bus, command(), command(s.Pin()), command(s.Stop()))
        await bus.append(SUBJECTS.command("spawner", clock.new_id()), b"unreadable, and not ours")
        await settled(bus)
    assert types(await answers(bus, 2)) == ["session.requested", "session.pinned"]
    assert await bus.subjects("DEAD", "dead.>") == {}


async def test_a_body_that_is_no_event_is_passed_over() -> None:
    bus = await memory()
    await bus.append(SESSION, b"rubbish")
    async with running(reactor(bus)):
        await send(bus, command())
        await settled(bus)
    found = await load(bus, SESSION, Session(), sessions.evolve)
    assert (found.skipped, found.revision, found.state.phase) == (1, 2, "requested")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["id", "type", "data", "time", "subject", "source", "specversion", "deadline", "expectedrevision", "x"]
MUTATION = st.tuples(st.sampled_from(FIELDS), JSON)
BODY = st.binary(max_size=200) | JSON.map(msgspec.json.encode) | st.lists(MUTATION, min_size=1, max_size=3)
TAIL = st.sampled_from(["uuid", "uuid", "uuid", "word", "deep.er", "UPPER-01938f2e"])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(letters=st.lists(st.tuples(BODY, TAIL, st.sampled_from([CREATE, s.Pin(), s.Extend(ttl_s=5)])), max_size=5))
def test_whatever_is_sent_gets_one_answer_or_is_a_dead_letter(letters: list[tuple[Any, str, Command]]) -> None:
    asyncio.run(_throw(letters))


async def _throw(letters: list[tuple[Any, str, Command]]) -> None:
    bus = await memory()
    named: list[str] = []
    nameless: set[str] = set()
    async with running(reactor(bus)):
        for index, (thrown, tail, payload) in enumerate(letters):
            good, body = command(payload), thrown
            if isinstance(thrown, list):
                body = msgspec.json.encode(msgspec.json.decode(encode(good)) | dict(thrown))
            if tail == "uuid":
                named.append(good.id)
                await bus.append(good.subject, body)
            else:
                nameless.add(f"spawner.acme.s1.{tail}{index}")
                await bus.append(f"cmd.spawner.acme.s1.{tail}{index}", body)
        last = command(s.Destroy())
        await send(bus, last)
        await settled(bus)
        found = await load(bus, SESSION, (), lambda state, event: (*state, event))
    assert sorted(event.causationid or "" for event in found.state) == sorted([*named, last.id])
    dead = {subject.removeprefix("dead.") for subject in await bus.subjects("DEAD", "dead.>")}
    assert nameless <= dead
    assert dead - nameless <= {f"spawner.acme.s1.{id}" for id in named}
