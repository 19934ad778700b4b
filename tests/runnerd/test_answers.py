"""What runnerd appends besides execs: stored once whatever happens to the answer, and never believed stored wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.memory_store import MemoryStream
from sandreel_core.clock import new_id, now
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.contract.workspace import EnvPatched
from sandreel_core.errors import Conflict
from sandreel_core.log import Log
from sandreel_runnerd import answers as answers_module
from sandreel_runnerd.answers import Writer
from tests.support.execlog import REEL

SUBJECTS = SessionSubjects("acme", "s1")
SUBJECT = SUBJECTS.event("workspace")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "_MAX_RETRY_S", 0.001)


def patched(value: str) -> Envelope:
    return seal(EnvPatched(set={"A": value}), id=new_id(), source="/test", subject=SUBJECT, time=now())


class World:
    """A stream that has forgotten every message id, as behind the duplicate window, whenever it is asked to."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.before = 0

    @property
    def stream(self) -> MemoryStream:
        return self.bus.server.store.stream(REEL.name)

    def forget_ids(self) -> None:
        self.stream._ids.clear()

    def lose_next_answer(self) -> None:
        """It is stored, nobody hears of it, and when it is sent again its id has been forgotten."""
        left = ["lose_ack"]

        def fate(subject: str, body: bytes) -> Any:
            if left:
                return left.pop()
            self.forget_ids()
            return None

        self.bus.fate = fate

    def stored(self) -> list[int]:
        return [stored.sequence for stored in self.stream.after(self.before, [SUBJECT])]


@asynccontextmanager
async def world(*, last: int | None, before: int = 0) -> AsyncIterator[tuple[World, Writer]]:
    """`before`: how many events of earlier boots stand there."""
    here = World()
    await here.bus.ensure([REEL])
    for index in range(before):
        here.before = await here.bus.append(SUBJECT, encode(patched(f"old {index}")))
    writer = Writer(here.bus, SUBJECT, alone=True, log=Log("test"), last=last)
    running = asyncio.ensure_future(writer.run())
    try:
        async with asyncio.timeout(20):
            yield here, writer
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("before", [0, 2])
async def test_law_7_the_first_event_of_a_boot_is_stored_once_over_a_lost_answer(before: int) -> None:
    async with world(last=before, before=before) as (here, writer):
        here.lose_next_answer()
        stored = [await writer.put(patched(value)) for value in ("1", "2")]
        assert [await one for one in stored] == here.stored() == [before + 1, before + 2]


async def test_law_7_what_expects_a_revision_is_no_conflict_with_itself() -> None:
    async with world(last=2, before=2) as (here, writer):
        here.lose_next_answer()
        assert await (await writer.put(patched("1"), 2)) == 3
        assert here.stored() == [3]
        with pytest.raises(Conflict):
            await (await writer.put(patched("2"), 2))
        assert here.stored() == [3]


async def test_what_a_restored_stream_has_not_is_stored_again() -> None:
    async with world(last=2, before=2) as (here, writer):

        def fate(subject: str, body: bytes) -> Any:
            if 2 in here.stream.messages:
                # Nobody answers; what comes back is a copy of before the last event.
                here.stream.remove(2)
                return "lose"
            return None

        here.bus.fate = fate
        sequence = await (await writer.put(patched("1")))
        assert here.stored() == [sequence]


async def test_a_writer_that_was_not_told_the_last_sequence_learns_it() -> None:
    """From a spawner of an earlier version."""
    async with world(last=None, before=2) as (here, writer):
        assert await (await writer.put(patched("1"))) == 3
        here.lose_next_answer()
        assert await (await writer.put(patched("2"))) == 4
        assert here.stored() == [3, 4]
