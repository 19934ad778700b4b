"""Go-back-N: whatever is done to publishes, readers see an exact prefix, and in the end everything, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandreel_core.bus.lane import Lane
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.memory_parts import Fate
from sandreel_core.bus.pipeline import SMALL_BYTES, SMALL_MESSAGES, WINDOW_MESSAGES, Pipeline
from sandreel_core.contract import exec as c
from sandreel_core.contract.codec import decode_event
from sandreel_core.errors import Denied, Full, SandreelError, TooLarge, Unavailable
from sandreel_core.ordinals import Ordinals
from tests.support.execlog import END, REEL, Writer, events, line, lines, read

SPOKEN = st.sampled_from(["ok", "ok", "ok", "lose", "lose_ack", "full", "timeout", "cut", "cut_stored"])
WITH_REFUSALS = st.one_of(SPOKEN, st.sampled_from(["denied", "large"]))
ERRORS: dict[str, SandreelError] = {
    "full": Full("full"),
    "timeout": Unavailable("no responder"),
    "denied": Denied("not yours"),
    "large": TooLarge("too large"),
}


class Trouble:
    """A bus whose first publishes meet the fates that a test drew; what comes after them is well."""

    def __init__(self, fates: list[str]) -> None:
        self.bus = MemoryBus()
        self.bus.fate = self._fate
        self.refused: set[int] = set()
        self._fates: Iterator[str] = iter(fates)

    def _fate(self, subject: str, body: bytes) -> Fate:
        word = next(self._fates, "ok")
        if word in ("cut", "cut_stored"):
            asyncio.get_running_loop().call_soon(self._cut)
            return "lose" if word == "cut" else "lose_ack"
        if word in ("lose", "lose_ack"):
            return "lose" if word == "lose" else "lose_ack"
        return ERRORS.get(word)

    def _cut(self) -> None:
        self.bus.go_away()
        asyncio.get_running_loop().call_later(0.002, self.bus.come_back)


def pipeline(bus: MemoryBus, *, window_messages: int = 64, window_bytes: int = 1 << 20) -> Pipeline:
    return Pipeline(
        bus,
        ack_timeout_s=0.02,
        first_retry_s=0.001,
        window_messages=window_messages,
        small_messages=window_messages,
        window_bytes=window_bytes,
    )


async def put(lane: Lane, writer: Writer, event: c.ExecEvent, pipe: Pipeline, *, keep: bool = False) -> None:
    while not lane.has_room:
        await pipe.changed()
    lane.put(writer.body(event, lane.next_n), lane.next_n, keep=keep)


def stored_up_to(bus: MemoryBus, subject: str) -> int:
    place = Ordinals()
    for stored in bus.server.store.stream(REEL.name).after(0, [subject]):
        place.accept(decode_event(subject, stored.body))
    return place.last


async def record(trouble: Trouble, count: int, window: int) -> Pipeline:
    writer, bus = Writer(), trouble.bus
    await bus.ensure([REEL])
    lanes: list[Lane] = []

    async def greet() -> None:
        for lane in lanes:
            lane.reconcile(stored_up_to(bus, lane.subject), "the log has a hole")

    pipe = Pipeline(
        bus, greet=greet, ack_timeout_s=0.02, first_retry_s=0.001, window_messages=window, small_messages=window
    )
    async with asyncio.timeout(30), pipe.running():
        lane = pipe.lane(writer.subject, writer)
        lanes.append(lane)
        await put(lane, writer, c.Accepted(boot_id="b1"), pipe)
        await lane.drained()
        for number in range(1, count + 1):
            await put(lane, writer, line(number), pipe)
            if number % 7 == 0:
                await asyncio.sleep(0)
        await lane.drained()
        await put(lane, writer, END, pipe, keep=True)
        await lane.drained()
    return pipe


@settings(max_examples=60, deadline=None)
@given(st.lists(SPOKEN, max_size=40), st.integers(1, 16))
def test_law_3_no_silent_loss_whatever_happens_to_publishes(fates: list[str], window: int) -> None:
    async def run() -> None:
        trouble = Trouble(fates)
        seen: list[int] = []

        async def watch() -> None:
            await trouble.bus.ensure([REEL])
            seen.extend(lines(await read(trouble.bus, live=True)))

        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            await record(trouble, 40, window)
        items = await read(trouble.bus)
        assert lines(items) == seen == list(range(1, 41))
        assert [event.n for event in events(items)] == list(range(1, 43))
        assert isinstance(events(items)[-1].data, c.Exited)

    asyncio.run(run())


@settings(max_examples=60, deadline=None)
@given(st.lists(WITH_REFUSALS, max_size=40), st.integers(1, 16), st.integers(0, 200))
def test_law_3_what_readers_see_is_always_an_exact_prefix(fates: list[str], window: int, cut: int) -> None:
    """A refusal may take events away: then a gap says so, and nothing else is missing, doubled or out of order."""

    async def run() -> None:
        trouble = Trouble(["ok", *fates])
        await record(trouble, 40, window)
        items = await read(trouble.bus)
        taken = events(items)
        assert isinstance(taken[-1].data, c.Exited)
        assert lines(items) == sorted(set(lines(items)))
        gaps = [event.data for event in taken if isinstance(event.data, c.Gap)]
        missing = set(range(1, 41)) - set(lines(items))
        assert bool(missing) <= bool(gaps)
        assert len(missing) <= sum(word in ("denied", "large") for word in fates)
        covered = {event.n for event in taken} | {n for gap in gaps for n in range(gap.from_n, gap.to_n + 1)}
        assert covered == set(range(1, (taken[-1].n or 0) + 1))
        # The same from any shorter log: a prefix of it.
        stream = trouble.bus.server.store.stream(REEL.name)
        for sequence in [sequence for sequence in stream.messages if sequence > cut]:
            stream.remove(sequence)
        earlier = events(await read(trouble.bus))
        assert earlier == taken[: len(earlier)]

    asyncio.run(run())


async def test_a_refused_event_becomes_a_gap_and_its_followers_go_out_under_new_numbers() -> None:
    trouble = Trouble(["ok", "ok", "large"])
    assert (await record(trouble, 5, 64)).gaps == 1
    taken = events(await read(trouble.bus))
    assert lines(await read(trouble.bus)) == [1, 3, 4, 5]
    gap = next(event for event in taken if isinstance(event.data, c.Gap))
    assert gap.data.from_n == 3
    assert gap.n == gap.data.to_n + 1
    assert "too large" in gap.data.why


async def test_the_end_is_never_given_up() -> None:
    trouble = Trouble(["ok", "ok", "denied", "denied", "full", "denied"])
    pipe = await record(trouble, 1, 64)
    assert (pipe.gaps, pipe.resends) == (0, 4), "what was sent again until it was taken is no gap"
    assert pipe.sent == 3 + pipe.resends
    assert [type(event.data) for event in events(await read(trouble.bus))] == [c.Accepted, c.Output, c.Exited]


async def test_two_subjects_do_not_wait_for_each_other() -> None:
    bus = MemoryBus()
    await bus.ensure([REEL])
    one, two = Writer("e1"), Writer("e2")
    bus.fate = lambda subject, body: Unavailable("busy") if subject == one.subject else None
    async with asyncio.timeout(10), pipeline(bus).running() as pipe:
        stuck, free = pipe.lane(one.subject, one), pipe.lane(two.subject, two)
        stuck.put(one.body(line(1), 1), 1)
        free.put(two.body(line(1), 1), 1)
        await free.drained()
        assert not stuck.is_empty
        bus.fate = lambda subject, body: None
        await stuck.drained()


async def test_law_9_the_window_is_bounded_by_messages_and_bytes() -> None:
    bus = MemoryBus()
    bus.go_away()
    writer = Writer()
    async with pipeline(bus, window_messages=3, window_bytes=1000).running() as pipe:
        lane = pipe.lane(writer.subject, writer)
        for number in (1, 2, 3):
            assert lane.has_room
            lane.put(writer.body(line(number), number), number)
        assert not lane.has_room
        other = pipe.lane("evt.0.acme.s1.exec.e2", writer)
        other.put(b"x" * 1001, 1)
        assert not other.has_room


@pytest.mark.parametrize(
    ("size", "most"), [(1, SMALL_MESSAGES), (SMALL_BYTES - 1, SMALL_MESSAGES), (SMALL_BYTES, WINDOW_MESSAGES)]
)
async def test_small_messages_wait_for_their_acknowledgement_sooner(size: int, most: int) -> None:
    bus = MemoryBus()
    bus.go_away()
    writer = Writer()
    async with Pipeline(bus).running() as pipe:
        lane = pipe.lane(writer.subject, writer)
        while lane.has_room:
            lane.put(b"x" * size, lane.next_n)
        assert pipe.messages == most


async def test_nothing_is_sent_before_the_greeting_and_denied_keeps_it_closed() -> None:
    bus = MemoryBus()
    await bus.ensure([REEL])
    writer = Writer()
    greeted: list[int] = []
    let_in = asyncio.Event()

    async def greet() -> None:
        greeted.append(bus.generation)
        if len(greeted) == 1:
            raise Denied("this boot was declared dead")
        await let_in.wait()

    async with asyncio.timeout(10), Pipeline(bus, greet=greet, ack_timeout_s=0.02).running() as pipe:
        lane = pipe.lane(writer.subject, writer)
        bus.go_away()
        lane.put(writer.body(line(1), 1), 1)
        bus.come_back()
        while not greeted:
            await pipe.changed()
        bus.go_away()
        bus.come_back()
        while len(greeted) < 2:
            await asyncio.sleep(0)
        assert (await bus.state(REEL.name)).last_sequence == 0
        assert not pipe.is_open
        let_in.set()
        await lane.drained()
        assert (await bus.state(REEL.name)).last_sequence == 1
