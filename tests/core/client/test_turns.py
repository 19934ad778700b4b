"""Turns by the client, against a made-up bridge: over the memory twin, and over a real server that dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest
from msgspec.structs import replace

from sandreel_bridge.adapters.table import ADAPTERS
from sandreel_core import clock
from sandreel_core.agent import AgentReader, Typed
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.client import Client, ClientSettings, TurnEntry, TurnHandle, TurnItem
from sandreel_core.client.items import CaughtUp
from sandreel_core.client.owners import session_of
from sandreel_core.client.turn_items import by_model
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.contract.codec import encode
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Event, Owner
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.errors import Malformed, NotFound, Refused
from sandreel_core.settings import Bus
from tests.core.client.conftest import ORG, SESSION, STREAMS
from tests.support.fake_bridge import MODEL, USAGE, Bridge, fake_bridge
from tests.support.nats import Connect
from tests.support.recordings import Recording
from tests.support.turns import RUNNING, SUBJECTS, preparing, requested, said, started, text

AGENT = "claude-code"
TYPED = Recording(AGENT, "text_partial")
ADA = Owner(type="user", id="ada")


@pytest.fixture
async def bridge(bus: MemoryBus) -> AsyncIterator[Bridge]:
    async with fake_bridge(MemoryBus(bus.server)) as bridge:
        yield bridge


@pytest.fixture
def client(bus: MemoryBus, bridge: Bridge) -> Client:
    return Client(bus, actor="tests", answer_timeout_s=5)


async def start(client: Client, prompt: str, **more: object) -> TurnHandle:
    return await client.turn(ORG, SESSION, agent=AGENT, prompt=prompt, **more)  # type: ignore[arg-type]


async def seen(turn: TurnHandle, after: Cursor | str | None = None, *, live: bool = True) -> list[TurnItem]:
    async with asyncio.timeout(10), aclosing(turn.follow(after, live=live)) as items:
        return [item async for item in items]


def types(items: Sequence[TurnItem]) -> list[str]:
    return [item.event.type for item in items if isinstance(item, TurnEntry)]


def reader(agent: str) -> AgentReader | None:
    return ADAPTERS[agent].reader() if agent in ADAPTERS else None


async def test_a_turn_is_an_iterator_of_its_events_until_its_end(client: Client) -> None:
    turn = await start(client, "say hello")
    items = [item async for item in turn]

    assert types(items) == [
        *("turn.requested", "turn.preparing", "turn.started", "agent.text", "agent.result", "turn.finished"),
    ]
    assert types(await seen(turn)) == types(items)


async def test_finished_says_how_it_ended(client: Client) -> None:
    result = await (await start(client, "say hello")).finished()
    assert (result.status, result.ok, result.error, result.text, result.usage) == (
        "success",
        True,
        None,
        "hello",
        USAGE,
    )
    failed = await (await start(client, "fail no credit")).finished()
    assert (failed.status, failed.ok, failed.error, failed.text) == ("failed", False, "no credit", None)
    planned = await (await start(client, "plan first this")).finished()
    assert (planned.status, planned.ok, planned.plan) == ("plan", True, "first this")


async def test_an_owner_has_one_session_and_a_turn_needs_either(client: Client) -> None:
    turn = await client.turn(ORG, owner=ADA, agent=AGENT, prompt="say hello")
    assert turn.session == session_of(ORG, ADA)
    first = (await seen(turn))[0]
    assert isinstance(first, TurnEntry)
    assert first.data.owner == ADA
    assert first.event.actor == "tests"
    with pytest.raises(Malformed, match="session, or the owner"):
        await client.turn(ORG, agent=AGENT, prompt="say hello")


async def test_what_is_refused_is_raised(client: Client) -> None:
    with pytest.raises(Refused) as refused:
        await start(client, "refuse NO_PROVIDER")
    assert refused.value.code == "NO_PROVIDER"
    with pytest.raises(Refused, match=r"BAD_REQUEST.*max_turns"):
        await start(client, "say x", max_turns=0)


async def test_law_7_a_start_that_is_sent_ten_times_starts_one_turn(client: Client, bridge: Bridge) -> None:
    command_id = clock.new_id()
    turns = await asyncio.gather(*(start(client, "say hello", turn="t1", command_id=command_id) for _ in range(10)))
    assert {turn.cursor for turn in turns} == {turns[0].cursor}
    assert bridge.handled.count(command_id) == 1


async def test_every_cursor_is_a_place_to_go_on_from(client: Client) -> None:
    turn = await start(client, f"run {AGENT} bash_partial")
    whole = [item for item in await seen(turn) if isinstance(item, TurnEntry)]
    for at, item in enumerate(whole):
        rest = await seen(turn, str(item.cursor))
        assert [each for each in rest if isinstance(each, TurnEntry)] == whole[at + 1 :]
    for wrong in ("zz:0:1", f"e1:3:{turn.cursor.sequence}", "nonsense"):
        with pytest.raises(Malformed):
            await seen(turn, wrong)


async def test_a_turn_is_found_again_by_its_id_running_or_ended(client: Client) -> None:
    turn = await start(client, "hold", turn="t1")
    again = await client.open_turn(ORG, "t1")
    assert (again.session, again.agent, again.cursor) == (SESSION, AGENT, turn.cursor)
    await again.interrupt()
    assert (await turn.finished()).status == "cancelled"
    assert (await (await client.open_turn(ORG, "t1", SESSION)).finished()).status == "cancelled"

    await client.turn(ORG, "s2", agent=AGENT, prompt="say hello", turn="t1")
    with pytest.raises(Malformed, match="in several sessions: name one of s1, s2"):
        await client.open_turn(ORG, "t1")
    with pytest.raises(NotFound, match="no turn t9 in org acme"):
        await client.open_turn(ORG, "t9")
    with pytest.raises(NotFound, match="no turn t9"):
        await client.open_turn(ORG, "t9", SESSION)
    with pytest.raises(NotFound):
        await client.open_turn("other", "t1")


async def test_a_message_is_followed_to_its_reading(client: Client) -> None:
    turn = await start(client, "hold")
    outcome = await turn.steer("look at b.py as well", message_id="m1")
    assert outcome.event.type == "turn.steer_queued"
    async with asyncio.timeout(10), aclosing(turn.follow()) as items:
        async for item in items:
            if isinstance(item, TurnEntry) and isinstance(item.data, t.SteerConsumed):
                break
    [message] = await turn.queue()
    assert (message.text, message.state, message.channel) == ("look at b.py as well", "consumed", "stdin")
    assert message.actor == "tests"
    await turn.interrupt()
    await turn.finished()
    with pytest.raises(Refused, match="TURN_FINISHED"):
        await turn.steer("too late")


async def test_a_plan_is_decided_behind_the_end_and_nobody_waits_for_another(client: Client) -> None:
    turn = await start(client, "plan first this")
    end = (await turn.finished()).cursor
    outcome = await turn.approve()
    assert outcome.data.next_turn == f"{turn.id}-go"
    following = await client.open_turn(ORG, f"{turn.id}-go", SESSION, within_s=10)
    assert (await following.finished()).text == "done"
    with pytest.raises(NotFound):
        await client.open_turn(ORG, "never", SESSION, within_s=0.05)
    assert types(await seen(turn))[-2:] == ["turn.finished", "turn.plan_approved"]
    assert types(await seen(turn, end)) == ["turn.plan_approved"]
    assert types(await seen(turn, outcome.cursor)) == []


async def test_what_was_refused_is_no_turn_and_no_end(client: Client) -> None:
    """A refusal stands on the subject of the turn that a command is about."""
    with pytest.raises(Refused):
        await start(client, "refuse NO_PROVIDER", turn="t1")
    with pytest.raises(NotFound, match="no turn t1 in org"):
        await client.open_turn(ORG, "t1")
    with pytest.raises(NotFound, match="has no turn t1"):
        await client.open_turn(ORG, "t1", SESSION)
    assert await client.turns(ORG) == []

    turn = await start(client, "say hello", turn="t1")
    end = await turn.finished()
    with pytest.raises(Refused, match="TURN_FINISHED"):
        await turn.interrupt()
    assert [(info.turn, info.state) for info in await client.turns(ORG)] == [("t1", "success")]
    again = await client.open_turn(ORG, "t1")
    assert again.cursor == turn.cursor
    assert types(await seen(again, end.cursor)) == ["command.refused"]
    assert (await again.finished()).duration_ms == end.duration_ms


async def test_calls_are_those_of_the_turn_each_once(client: Client) -> None:
    one, other = await start(client, "say one"), await start(client, "say two")
    await one.finished()
    await other.finished()
    [call] = await one.calls(settled_within_s=10)
    assert (call.turn, call.model) == (one.id, MODEL)
    [used] = by_model(await other.calls(settled_within_s=10))
    third = await start(client, "hold")
    found = await client.turns(ORG)
    assert await client.costs(found) == {(SESSION, each): 1900 for each in (one.id, other.id)}
    await third.interrupt()
    assert (used.model, used.calls, used.usage) == (MODEL, 1, USAGE)


async def test_of_a_turn_that_is_never_settled_the_calls_so_far_are_told(client: Client) -> None:
    turn = await start(client, "hold")
    assert await turn.calls(settled_within_s=0.05) == []
    await turn.interrupt()
    assert len(await turn.calls(settled_within_s=10)) == 1


async def test_a_price_that_is_not_known_is_no_zero() -> None:
    from sandreel_core.contract.usage import UsageRecorded

    def call(number: int, usage: t.Usage, status: int | None = None) -> UsageRecorded:
        return UsageRecorded(call_id=str(number), provider="p", model="m", usage=usage, meter="t", http_status=status)

    [used] = by_model([call(1, USAGE), call(2, t.Usage(input_tokens=1)), call(3, t.Usage(), 429)])
    assert (used.calls, used.refused, used.usage.input_tokens, used.usage.cost_micro_usd) == (3, 1, 841, None)


async def test_turns_are_listed_by_when_they_were_heard_of(client: Client) -> None:
    for number in range(3):
        await (await start(client, f"say {number}", turn=f"t{number}")).finished()
    plan = await client.turn(ORG, "s2", agent=AGENT, prompt="plan x", turn="p")
    await plan.finished()
    await plan.reject("no")
    running = await start(client, "hold", turn="h")
    async with asyncio.timeout(10), aclosing(running.follow()) as items:
        async for item in items:
            if isinstance(item, TurnEntry) and isinstance(item.data, t.TurnStarted):
                break

    found = await client.turns(ORG)
    assert [(info.turn, info.state) for info in found] == [
        *(("t0", "success"), ("t1", "success"), ("t2", "success"), ("p", "plan"), ("h", "running")),
    ]
    assert found[0].requested is not None
    assert (found[0].requested.prompt, found[0].ended and found[0].ended.usage) == ("say 0", USAGE)
    assert isinstance(found[3].decided, t.PlanRejected)
    assert [info.turn for info in await client.turns(ORG, SESSION, limit=2)] == ["t2", "h"]
    assert await client.turns("nobody") == []
    with pytest.raises(Malformed, match="limit 0"):
        await client.turns(ORG, limit=0)


async def test_a_message_to_a_turn_that_does_not_run_yet_is_no_sign_that_it_does(bus: MemoryBus) -> None:
    events = (requested(), preparing(), t.SteerQueued(message_id="m1", text="x"), started())
    states = []
    for event in events:
        await bus.append(SUBJECTS.event("turn", "t1"), encode(said(event, command="c1")))
        states += [info.state for info in await Client(bus).turns("acme")]
    await bus.append(SUBJECTS.event("turn", "t1"), encode(said(events[2], command="c2")))
    states += [info.state for info in await Client(bus).turns("acme")]
    assert states == ["waiting", "preparing", "preparing", "running", "running"]


async def test_a_turn_in_a_list_stands_as_people_expect(bus: MemoryBus) -> None:
    """An interrupt is seen until it has ended the turn, also when the agent goes on to speak; a decided plan has its cost."""
    plan, end = t.PlanProposed(plan="x"), t.TurnFinished(status="plan", usage=USAGE)
    stories: dict[str, tuple[list[Event], str, bool]] = {
        "i": ([*RUNNING, t.TurnInterrupting(), text(), t.Checkpoint(exec_n=3)], "interrupting", False),
        "r": ([*RUNNING, text()], "running", False),
        "p": ([*RUNNING, plan, end], "plan", False),
        "a": ([*RUNNING, plan, end, t.PlanApproved(next_turn="a-go")], "plan", True),
        "b": ([*RUNNING, plan, t.PlanApproved(next_turn="b-go"), end], "plan", True),
        "c": ([*RUNNING, plan, t.PlanApproved(next_turn="c-go")], "running", True),
    }
    for name, (events, _, _) in stories.items():
        subject = SUBJECTS.event("turn", name)
        for number, event in enumerate(events):
            for filler in range(300 * (number == len(events) - 1)):  # so that its newest event is far from the others
                await bus.append(SUBJECTS.event("workspace"), f"{filler}".encode())
            await bus.append(subject, encode(replace(said(event, command="c1"), subject=subject)))
    found = {info.turn: info for info in await Client(bus).turns("acme")}
    for name, (events, state, decided) in stories.items():
        info = found[name]
        assert (name, info.state, info.decided is not None) == (name, state, decided)
        assert (info.ended.usage if info.ended is not None else None) == (USAGE if end in events else None)
        assert (info.ended_ns is not None) == (end in events)
        assert info.ended_ns is None or info.asked_ns < info.ended_ns <= info.heard_ns


async def test_text_is_given_as_it_is_typed_and_in_its_place(client: Client, bridge: Bridge) -> None:
    """Whatever the viewer reads first: what is behind an event that the turn has not told is held back."""
    bridge.pace_s = 0.002
    turn = await start(client, f"run {TYPED.agent} {TYPED.name}")
    typed = ""
    whole: list[str] = []
    async with asyncio.timeout(20), aclosing(turn.follow(reader_of=reader)) as items:
        async for item in items:
            if isinstance(item, Typed):
                typed += item.text
            elif isinstance(item, TurnEntry) and isinstance(item.data, a.AgentText):
                assert item.data.text.startswith(typed), "a piece of another text stands here"
                whole.append(typed)
                typed = ""
    expected = [item.text for item in TYPED.items() if isinstance(item, a.AgentText)]
    assert len(whole) == len(expected)
    assert any(whole), "nothing was seen while it was typed"


async def test_a_bridge_that_is_behind_is_not_overtaken(client: Client, bridge: Bridge) -> None:
    bridge.unpaused.clear()
    turn = await start(client, f"run {AGENT} bash_partial")
    got: list[TurnItem] = []
    async with asyncio.timeout(20), aclosing(turn.follow(reader_of=reader)) as items:
        async for item in items:
            got.append(item)
            if isinstance(item, CaughtUp):
                bridge.unpaused.set()
    entries = [item for item in got if not isinstance(item, Typed)]
    assert types(entries) == types(await seen(turn))


async def test_an_agent_without_a_reader_is_followed_all_the_same(client: Client) -> None:
    turn = await start(client, "say hello")
    async with asyncio.timeout(10), aclosing(turn.follow(reader_of=lambda _: None)) as items:
        assert types([item async for item in items])[-1] == "turn.finished"


async def test_a_viewer_sees_no_seam_when_the_server_dies(nats_server: NatsServer, connect_bus: Connect) -> None:
    roles = await connect_bus()
    await roles.ensure(STREAMS)
    settings = ClientSettings(
        bus=Bus(nats_urls=(nats_server.url,), user="client", password=nats_server.password("client")), actor="tests"
    )
    async with fake_bridge(roles), Client.connect(settings) as client:
        turn = await start(client, "hold", turn="t1")
        items: list[TurnItem] = []
        async with asyncio.timeout(60), aclosing(turn.follow(reader_of=reader)) as following:
            async for item in following:
                items.append(item)
                if isinstance(item, TurnEntry) and isinstance(item.data, t.TurnStarted):
                    nats_server.kill()
                    await nats_server.wait()
                    await nats_server.start()
                    asking = asyncio.create_task(turn.interrupt())
            await asking
        assert types(items) == [
            *("turn.requested", "turn.preparing", "turn.started", "turn.interrupting", "turn.finished"),
        ]
        assert (await client.turns(ORG))[0].state == "cancelled"
