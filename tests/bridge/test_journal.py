"""A turn's own subject, folded once each and in order, however it is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from sandreel_bridge.journal import Journal, Name
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.memory_parts import Fate
from sandreel_core.bus.port import Stored
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import decode_event, encode
from sandreel_core.contract.message import Event
from sandreel_core.errors import Conflict, Unavailable
from tests.support.turns import ME, OTHER, RUNNING, SUBJECTS, requested, said, text

NAME = Name("acme", "s1", "t1")
SUBJECT = SUBJECTS.event("turn", "t1")


async def stored(bus: MemoryBus, *events: Event, source: str = ME) -> list[Stored]:
    found = []
    for event in events:
        body = encode(said(event, source=source))
        found.append(Stored(SUBJECT, await bus.append(SUBJECT, body), body, 0))
    return found


async def opened() -> tuple[MemoryBus, Journal]:
    bus = MemoryBus()
    await ensure_installation(bus)
    return bus, Journal(bus, NAME, 1, source=ME)


async def test_what_is_heard_while_it_is_read_is_folded_behind_it() -> None:
    bus, journal = await opened()
    known = await stored(bus, *RUNNING, text(n=3), text(n=4))
    later = await stored(bus, text(n=5))
    journal.hear(known[-1])
    assert journal.revision == 0, "what stands before it is not known"
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def follow(*_: object, **__: object) -> AsyncGenerator[list[Stored], None]:
        """Two batches, the second one late."""
        yield known[:2]
        begun.set()
        await go_on.wait()
        yield known[2:]

    bus.follow = follow  # type: ignore[method-assign]
    reading = asyncio.create_task(journal.catch_up())
    await begun.wait()
    journal.hear(later[0])
    assert journal.revision == known[1].sequence
    go_on.set()
    await reading
    journal.hear(later[0])
    assert (journal.turn.run.source_n, journal.turn.accepted) == (5, True)
    for each in await stored(bus, text(n=6), text(n=6)):
        journal.hear(each)
    assert (journal.turn.run.source_n, journal.turn.run.at_source) == (6, 2)


async def test_one_that_could_not_be_read_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bus, journal = await opened()
    known = await stored(bus, *RUNNING, text(n=3))
    bus.go_away()
    reading = asyncio.create_task(journal.catch_up())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    journal.hear(known[-1])
    assert (journal.whole, journal.revision) == (False, 0)
    bus.come_back()
    await journal.catch_up()
    assert journal.turn.run.said


async def test_whoever_is_overtaken_thinks_again_and_what_is_true_anyway_is_said_behind() -> None:
    bus, journal = await opened()
    await stored(bus, *RUNNING)
    await journal.catch_up()
    await stored(bus, text("theirs"), source=ME)
    with pytest.raises(Conflict):
        await journal.say(text("mine", n=4))
    assert journal.turn.run.source_n == 3
    await stored(bus, text("more", n=4), source=ME)
    await journal.insist(text("mine", n=5))
    assert journal.turn.run.source_n == 5
    await stored(bus, text("of another bridge", n=6), source=OTHER)
    with pytest.raises(Conflict):
        await journal.insist(text("late", n=7))
    assert not journal.mine


async def test_what_was_decided_before_something_was_heard_is_thought_over() -> None:
    """Also where it was heard before it is said, by whoever watches all turns: a message that came meanwhile would be lost."""
    bus, journal = await opened()
    await stored(bus, *RUNNING)
    await journal.catch_up()
    decided = journal.revision
    [message] = await stored(bus, c.SteerQueued(message_id="m1", text="and this"))
    journal.hear(message)
    assert journal.revision == message.sequence
    with pytest.raises(Conflict):
        await journal.say(c.TurnFinished(status="success", usage=c.Usage()), known=decided)
    last = await bus.last(SUBJECTS.stream, SUBJECT)
    assert last is not None
    assert last.sequence == message.sequence
    await journal.say(c.SteerRequeued(message_ids=["m1"]), known=journal.revision)
    assert list(journal.turn.requeued) == ["m1"]


async def test_an_event_whose_answer_was_lost_stands_there_once() -> None:
    bus, journal = await opened()
    await stored(bus, requested())
    await journal.catch_up()
    fates = iter(["lose_ack"])
    bus.fate = lambda subject, body: next(fates, None)  # type: ignore[arg-type]
    await journal.insist(RUNNING[1])
    assert journal.turn.preparing == RUNNING[1]
    assert await bus.subjects("REEL-0", SUBJECT) == {SUBJECT: 2}


async def known(bus: MemoryBus, journal: Journal) -> None:
    await stored(bus, *RUNNING)
    await journal.catch_up()


def texts_of(bodies: list[Stored]) -> list[str]:
    events = [decode_event(SUBJECT, each.body).data for each in bodies]
    return [event.text for event in events if isinstance(event, a.AgentText)]


async def all_of(bus: MemoryBus) -> list[Stored]:
    return [
        each async for item in bus.follow("REEL-0", [SUBJECT], live=False) if isinstance(item, list) for each in item
    ]


async def test_what_is_heard_of_an_append_whose_answer_is_lost_is_not_appended_again() -> None:
    """Of one event, and of a batch: all of it, its beginning, or none was heard before it is tried again."""
    for count in (1, 5):
        for heard in range(count + 1):
            bus, journal = await opened()
            await known(bus, journal)
            fates = iter(["lose_ack"])
            bus.fate = lambda subject, body, fates=fates: next(fates, None)  # type: ignore[misc]
            events = [journal.sealed(text(str(number), n=4)) for number in range(count)]
            saying = asyncio.create_task(journal.insist_all(events))
            while len(there := await all_of(bus)) < len(RUNNING) + count:
                await asyncio.sleep(0)
            for each in there[len(RUNNING) :][:heard]:
                journal.hear(each)
            await saying
            assert texts_of(await all_of(bus)) == [str(number) for number in range(count)]
            assert journal.turn.run.at_source == count


async def test_a_batch_of_which_a_killed_server_kept_the_beginning_goes_on_behind_it() -> None:
    bus, journal = await opened()
    await known(bus, journal)
    events = [journal.sealed(text(str(number), n=4)) for number in range(6)]

    async def killed(subject: str, bodies: Sequence[bytes], *, expected: int) -> int:
        del bus.append_all
        for body in bodies[:2]:
            await bus.append(subject, body)
        raise Unavailable("the server was killed")

    bus.append_all = killed  # type: ignore[method-assign]
    await journal.insist_all(events)
    assert texts_of(await all_of(bus)) == [str(number) for number in range(6)]


async def test_a_batch_meets_what_others_have_said_and_stands_whole_behind_it() -> None:
    bus, journal = await opened()
    await known(bus, journal)
    await bus.append(SUBJECT, encode(said(c.SteerQueued(message_id="m1", text="more"), command="c2")))
    await journal.insist_all([journal.sealed(text(str(number), n=4)) for number in range(3)])
    types = [decode_event(SUBJECT, each.body).type for each in await all_of(bus)]
    assert types[len(RUNNING) :] == ["turn.steer_queued", *["agent.text"] * 3]
    assert (journal.turn.waiting, journal.turn.run.at_source) == (["m1"], 3)


@pytest.mark.parametrize("heard", [True, False])
async def test_whoever_has_lost_the_turn_appends_nothing_more(heard: bool) -> None:
    """Whether it has heard so before, hears it while the bus is away, or is told by a conflict."""
    bus, journal = await opened()
    await known(bus, journal)
    claimed = await stored(bus, c.Checkpoint(exec_n=1), source=OTHER)
    if heard:
        journal.hear(claimed[0])
    before = len(await all_of(bus))
    for _ in range(2):
        with pytest.raises(Conflict):
            await journal.insist_all([journal.sealed(text(str(number), n=4)) for number in range(3)])
    with pytest.raises(Conflict):
        await journal.insist(c.Checkpoint(exec_n=4))
    assert (len(await all_of(bus)), journal.turn.driver) == (before, OTHER)


async def test_a_takeover_that_is_heard_between_two_tries_ends_them() -> None:
    bus, journal = await opened()
    await known(bus, journal)
    fates = iter(["lose", "lose"])
    tried = asyncio.Event()

    def fate(subject: str, body: bytes) -> Fate:
        found = next(fates, None)
        tried.set()
        return found  # type: ignore[return-value]

    bus.fate = fate
    saying = asyncio.create_task(journal.insist_all([journal.sealed(text("late", n=4))]))
    await tried.wait()
    bus.fate = lambda subject, body: None
    journal.hear((await stored(bus, c.Checkpoint(exec_n=1), source=OTHER))[0])
    with pytest.raises(Conflict):
        await saying
    assert texts_of(await all_of(bus)) == []


async def test_two_who_say_something_at_once_stand_one_behind_the_other() -> None:
    bus, journal = await opened()
    await known(bus, journal)
    said_by_one = [journal.sealed(text(str(number), n=4)) for number in range(40)]
    await asyncio.gather(
        *(journal.insist_all(said_by_one[at : at + 10]) for at in range(0, 40, 10)),
        journal.insist(c.SteerDelivered(message_ids=["m1"], channel="stdin")),
    )
    assert sorted(texts_of(await all_of(bus)), key=int) == [str(number) for number in range(40)]


async def test_one_whose_answer_was_lost_and_that_was_heard_before_the_next_try_stands_there_once() -> None:
    bus, journal = await opened()
    await stored(bus, requested())
    await journal.catch_up()
    put, lost = bus.put, iter([True])

    def losing(subject: str, body: bytes, *rest: object) -> tuple[int, object]:
        sequence, fate = put(subject, body, *rest)  # type: ignore[arg-type]
        if next(lost, False):
            journal.hear(Stored(subject, sequence, body, 0))
            raise Unavailable("the answer was lost")
        return sequence, fate

    bus.put = losing  # type: ignore[assignment, method-assign]
    await journal.insist(RUNNING[1])
    assert journal.turn.preparing == RUNNING[1]
    assert await bus.subjects("REEL-0", SUBJECT) == {SUBJECT: 2}


async def test_one_that_could_not_be_read_anew_goes_on_hearing(monkeypatch: pytest.MonkeyPatch) -> None:
    bus, journal = await opened()
    await stored(bus, *RUNNING)
    await journal.catch_up()

    async def follow(*_: object, **__: object) -> AsyncGenerator[list[Stored], None]:
        raise Unavailable("the server went away")
        yield []

    with monkeypatch.context() as away:
        away.setattr(bus, "follow", follow)
        with pytest.raises(Unavailable):
            await journal.catch_up()
    for each in await stored(bus, text(n=3)):
        journal.hear(each)
    assert journal.turn.run.source_n == 3


async def test_whoever_is_overtaken_while_the_server_is_away_waits_for_it() -> None:
    bus, journal = await opened()
    await stored(bus, *RUNNING)
    await journal.catch_up()
    await stored(bus, text(n=3))
    follow, away = bus.follow, iter([True])

    def leaving(*given: object, **named: object) -> object:
        if next(away, False):
            raise Unavailable("the server went away")
        return follow(*given, **named)  # type: ignore[arg-type]

    bus.follow = leaving  # type: ignore[assignment, method-assign]
    await journal.insist(text("mine", n=4))
    assert journal.turn.run.source_n == 4
