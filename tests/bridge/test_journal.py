"""A turn's own subject, folded once each and in order, however it is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from sandreel_bridge.journal import Journal, Name
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import Stored
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.contract.codec import encode
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


async def test_an_event_whose_answer_was_lost_stands_there_once() -> None:
    bus, journal = await opened()
    await stored(bus, requested())
    await journal.catch_up()
    put, lost = bus.put, iter([True])

    def losing(*given: object) -> tuple[int, object]:
        sequence, fate = put(*given)  # type: ignore[arg-type]
        if next(lost, False):
            raise Unavailable("the answer was lost")
        return sequence, fate

    bus.put = losing  # type: ignore[assignment, method-assign]
    await journal.insist(RUNNING[1])
    assert journal.turn.preparing == RUNNING[1]
    assert await bus.subjects("REEL-0", SUBJECT) == {SUBJECT: 2}


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
