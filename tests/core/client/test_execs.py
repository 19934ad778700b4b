"""Execs: run, followed, fed, ended."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from sandreel_core import clock
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.client import Changed, Client, Ended, ExecItem
from sandreel_core.client.items import CaughtUp
from sandreel_core.contract import exec as x
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.cursor import Cursor
from sandreel_core.errors import Malformed, NotFound, Refused, Unavailable
from tests.core.client.conftest import ORG, SESSION, STREAMS, printed, seen


async def test_run_collects_exit_code_and_bytes(client: Client) -> None:
    result = await client.run(ORG, SESSION, ["cat"], stdin=b"one\ntwo\n\xff")

    assert (result.exit_code, result.stdout) == (0, b"one\ntwo\n\xff")
    assert result.lines["stdout"] == 2
    assert result.text.endswith("�")


async def test_collect_keeps_the_cap_and_says_so(client: Client) -> None:
    result = await client.run(ORG, SESSION, ["lines", "1000"], max_bytes=10)

    assert result.stdout == b"line 1\nlin"
    assert result.truncated == {"stdout"}
    assert result.lines["stdout"] == 1000


@pytest.mark.parametrize(("argv", "code", "signal"), [(["exit", "3"], 3, None), (["kill", "SIGKILL"], None, "SIGKILL")])
async def test_wait_tells_how_it_ended(client: Client, argv: list[str], code: int | None, signal: str | None) -> None:
    result = await (await client.exec(ORG, SESSION, argv)).wait()

    assert (result.exit_code, result.signal) == (code, signal)


async def test_a_lost_exec_has_no_exit_code(client: Client) -> None:
    result = await client.run(ORG, SESSION, ["lost"])

    assert (result.exit_code, result.reason) == (None, "lost")
    assert isinstance(result.end, x.Lost)


async def test_attach_after_any_cursor_sees_exactly_the_rest(client: Client) -> None:
    handle = await client.exec(ORG, SESSION, ["lines", "1000"])
    whole = [item for item in await seen(client, handle.id) if not isinstance(item, CaughtUp)]

    for index, item in enumerate(whole):
        rest = [one for one in await seen(client, handle.id, after=item.cursor) if not isinstance(one, CaughtUp)]
        assert rest == whole[index + 1 :]
    assert isinstance(whole[-1], Ended)


async def test_a_cursor_of_another_stream_is_refused(client: Client) -> None:
    handle = await client.exec(ORG, SESSION, ["print", "x"])

    with pytest.raises(Malformed):
        await seen(client, handle.id, after=Cursor("other", 0, 1))


async def test_follow_marks_once_where_live_begins(client: Client) -> None:
    handle = await client.exec(ORG, SESSION, ["cat"], hold_stdin=True)
    items: list[ExecItem] = []
    async with asyncio.timeout(5), aclosing(handle.follow()) as following:
        async for item in following:
            items.append(item)
            if isinstance(item, CaughtUp):
                await handle.write_stdin("hello\n")
                await handle.write_stdin(b"\xff", eof=True)

    assert [type(item) for item in items].count(CaughtUp) == 1
    assert printed(items) == b"hello\n\xff"


async def test_input_that_comes_with_the_command(client: Client) -> None:
    assert (await client.run(ORG, SESSION, ["cat"], stdin="text\n")).stdout == b"text\n"
    assert (await client.run(ORG, SESSION, ["cat"], stdin=b"\xff\n")).stdout == b"\xff\n"


async def test_the_answer_to_a_start_costs_one_question_and_no_reader(
    client: Client, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.exec(ORG, SESSION, ["cat"], hold_stdin=True)  # what is known of the session from now on

    def follow(*_: object, **__: object) -> None:
        raise AssertionError("a reader was made")

    with monkeypatch.context() as patched:
        patched.setattr(bus, "follow", follow)
        handle = await client.exec(ORG, SESSION, ["print", "x"], exec="x9")

    assert (await handle.collect()).stdout == b"x"


async def test_an_exec_can_be_steered_by_its_names(client: Client) -> None:
    await client.exec(ORG, SESSION, ["cat"], exec="x1", hold_stdin=True)

    await client.write_stdin(ORG, SESSION, "x1", "in\n")
    await client.cancel(ORG, SESSION, "x1")

    assert (await client.collect(ORG, SESSION, "x1")).stdout == b"in\n"


async def test_cancel_signal_resize_and_writing_too_much(client: Client) -> None:
    handle = await client.exec(ORG, SESSION, ["cat"], hold_stdin=True)
    with pytest.raises(Refused) as refused:
        await handle.write_stdin(b"x" * (x.MAX_STDIN_BYTES + 1))
    assert refused.value.code == "BAD_REQUEST"
    assert isinstance((await handle.resize(100, 30)).data, x.Resized)
    assert isinstance((await handle.signal("SIGUSR1")).data, x.Signalled)
    assert isinstance((await handle.cancel()).data, x.Signalled)
    assert (await handle.wait()).reason == "cancelled"
    with pytest.raises(Refused) as refused:
        await handle.cancel()
    assert refused.value.code == "EXEC_NOT_FOUND"


async def test_execs_of_a_session_and_how_they_ended(client: Client) -> None:
    ended = await client.exec(ORG, SESSION, ["exit", "4"])
    running = await client.exec(ORG, SESSION, ["cat"], hold_stdin=True)

    first, second = await client.execs(ORG, SESSION)

    assert (first.exec_id, first.phase) == (ended.id, "exited")
    assert (second.exec_id, second.phase, second.ended) == (running.id, "running", None)
    assert (await client.exec_info(ORG, SESSION, ended.id)).phase == "exited"
    with pytest.raises(NotFound):
        await client.exec_info(ORG, SESSION, "nope")


async def test_law_2_an_exit_behind_the_end_is_nobodys_end() -> None:
    bus = MemoryBus()
    await bus.ensure(STREAMS)
    client = Client(bus)
    subject = client.subjects(ORG, SESSION).exec("e1")
    lost = x.Lost(boot_id="1-1", last_n=1, cause="node_gone")
    exited = x.Exited(reason="exited", exit_code=0, duration_ms=1)
    for n, event in ((1, x.Accepted(boot_id="1-1")), (2, lost), (2, exited)):
        sealed = seal(event, id=f"{event.type}", source="/t", subject=subject, time=clock.now(), n=n)
        await bus.append(subject, encode(sealed))

    assert (await client.exec_info(ORG, SESSION, "e1")).ended == lost
    assert [info.phase for info in await client.execs(ORG, SESSION)] == ["lost"]


async def test_of_a_live_exec_only_the_end_of_its_log_is_looked_at(
    client: Client, bus: MemoryBus, begun: list[int]
) -> None:
    subject = client.subjects(ORG, SESSION).exec("e1")
    block = x.Output(stream="stdout", line=1, count=1, text="a\n", eol=True)
    events: list[x.ExecEvent] = [x.Accepted(boot_id="1-1"), *[block] * 400]
    exited = x.Exited(reason="exited", exit_code=0, duration_ms=1)

    async def say(n: int, event: x.ExecEvent) -> None:
        source = f"/runnerd/{ORG}/{SESSION}/1-1"
        sealed = seal(event, id=f"e1-{n}", source=source, subject=subject, time=clock.now(), n=n)
        await bus.append(subject, encode(sealed))

    for n, event in enumerate(events, 1):
        await say(n, event)
    begun.clear()
    await client.require_exec(ORG, SESSION, "e1")
    with pytest.raises(NotFound):
        await client.require_exec(ORG, SESSION, "e2")
    assert begun == []
    [info] = await client.execs(ORG, SESSION)
    assert info.phase == "running"
    session, tail = begun
    assert (session, tail) == (0, info.cursor.sequence - 256)

    await say(402, exited)
    await say(401, block)  # a piece that was under way stands behind the end
    assert (await client.exec_info(ORG, SESSION, "e1")).ended == exited


async def test_replay_shows_what_is_stored_between_two_points(client: Client) -> None:
    handle = await client.exec(ORG, SESSION, ["lines", "1000"])
    whole = [item for item in await seen(client, handle.id) if not isinstance(item, CaughtUp)]

    async with aclosing(client.replay(ORG, SESSION, handle.id, start=whole[3].cursor, end=whole[6].cursor)) as items:
        assert [item async for item in items] == whole[4:7]


async def test_replay_of_a_running_exec_ends_at_what_is_stored(client: Client) -> None:
    handle = await client.exec(ORG, SESSION, ["cat"], hold_stdin=True)
    await handle.write_stdin("typed\n")

    async with asyncio.timeout(5), aclosing(client.replay(ORG, SESSION, handle.id)) as items:
        assert [type(item) async for item in items][:3] == [Changed, Changed, Changed]


async def test_a_bus_that_stays_away_is_named_when_the_time_is_over(client: Client, bus: MemoryBus) -> None:
    bus.go_away()

    with pytest.raises(Unavailable, match=r"within 0.3 s \(.+\)"):
        await client.exec(ORG, SESSION, ["print"], answer_timeout_s=0.3)


async def test_a_client_waits_while_the_bus_is_away(client: Client, bus: MemoryBus) -> None:
    bus.go_away()
    starting = asyncio.create_task(client.exec(ORG, SESSION, ["print", "x"], exec="x1"))
    await asyncio.sleep(0)
    assert not starting.done()

    bus.come_back()

    assert (await starting).id == "x1"
    assert printed(await seen(client, "x1")) == b"x"
