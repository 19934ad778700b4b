"""What a person says while a turn runs, end to end: a real stack, sessions as processes, a stand-in of Claude Code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sandreel_bridge.adapters.table import ADAPTERS
from sandreel_core.contract import turn as c
from sandreel_core.contract.exec import Signal
from sandreel_core.errors import Refused
from sandreel_core.turn import Turn, derived_id
from tests.support import fifth
from tests.support.bridges import Turns, open_turns, texts
from tests.support.system import ORG

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def turns() -> AsyncIterator[Turns]:
    async with open_turns() as turns:
        yield turns


@pytest_asyncio.fixture(loop_scope="module")
async def _bridge(turns: Turns) -> AsyncIterator[None]:
    async with turns.bridge():
        yield


async def say(turns: Turns, session: str, turn: str, id: str, text: str) -> None:
    await turns.client.send(ORG, session, c.Steer(turn=turn, message_id=id, text=text))


async def story(turns: Turns, session: str, turn: str) -> list[str]:
    """What became of the messages, in order."""
    found = []
    for event in await turns.events(session, turn):
        data = event.data
        if isinstance(data, c.SteerQueued):
            found.append(f"queued {data.message_id}")
        elif isinstance(data, c.SteerDelivered):
            found.append(f"{data.channel} {'+'.join(data.message_ids)}")
        elif isinstance(data, c.SteerConsumed | c.SteerRequeued):
            found.append(f"{data.type.removeprefix('turn.steer_')} {'+'.join(data.message_ids)}")
    return found


def channel(turn: Turn, id: str) -> str | None:
    return turn.messages[id].channel if id in turn.messages else None


@pytest.mark.usefixtures("_bridge")
async def test_a_busy_agent_hears_at_its_next_tool(turns: Turns) -> None:
    session, turn = await turns.start("work")
    await turns.until(session, turn, lambda turn: bool(turn.run.tools))
    await say(turns, session, turn, "m1", "look left")
    ended = await turns.until(session, turn)
    assert ended.finished is not None
    assert ended.finished.status == "success"
    assert texts(await turns.events(session, turn)) == ["heard look left"]
    assert await story(turns, session, turn) == ["queued m1", "hook m1", "consumed m1"]
    kept = {entry.name for entry in (await turns.client.files(ORG, session).list(".sandreel/steer")).entries}
    assert kept == set(), "nothing of it lies about"


@pytest.mark.usefixtures("_bridge")
async def test_what_lay_for_the_hook_is_said_over_stdin_once_the_agent_is_idle(turns: Turns) -> None:
    session, turn = await turns.start("delegate look")
    await turns.until(session, turn, lambda turn: bool(turn.run.tools))
    await asyncio.gather(*(say(turns, session, turn, id, f"say {id}") for id in ("m1", "m2")))
    ended = await turns.until(session, turn)
    assert ended.finished is not None
    assert ended.finished.status == "success"
    told = await story(turns, session, turn)
    order = [each.split()[1] for each in told if each.startswith("queued")]
    assert told[-2:] == [f"stdin {'+'.join(order)}", f"consumed {'+'.join(order)}"]
    assert sorted(each for each in told if each.startswith("hook")) != []
    assert len(told) <= 6, "no message is handed over a third time"
    [heard] = texts(await turns.events(session, turn))
    assert heard in ("m1\n\nsay m2", "m2\n\nsay m1")


@pytest.mark.usefixtures("_bridge")
async def test_with_its_input_closed_there_is_still_the_hook(turns: Turns) -> None:
    session, turn = await turns.start("deaf")
    await turns.until(session, turn, lambda turn: bool(turn.run.tools))
    await say(turns, session, turn, "m1", "look left")
    await turns.until(session, turn)
    assert texts(await turns.events(session, turn)) == ["heard look left"]
    assert await story(turns, session, turn) == ["queued m1", "hook m1", "stdin m1", "hook m1", "consumed m1"]


@pytest.mark.usefixtures("_bridge")
async def test_what_was_not_read_opens_the_next_turn(turns: Turns) -> None:
    session, turn = await turns.start("hold")
    running = await turns.until(session, turn, lambda turn: turn.run.said)
    await say(turns, session, turn, "m1", "say something")
    await turns.until(session, turn, lambda turn: channel(turn, "m1") == "hook")
    assert running.preparing is not None
    await turns.client.send(ORG, session, Signal(exec=running.preparing.exec, signal="SIGKILL"))
    ended = await turns.until(session, turn)
    assert ended.finished is not None
    assert ended.finished.status == "interrupted"
    assert await story(turns, session, turn) == ["queued m1", "hook m1", "requeued m1"]
    following = await turns.until(session, derived_id(turn, "next"))
    assert following.request is not None
    assert following.request.prompt == "say something"
    assert following.request.conversation_id == turn


@pytest.mark.usefixtures("_bridge")
async def test_ten_wait_at_most(turns: Turns) -> None:
    session, turn = await turns.start("hold")
    await turns.until(session, turn, lambda turn: turn.run.said)
    for number in range(10):
        await say(turns, session, turn, f"m{number}", "x")
    with pytest.raises(Refused, match="QUEUE_FULL"):
        await say(turns, session, turn, "m10", "x")
    await say(turns, session, turn, "m3", "x")  # which it has already
    await turns.client.send(ORG, session, c.Interrupt(turn=turn))
    ended = await turns.until(session, turn)
    assert list(ended.requeued) == [f"m{number}" for number in range(10)]
    following = await turns.until(session, derived_id(turn, "next"))
    assert following.request is not None
    assert following.request.prompt == "\n\n".join("x" * 10), "also after an interrupt"


async def test_another_bridge_hands_it_over_once(turns: Turns) -> None:
    """The first one dies when it has written down what it does, and before or after it has done it."""
    async with turns.bridge():
        session, turn = await turns.start("delegate look")
        await turns.until(session, turn, lambda turn: bool(turn.run.tools))
        await say(turns, session, turn, "m1", "say it")
        await turns.until(session, turn, lambda turn: channel(turn, "m1") == "stdin")
    async with turns.bridge():
        ended = await turns.until(session, turn)
    assert ended.finished is not None
    assert ended.finished.status == "success"
    assert texts(await turns.events(session, turn)) == ["it"]
    assert await story(turns, session, turn) == ["queued m1", "hook m1", "stdin m1", "consumed m1"]


async def test_another_agent_of_one_file_and_one_row_does_whole_turns(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes one prompt: what is said meanwhile opens the next turn of its conversation, and an interrupt is a signal."""
    monkeypatch.setitem(ADAPTERS, fifth.NAME, fifth.ADAPTER)
    program = turns.program.parent / fifth.NAME
    program.write_text(fifth.PROGRAM)
    program.chmod(0o755)
    async with turns.bridge(programs=(f"{fifth.NAME}={program}",)):
        session, turn = await turns.start("sh until test -e ../go; do sleep 0.05; done", agent=fifth.NAME)
        await turns.until(session, turn, lambda turn: bool(turn.run.tools))
        await say(turns, session, turn, "m1", "and more")
        await turns.client.files(ORG, session).write("go", b"")
        ended = await turns.until(session, turn)
        assert ended.finished == c.TurnFinished(status="success", usage=c.Usage(input_tokens=7, output_tokens=3))
        assert await story(turns, session, turn) == ["queued m1", "requeued m1"]
        following = await turns.until(session, derived_id(turn, "next"))
        assert following.preparing is not None
        assert following.preparing.agent_session_id == "c-1"
        assert texts(await turns.events(session, derived_id(turn, "next"))) == ["heard and more"]

        _, stopped = await turns.start("sh sleep 600", session, agent=fifth.NAME)
        await turns.until(session, stopped, lambda turn: bool(turn.run.tools))
        await turns.client.send(ORG, session, c.Interrupt(turn=stopped))
        cancelled = await turns.until(session, stopped)
        assert cancelled.finished == c.TurnFinished(status="cancelled", usage=c.Usage()), "what it used it did not say"
