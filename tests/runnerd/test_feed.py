"""The command feed alone: what a lift, a restore and an outage do while a new feed is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from sandreel_core.bus.port import Stored
from sandreel_core.contract.bootstrap import FeedMade, MakeFeed
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import NotFound, Unavailable
from sandreel_core.log import Log
from sandreel_runnerd import feed as feed_module
from sandreel_runnerd.feed import Feed


class Spawner:
    """A bus with nothing behind it but a list of commands, and a spawner that answers when it is told to."""

    def __init__(self) -> None:
        self.commands: list[Stored] = []
        self.connected = True
        self.asked: list[int] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.may_take = asyncio.Event()
        self.may_take.set()
        self._news = asyncio.Condition()
        self._gone = asyncio.Event()

    async def say(self, *sequences: int) -> None:
        async with self._news:
            self.commands += [Stored("cmd", sequence, b"", 0) for sequence in sequences]
            self._news.notify_all()

    def lose_feed(self) -> None:
        self._gone.set()
        self._gone = asyncio.Event()

    async def wait_connected(self, after_generation: int = 0) -> int:
        if after_generation:
            await asyncio.Event().wait()
        return 1

    async def request(self, subject: str, body: bytes, **_: Any) -> bytes:
        self.asked.append(msgspec.json.decode(body, type=MakeFeed).after)
        name = str(self.asked[-1])
        await self.may_answer.wait()
        return msgspec.json.encode(FeedMade(feed=name))

    async def feed(self, stream: str, name: str) -> AsyncGenerator[list[Stored], None]:
        position, gone = int(name), asyncio.ensure_future(self._gone.wait())
        try:
            while not gone.done():
                batch = [stored for stored in self.commands if stored.sequence > position]
                if batch:
                    position = batch[-1].sequence
                    yield batch
                else:
                    await asyncio.wait({gone}, timeout=0.005)
        finally:
            gone.cancel()
        raise NotFound("the feed is gone")


@asynccontextmanager
async def reading(spawner: Spawner) -> AsyncIterator[tuple[Feed, list[int]]]:
    taken: list[int] = []

    async def take(stored: Stored) -> None:
        await spawner.may_take.wait()
        taken.append(stored.sequence)

    subjects = SessionSubjects("acme", "s1")
    feed = Feed(spawner, subjects, boot_id="1-1", after=0, take=take, log=Log("test"))  # type: ignore[arg-type]
    task = asyncio.ensure_future(feed.run("0"))
    try:
        yield feed, taken
    finally:
        feed.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "_QUIET_S", 0.05)
    monkeypatch.setattr(feed_module, "_FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(feed_module, "_ATTEND_WITHIN_S", 0.2)


async def test_what_a_drain_left_is_taken_although_it_is_lifted_while_a_feed_is_asked_for() -> None:
    spawner = Spawner()
    async with reading(spawner) as (feed, taken):
        await spawner.say(1)
        await until(lambda: feed.attended and taken == [1])
        await feed.drain(1)
        await spawner.say(2)
        await asyncio.sleep(0.03)
        spawner.may_answer.clear()
        spawner.lose_feed()
        await until(lambda: spawner.asked == [2])
        feed.lift()
        spawner.may_answer.set()
        await spawner.say(3)
        await until(lambda: len(taken) >= 2)
        await until(lambda: taken == [1, 2, 3])


async def test_commands_are_read_after_a_restore_that_is_heard_of_while_a_feed_is_asked_for() -> None:
    spawner = Spawner()
    async with reading(spawner) as (feed, taken):
        await spawner.say(1, 2, 3, 4, 5)
        await until(lambda: len(taken) == 5)
        spawner.may_answer.clear()
        spawner.lose_feed()
        await until(lambda: spawner.asked == [5])
        del spawner.commands[2:]
        feed.hear(2)
        spawner.may_answer.set()
        await spawner.say(3)
        await until(lambda: taken == [1, 2, 3, 4, 5, 3])


async def test_commands_are_read_after_a_restore_that_others_have_written_beyond() -> None:
    """CMD was restored to 2, and has 6 again: 3 to 6 are new, although 5 had been handled."""
    spawner = Spawner()
    async with reading(spawner) as (feed, taken):
        await spawner.say(1, 2, 3, 4, 5)
        await until(lambda: len(taken) == 5)
        spawner.may_answer.clear()
        spawner.lose_feed()
        await until(lambda: spawner.asked == [5])
        del spawner.commands[2:]
        feed.hear(6, 2)
        spawner.may_answer.set()
        await spawner.say(3, 4, 5, 6)
        await until(lambda: taken == [1, 2, 3, 4, 5, 3, 4, 5, 6])


async def test_nothing_is_known_to_be_read_while_there_is_no_feed() -> None:
    spawner = Spawner()
    async with reading(spawner) as (feed, taken):
        await until(lambda: feed.attended)
        spawner.may_answer.clear()
        spawner.lose_feed()
        await until(lambda: spawner.asked == [0])
        await spawner.say(1)
        with pytest.raises(Unavailable):
            await feed.drain(1)
        assert not feed.draining
        spawner.may_answer.set()
        await until(lambda: taken == [1])


async def test_commands_are_not_read_to_their_end_while_more_of_them_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the feed has been open: every batch is waited behind anew, until it is silent once."""
    armed: list[float] = []
    monkeypatch.setattr(feed_module, "_QUIET_S", 3600)
    spawner = Spawner()
    async with reading(spawner) as (feed, taken):
        for sequence in range(1, 4):
            await spawner.say(sequence)
            await until(lambda sequence=sequence: taken[-1:] == [sequence])
            assert feed._quiet_timer is not None
            armed.append(feed._quiet_timer.when())
        assert armed == sorted(set(armed))
        assert not feed.attended


async def test_what_was_read_and_not_taken_yet_is_not_read_to_the_end() -> None:
    spawner = Spawner()
    async with reading(spawner) as (feed, taken):
        await until(lambda: feed.attended)
        spawner.may_take.clear()
        await spawner.say(1)
        await until(lambda: not feed.attended)
        spawner.may_take.set()
        # And what comes while it reads live does not have to be followed by a silence.
        await until(lambda: taken == [1])
        assert feed.attended


async def test_nothing_is_known_to_be_read_in_a_drain_behind_a_lift_and_without_a_connection() -> None:
    spawner = Spawner()
    async with reading(spawner) as (feed, _):
        await until(lambda: feed.attended)
        await feed.drain(0)
        assert not feed.attended
        spawner.may_answer.clear()
        feed.lift()
        assert not feed.attended
        await until(lambda: spawner.asked == [0])
        assert not feed.attended
        spawner.may_answer.set()
        await until(lambda: feed.attended)
        spawner.connected = False
        assert not feed.attended


async def test_what_was_closed_is_not_opened_by_a_lift_or_a_drain() -> None:
    """runnerd leaves: a command that it took now would have nobody to obey it."""
    spawner = Spawner()
    async with reading(spawner) as (feed, taken):
        await spawner.say(1)
        await until(lambda: feed.attended and taken == [1])
        feed.close()
        feed.lift()
        await feed.drain(5)
        feed.lift()
        await spawner.say(2)
        await until(lambda: feed._received == 2)
        await feed.drain(5)
        assert taken == [1]
        assert feed.draining
