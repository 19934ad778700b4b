"""Who of a conversation is next, and who does not get into the line."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from sandreel_bridge.index import Index, streams
from sandreel_bridge.journal import Journal, Name
from sandreel_bridge.line import ACTOR, Line
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.message import Event
from sandreel_core.contract.session import CommandRefused
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Refused
from sandreel_core.turn_decision import MAX_QUEUED
from tests.support.turns import ME, requested

pytestmark = pytest.mark.timeout(30)
REFUSAL = CommandRefused(command_id="c9", code="QUEUE_FULL", message="no")
OVER = c.TurnFinished(status="success")


class Town:
    """A conversation, and turns that are asked for in it."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.index = Index(self.bus)
        self.line = Line(self.bus, self.index, 1)

    async def opened(self) -> Town:
        await ensure_installation(self.bus)
        await self.bus.ensure(streams())
        return self

    async def say(self, turn: str, *events: Event) -> None:
        subject = SessionSubjects("acme", "s1").event("turn", turn)
        for event in events:
            cause = "c1" if isinstance(event, c.TurnRequested | CommandRefused) else None
            envelope = seal(
                event, id=f"{turn}-{event.type}", source=ME, subject=subject, time=datetime.now(UTC), causationid=cause
            )
            await self.bus.append(subject, encode(envelope))

    async def ask(self, turn: str, conversation: str = "talk") -> None:
        assert await self.join(turn, conversation) is None
        await self.say(turn, requested(conversation_id=conversation))

    async def join(self, turn: str, conversation: str = "talk", by: str | None = "somebody") -> Refused | None:
        return await self.line.join(Name("acme", "s1", turn), requested(conversation_id=conversation), asked_by=by)

    async def journal(self, turn: str) -> Journal:
        journal = Journal(self.bus, Name("acme", "s1", turn), 1, source=ME)
        await journal.catch_up()
        return journal


async def still(task: asyncio.Task[bool]) -> bool:
    """Whether it waits, also when it has looked."""
    for _ in range(50):
        await asyncio.sleep(0)
    return not task.done()


async def test_each_waits_for_the_one_in_front_of_it_by_the_order_of_the_log() -> None:
    town = await Town().opened()
    for turn in ("b", "a", "c"):
        await town.ask(turn)
    await town.ask("z", "another")
    assert await town.join("phantom") is None, "whoever let it in died before it was asked for"
    assert await town.line.wait(await town.journal("b"))
    assert await town.line.wait(await town.journal("z"))
    waiting = {turn: asyncio.create_task(town.line.wait(await town.journal(turn))) for turn in ("a", "c")}
    assert await still(waiting["a"])
    await town.say("b", REFUSAL)
    town.line.moved.fire()
    assert await still(waiting["a"])
    await town.say("b", OVER, REFUSAL)
    town.line.moved.fire()
    assert await waiting["a"]
    assert await still(waiting["c"])
    await town.index.settled(Name("acme", "s1", "a"))
    assert await waiting["c"], "it is looked at also when nobody says that something has moved"


async def test_one_that_something_is_said_of_thinks_again() -> None:
    town = await Town().opened()
    await town.ask("a")
    await town.ask("b")
    journal = await town.journal("b")
    waiting = asyncio.create_task(town.line.wait(journal))
    assert await still(waiting)
    await town.say("b", c.TurnInterrupting())
    await journal.catch_up()
    town.line.moved.fire()
    assert await waiting is False


async def test_ten_wait_behind_the_one_that_runs_and_no_more() -> None:
    town = await Town().opened()
    await town.ask("runs")
    names = [f"t{number}" for number in range(MAX_QUEUED + 5)]
    answers = await asyncio.gather(*(town.join(name) for name in names))
    assert answers.count(None) == MAX_QUEUED
    let_in = [name for name, answer in zip(names, answers, strict=True) if answer is None]
    for name in let_in:
        await town.say(name, requested(conversation_id="talk"))
    full = await town.join("late")
    assert full is not None
    assert full.code == "QUEUE_FULL"
    assert "10 turns of the conversation wait" in str(full)
    assert await town.join("late", "another") is None
    assert await town.join(let_in[0]) is None, "it is in already"
    assert await town.join("runs-next", by=ACTOR) is None, "what follows from a turn is never lost"
    await town.say("runs", OVER)
    assert await town.join("late") is not None
    await town.say(let_in[0], OVER)
    assert await town.join("late") is None
