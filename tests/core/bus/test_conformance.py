"""What `port.py` promises of streams and their readers, over the memory twin and over JetStream."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from msgspec.structs import replace

from sandreel_core.bus.port import CaughtUp, Missing, Stream, Work
from sandreel_core.errors import (
    AlreadyExists,
    Conflict,
    Full,
    Malformed,
    Misconfigured,
    NotFound,
    SandreelError,
    TooLarge,
    Unavailable,
)
from tests.core.bus.conftest import CMD, LIMIT_S, REEL, World, bodies, fill, forever, numbers, read, take


async def test_a_stream_that_was_brought_back_gets_another_epoch_and_keeps_the_rest(world: World) -> None:
    await world.bus.ensure([REEL])
    await fill(world.bus, "evt.0.a.s.session", 1, 3)
    before = await world.bus.state("REEL-0")
    await world.bus.renew_epoch("REEL-0", "other")
    after = await world.bus.state("REEL-0")
    assert (after.epoch, after.max_bytes, after.last_sequence) == ("other", before.max_bytes, before.last_sequence)
    with pytest.raises(NotFound):
        await world.bus.renew_epoch("REEL-9", "other")


async def test_ensure_is_idempotent_and_an_epoch_stays(world: World) -> None:
    other = await world.another()
    await asyncio.gather(*(bus.ensure([REEL, CMD], [Work("CMD", "w", ("cmd.a.>",))]) for bus in (world.bus, other) * 3))
    again = Stream("REEL-0", ("evt.0.>",), 1 << 25, metadata={"epoch": "second"})
    await world.bus.ensure([again])
    state = await world.bus.state("REEL-0")
    assert (state.epoch, state.max_bytes, state.last_sequence, state.first_sequence) == ("first", 1 << 25, 0, 1)


async def test_ensure_says_what_cannot_be_changed(world: World) -> None:
    await world.bus.ensure([REEL])
    with pytest.raises(Misconfigured, match="REEL-0"):
        await world.bus.ensure([Stream("REEL-0", ("evt.0.>",), 1 << 24, memory=True)])


async def test_what_is_not_there_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        await world.bus.state("REEL-9")
    with pytest.raises(NotFound):
        async with aclosing(world.bus.follow("REEL-9", ["evt.9.>"])) as items:
            await anext(items)
    await world.bus.ensure([REEL])
    assert await world.bus.get("REEL-0", 7) is None
    assert await world.bus.last("REEL-0", "evt.0.a") is None
    with pytest.raises(NotFound):
        async with aclosing(world.bus.feed("REEL-0", "nobody")) as batches:
            await anext(batches)
    await world.bus.drop_feed("REEL-0", "nobody")


async def test_append_expects_the_last_sequence_of_the_subject(world: World) -> None:
    await world.bus.ensure([REEL])
    assert await world.bus.append("evt.0.a", b"1", expected=0) == 1
    assert await world.bus.append("evt.0.b", b"2") == 2
    assert await world.bus.append("evt.0.a", b"3", expected=1) == 3
    for expected in (0, 1, 2, 9):
        with pytest.raises(Conflict):
            await world.bus.append("evt.0.a", b"x", expected=expected)
    last = await world.bus.last("REEL-0", "evt.0.*")
    assert last is not None
    assert (last.subject, last.sequence, last.body) == ("evt.0.a", 3, b"3")
    assert await world.bus.get("REEL-0", 3) == last
    assert last.time_ns > 1_700_000_000 * 10**9
    assert await world.bus.subjects("REEL-0", "evt.0.>") == {"evt.0.a": 2, "evt.0.b": 1}
    assert await world.bus.subjects("REEL-0", "evt.1.>") == {}


async def test_of_writers_who_expect_the_same_one_wins(world: World) -> None:
    await world.bus.ensure([REEL])
    other = await world.another()
    results = await asyncio.gather(
        *(bus.append("evt.0.a", b"x", expected=0) for bus in (world.bus, other) * 4), return_exceptions=True
    )
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 7


async def test_a_repeated_message_id_is_stored_once(world: World) -> None:
    await world.bus.ensure([REEL])
    assert await world.bus.append("evt.0.a", b"1", message_id="m") == 1
    assert await world.bus.append("evt.0.a", b"1", message_id="m") == 1
    assert await world.bus.append("evt.0.a", b"2", message_id="n") == 2


async def test_a_subject_that_keeps_one_message_refuses_the_second(world: World) -> None:
    await world.bus.ensure([CMD])
    await world.bus.append("cmd.a.b", b"1")
    with pytest.raises(AlreadyExists):
        await world.bus.append("cmd.a.b", b"2")
    await world.bus.append("cmd.a.c", b"3")


async def test_a_full_stream_says_so(world: World) -> None:
    await world.bus.ensure([Stream("REEL-0", ("evt.0.>",), 4096)])
    with pytest.raises(Full):
        await forever(lambda: world.bus.append("evt.0.a", bytes(1024)))
    answers: asyncio.Queue[int | SandreelError] = asyncio.Queue()
    async with world.bus.channel(lambda token, answer: answers.put_nowait(answer)) as channel:
        await channel.send("evt.0.a", bytes(1024), 1)
        assert isinstance(await asyncio.wait_for(answers.get(), LIMIT_S), Full)


async def test_what_is_too_large_is_refused_at_once(world: World) -> None:
    await world.bus.ensure([REEL])
    body = bytes(world.bus.max_payload + 1)
    with pytest.raises(TooLarge):
        await world.bus.append("evt.0.a", body)
    async with world.bus.channel(lambda token, answer: None) as channel:
        with pytest.raises(TooLarge):
            await channel.send("evt.0.a", body, 1)


async def test_a_subject_that_no_stream_keeps_is_unavailable(world: World) -> None:
    with pytest.raises(Unavailable):
        await world.bus.append("evt.0.a", b"x")


async def test_the_next_message_of_a_subject(world: World) -> None:
    await world.bus.ensure([REEL])
    await fill(world.bus, "evt.0.a", 1, 2)
    await fill(world.bus, "evt.0.b", 3, 4)
    for subject, after, sequence in (("evt.0.a", 0, 1), ("evt.0.a", 1, 2), ("evt.0.b", 1, 3), ("evt.0.*", 2, 3)):
        found = await world.bus.next("REEL-0", subject, after=after)
        assert found is not None
        assert found == await world.bus.get("REEL-0", sequence)
    assert await world.bus.next("REEL-0", "evt.0.a", after=2) is None
    assert await world.bus.next("REEL-0", "evt.0.c") is None


async def test_the_sequence_at_a_time_is_that_of_the_last_message_stored_by_then(world: World) -> None:
    await world.bus.ensure([REEL])
    assert await world.bus.sequence_at("REEL-0", 2**60) == 0
    await fill(world.bus, "evt.0.a", 1, 5)
    third, fourth = await world.bus.get("REEL-0", 3), await world.bus.get("REEL-0", 4)
    assert third is not None
    assert fourth is not None
    assert third.time_ns < fourth.time_ns
    assert await world.bus.sequence_at("REEL-0", 1) == 0
    assert await world.bus.sequence_at("REEL-0", third.time_ns - 1) == 2
    assert await world.bus.sequence_at("REEL-0", third.time_ns) == 3
    assert await world.bus.sequence_at("REEL-0", fourth.time_ns - 1) == 3
    assert await world.bus.sequence_at("REEL-0", fourth.time_ns + 10**15) == 5
    await world.bus.purge("REEL-0", "evt.0.a", keep=1)
    assert await world.bus.sequence_at("REEL-0", third.time_ns) == 4  # nothing up to there is left
    with pytest.raises(NotFound):
        await world.bus.sequence_at("REEL-9", 1)


async def test_purge(world: World) -> None:
    await world.bus.ensure([REEL])
    await fill(world.bus, "evt.0.a", 1, 5)
    await fill(world.bus, "evt.0.b", 6, 8)
    assert await world.bus.purge("REEL-0", "evt.0.a", keep=1) == 4
    assert await world.bus.purge("REEL-0", "evt.0.b", up_to=7) == 1
    messages, markers = await read(world.bus, ["evt.0.>"])
    assert bodies(messages) == [b"5", b"7", b"8"]
    assert markers == [Missing(1, 4), CaughtUp(8)]
    assert await world.bus.purge("REEL-0", "evt.0.a") == 1
    with pytest.raises(Conflict):
        await world.bus.append("evt.0.a", b"9", expected=5)
    assert await world.bus.append("evt.0.a", b"9", expected=0) == 9, "a subject without a message is as new"


async def test_follow_reads_behind_a_sequence_then_says_that_it_is_caught_up(world: World) -> None:
    await world.bus.ensure([REEL])
    assert await read(world.bus, ["evt.0.>"]) == ([], [CaughtUp(0)])
    await fill(world.bus, "evt.0.a", 1, 600)
    await fill(world.bus, "evt.0.b", 601, 602)
    messages, markers = await read(world.bus, ["evt.0.>"], after=10)
    assert [message.sequence for message in messages] == list(range(11, 603))
    assert markers == [CaughtUp(602)]
    messages, markers = await read(world.bus, ["evt.0.b", "evt.0.c"])
    assert (bodies(messages), markers) == ([b"601", b"602"], [CaughtUp(602)])
    assert await read(world.bus, ["evt.0.>"], after=602) == ([], [CaughtUp(602)])
    assert await read(world.bus, ["evt.0.c"], after=7) == ([], [CaughtUp(602)])


async def test_follow_goes_on_live_in_order(world: World) -> None:
    await world.bus.ensure([REEL])
    await fill(world.bus, "evt.0.a", 1, 3)
    async with aclosing(world.bus.follow("REEL-0", ["evt.0.a"])) as items, asyncio.timeout(LIMIT_S):
        assert bodies(await take(items, 3)) == numbers(1, 3)
        assert await anext(items) == CaughtUp(3)
        writer = asyncio.ensure_future(fill(world.bus, "evt.0.a", 4, 40))
        assert bodies(await take(items, 37)) == numbers(4, 40)
        await writer


async def test_a_message_that_was_deleted_is_passed_over(world: World) -> None:
    await world.bus.ensure([REEL])
    await fill(world.bus, "evt.0.a", 1, 2)
    await fill(world.bus, "evt.0.b", 3, 5)
    await fill(world.bus, "evt.0.a", 6, 7)
    await world.bus.purge("REEL-0", "evt.0.b")
    messages, markers = await read(world.bus, ["evt.0.>"])
    assert (bodies(messages), markers) == ([b"1", b"2", b"6", b"7"], [CaughtUp(7)])


async def test_follow_has_no_seam_when_the_server_is_killed(world: World) -> None:
    await world.bus.ensure([REEL])
    await fill(world.bus, "evt.0.a", 1, 20)
    generation = world.bus.generation
    async with aclosing(world.bus.follow("REEL-0", ["evt.0.a"])) as items:
        assert bodies(await take(items, 20)) == numbers(1, 20)
        for round in range(1, 3):
            await world.crash()
            with pytest.raises(Unavailable):
                async with asyncio.timeout(LIMIT_S):
                    await world.bus.append("evt.0.a", b"never")
            await world.start()
            generation = await asyncio.wait_for(world.bus.wait_connected(generation), LIMIT_S)
            await fill(world.bus, "evt.0.a", 20 * round + 1, 20 * round + 20)
            assert bodies(await take(items, 20)) == numbers(20 * round + 1, 20 * round + 20)


async def test_a_reader_does_not_go_on_in_a_stream_that_was_restored(world: World) -> None:
    await world.bus.ensure([REEL])
    await fill(world.bus, "evt.0.a", 1, 3)
    async with asyncio.timeout(LIMIT_S), aclosing(world.bus.follow("REEL-0", ["evt.0.a"])) as items:
        assert bodies(await take(items, 3)) == numbers(1, 3)
        assert await anext(items) == CaughtUp(3)
        await world.bus.renew_epoch("REEL-0", "second")
        await world.crash()
        await world.start()
        with pytest.raises(Malformed, match="restored"):
            await anext(items)


async def test_a_reader_from_behind_the_end_waits_for_what_follows(world: World) -> None:
    await world.bus.ensure([REEL])
    async with asyncio.timeout(LIMIT_S), aclosing(world.bus.follow("REEL-0", ["evt.0.a"], after=2)) as items:
        assert await anext(items) == CaughtUp(2)
        await fill(world.bus, "evt.0.a", 1, 3)
        assert bodies(await take(items, 1)) == [b"3"]


async def test_a_reader_that_stalls_loses_nothing(world: World) -> None:
    await world.bus.ensure([REEL])
    body = bytes(10_000)
    async with aclosing(world.bus.follow("REEL-0", ["evt.0.a"])) as items:
        assert await anext(items) == CaughtUp(0)
        await fill(world.bus, "evt.0.a", 1, 1)
        first = await take(items, 1)
        assert bodies(first) == [b"1"]
        acknowledged = asyncio.Event()
        async with world.bus.channel(lambda token, answer: acknowledged.set() if token == 1500 else None) as channel:
            for token in range(1, 1501):
                await channel.send("evt.0.a", body, token)
            await asyncio.wait_for(acknowledged.wait(), LIMIT_S)
        messages = await take(items, 1500)
    assert [message.sequence for message in messages] == list(range(2, 1502))


async def test_a_channel_acknowledges_each_token_with_its_sequence(world: World) -> None:
    await world.bus.ensure([REEL])
    answers: dict[int, int | SandreelError] = {}
    full = asyncio.Event()

    def on_ack(token: int, answer: int | SandreelError) -> None:
        answers[token] = answer
        if len(answers) == 100:
            full.set()

    async with world.bus.channel(on_ack) as channel:
        for token in range(100):
            await channel.send("evt.0.a", str(token + 1).encode(), token)
        await asyncio.wait_for(full.wait(), LIMIT_S)
        assert answers == {token: token + 1 for token in range(100)}
        await world.crash()
        with pytest.raises(Unavailable):
            await forever(lambda: channel.send("evt.0.b", b"x", 0))
        answers.clear()
        generation = world.bus.generation
        await world.start()
        await asyncio.wait_for(world.bus.wait_connected(generation), LIMIT_S)
        full.clear()
        answers |= {-token: 0 for token in range(1, 100)}
        await channel.send("evt.0.a", b"101", 7)
        await asyncio.wait_for(full.wait(), LIMIT_S)
        assert isinstance(answers[7], int)
    messages, _ = await read(world.bus, ["evt.0.a"])
    assert bodies(messages) == numbers(1, 101)


async def test_a_cancelled_reader_is_cancelled(world: World) -> None:
    await world.bus.ensure([REEL])
    begun = asyncio.Event()

    async def reads() -> None:
        async with aclosing(world.bus.follow("REEL-0", ["evt.0.a"])) as items:
            async for _ in items:
                begun.set()

    reading = asyncio.ensure_future(reads())
    await asyncio.wait_for(begun.wait(), LIMIT_S)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_batch_stands_as_a_whole_where_it_was_expected_or_not_at_all(world: World) -> None:
    await world.bus.ensure([replace(REEL, batches=True)])
    assert await world.bus.append_all("evt.0.a", numbers(1, 3), expected=0) == 3
    await world.bus.append("evt.0.b", b"other")
    for expected in (0, 2, 4):
        with pytest.raises(Conflict):
            await world.bus.append_all("evt.0.a", numbers(4, 6), expected=expected)
    assert await world.bus.append_all("evt.0.a", numbers(4, 4), expected=3) == 5
    assert await world.bus.append_all("evt.0.a", numbers(5, 1004), expected=5) == 1005
    messages, _ = await read(world.bus, ["evt.0.a"])
    assert bodies(messages) == numbers(1, 1004)
    assert [message.sequence for message in messages[:5]] == [1, 2, 3, 5, 6]
    for wrong in ([], numbers(1, 1001)):
        with pytest.raises(ValueError, match="1 to 1000"):
            await world.bus.append_all("evt.0.a", wrong, expected=1005)
    with pytest.raises(TooLarge):
        await world.bus.append_all("evt.0.a", [b"x", bytes(world.bus.max_payload + 1)], expected=1005)


async def test_a_stream_says_that_it_takes_no_batches_or_has_no_room_for_one(world: World) -> None:
    await world.bus.ensure([Stream("REEL-0", ("evt.0.>",), 4096)])
    with pytest.raises(Misconfigured):
        await world.bus.append_all("evt.0.a", numbers(1, 3), expected=0)
    await world.bus.ensure([Stream("REEL-0", ("evt.0.>",), 4096, batches=True)])
    with pytest.raises(Full):
        await world.bus.append_all("evt.0.a", [bytes(1024)] * 8, expected=0)
    assert (await world.bus.state("REEL-0")).messages == 0


async def test_of_writers_of_batches_who_expect_the_same_one_wins(world: World) -> None:
    await world.bus.ensure([replace(REEL, batches=True)])
    other = await world.another()
    results = await asyncio.gather(
        *(bus.append_all("evt.0.a", numbers(1, 20), expected=0) for bus in (world.bus, other) * 4),
        *(bus.append(f"evt.0.{name}", b"x") for bus in (world.bus, other) for name in "bcdef"),
        return_exceptions=True,
    )
    assert sum(isinstance(result, int) for result in results[:8]) == 1
    assert sum(isinstance(result, Conflict) for result in results[:8]) == 7
    messages, _ = await read(world.bus, ["evt.0.a"])
    assert bodies(messages) == numbers(1, 20)
    assert messages[-1].sequence - messages[0].sequence == 19
