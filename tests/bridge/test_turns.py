"""Turns, end to end: a real stack, sessions as processes, a stand-in of Claude Code, and a gateway in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio

from sandreel_bridge.gateway.port import KeyTerms, VirtualKey, key_name
from sandreel_core.clock import new_id, new_token
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.usage import UsageReconciled
from sandreel_core.errors import Refused
from sandreel_core.turn import exec_of
from tests.support.bridges import Turns, open_turns, texts, tools
from tests.support.memory_gateway import MemoryGateway
from tests.support.system import ORG, left_of, until

# Shared by the module: each test has sessions of its own.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
USAGE = c.Usage(input_tokens=100, output_tokens=10, cost_micro_usd=450)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def turns() -> AsyncIterator[Turns]:
    async with open_turns() as turns, turns.bridge():
        yield turns


async def reconciled(turns: Turns, session: str) -> list[UsageReconciled]:
    subjects = turns.client.subjects(ORG, session)
    subject, found = subjects.event("usage"), []
    async with aclosing(turns.client.bus.follow(subjects.stream, [subject], live=False)) as items:
        async for item in items:
            for stored in item if isinstance(item, list) else ():
                data = decode_event(subject, stored.body).data
                found += [data] if isinstance(data, UsageReconciled) else []
    return found


async def settled(turns: Turns, session: str, turn: str) -> None:
    subject = f"turn.open.{ORG}.{session}.{turn}.*"

    async def gone() -> bool:
        return await turns.client.bus.last("TURNS", subject) is None

    await until(gone, "the turn is settled")


async def test_a_turn_makes_its_session_and_says_everything_once(turns: Turns) -> None:
    session, turn = await turns.run("say hello", turn="first")
    assert turn.finished == c.TurnFinished(status="success", usage=USAGE)
    events = await turns.events(session, "first")
    # Beside them: where it stood now and then, and lines about the lines of its input.
    types = [event.type for event in events if not isinstance(event.data, c.Checkpoint | a.AgentRaw)]
    assert types == [
        *("turn.requested", "turn.preparing", "turn.started"),
        *("agent.run_started", "agent.text", "agent.usage", "agent.result", "turn.finished"),
    ]
    assert texts(events) == ["hello"]
    assert {event.correlationid for event in events} == {events[0].causationid}
    assert (await turns.client.session(ORG, session)).ready
    # The next one of the same owner is at home there, and a session nobody made needs one.
    _, again = await turns.run("say again", session)
    assert again.preparing is not None
    assert again.preparing.incarnation == 1
    with pytest.raises(Refused, match="SESSION_NOT_FOUND"):
        await turns.start("say x", "nobodys", owner=None)


async def test_the_key_reaches_the_program_alone_and_ends_with_the_turn(turns: Turns) -> None:
    session, turn = await turns.run("env ANTHROPIC_AUTH_TOKEN", turn="keyed")
    name = key_name(ORG, session, 1, "keyed", 1)
    value = turns.gateway.values[name]
    assert texts(await turns.events(session, "keyed")) == [f"{len(value)} new bypassPermissions"]
    await settled(turns, session, "keyed")
    assert turns.gateway.keys[name].live is False
    counted = c.Usage(cost_micro_usd=0)
    assert await reconciled(turns, session) == [
        UsageReconciled(turn="keyed", gateway=counted, agent=USAGE, drift_micro_usd=-450)
    ]
    assert turn.run.agent_session_id is not None
    places = [stored.body for stored in await turns.site.log()]
    places += [path.read_bytes() for path in [*turns.site.data.glob("logs/*"), turns.site.folder(session).log]]
    assert all(value.encode() not in place for place in places)


async def test_a_conversation_goes_on_within_one_life_of_its_session(turns: Turns) -> None:
    async def said(session: str, conversation: str | None) -> str:
        _, turn = await turns.run("env HOME", session, conversation_id=conversation)
        assert turn.request is not None
        return texts(await turns.events(session, turn_of(turn)))[0].split()[1]

    def turn_of(turn: Any) -> str:
        return str(turn.preparing.exec.rpartition("-")[0])

    session = new_token("s-")
    assert await said(session, "talk") == "new"
    assert await said(session, "talk") == "resumed"
    assert await said(session, "other") == "new"
    assert await said(session, None) == "new"
    await turns.client.stop(ORG, session)
    assert await said(session, "talk") == "resumed", "a stop keeps the workspace"
    await turns.client.destroy(ORG, session)
    assert await said(session, "talk") == "new", "another life remembers nothing"
    assert (await turns.client.session(ORG, session)).state.incarnation == 2


async def test_turns_of_one_conversation_run_one_after_the_other(turns: Turns) -> None:
    """In the order in which they were asked for, each going on from the one before; one that is not wanted any more does not wait."""
    session, first = await turns.start("hold", turn="first", conversation_id="talk")
    await turns.until(session, first, lambda state: state.run.said)
    for turn in ("second", "third", "fourth"):
        await turns.start("env HOME", session, turn=turn, conversation_id="talk")
    _, beside = await turns.run("say hello", session, turn="beside", conversation_id="another")
    assert beside.finished is not None
    await turns.client.send(ORG, session, c.Interrupt(turn="third"))
    unwanted = await turns.until(session, "third")
    assert (unwanted.finished, unwanted.preparing) == (
        c.TurnFinished(status="cancelled", usage=c.Usage(cost_micro_usd=0)),
        None,
    )
    assert [event.type for event in await turns.events(session, "second")] == ["turn.requested"]
    await turns.client.send(ORG, session, c.Interrupt(turn=first))
    fourth = await turns.until(session, "fourth")
    assert fourth.finished is not None
    said = [texts(await turns.events(session, turn))[0].split()[1] for turn in ("second", "fourth")]
    assert said == ["resumed", "resumed"]
    ended, began = [
        [event.time for event in await turns.events(session, turn) if event.type == type]
        for turn, type in (("second", "turn.finished"), ("fourth", "turn.preparing"))
    ]
    assert ended < began


async def test_the_same_start_ten_times_is_one_turn(turns: Turns) -> None:
    session, turn, id = new_token("s-"), "once", new_id()
    start = c.StartTurn(turn=turn, agent="claude-code", prompt="say once", owner=turns.owner(session))
    sent = [turns.client.send(ORG, session, start, command_id=id) for _ in range(10)]
    outcomes = await asyncio.gather(*sent)
    assert len({outcome.cursor for outcome in outcomes}) == 1
    for _ in range(3):
        with pytest.raises(Refused, match="DUPLICATE_TURN"):
            await turns.client.send(ORG, session, start)
    await turns.until(session, turn)
    events = await turns.events(session, turn)
    assert texts(events) == ["once"]
    assert [event.type for event in events].count("turn.requested") == 1
    assert turns.gateway.minted.count(key_name(ORG, session, 1, turn, 1)) == 1


async def test_an_interrupt_while_it_starts_wins(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    minting, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(self: MemoryGateway, name: str, terms: KeyTerms) -> VirtualKey:
        minting.set()
        await go_on.wait()
        return await mint(self, name, terms)

    mint = MemoryGateway.mint
    monkeypatch.setattr(MemoryGateway, "mint", slowly)
    session, turn = await turns.start("say never")
    await asyncio.wait_for(minting.wait(), 60)
    await turns.client.send(ORG, session, c.Interrupt(turn=turn))
    go_on.set()
    finished = await turns.until(session, turn)
    assert finished.finished == c.TurnFinished(status="cancelled", usage=c.Usage(cost_micro_usd=0))
    assert [event.type for event in await turns.events(session, turn) if event.type.startswith("agent.")] == []
    subjects = turns.client.subjects(ORG, session)
    assert await turns.client.bus.last(subjects.stream, subjects.exec(exec_of(turn, 1))) is None
    await settled(turns, session, turn)
    assert not [name for name, key in turns.gateway.keys.items() if key.turn == turn and key.live]


@pytest.mark.parametrize("prompt", ["hold", "tree"])
async def test_an_interrupt_ends_it_and_leaves_no_process(turns: Turns, prompt: str) -> None:
    session, turn = await turns.start(prompt)
    await turns.until(session, turn, lambda state: state.run.said)
    await turns.client.send(ORG, session, c.Interrupt(turn=turn))
    finished = await turns.until(session, turn)
    assert finished.finished is not None
    assert (finished.finished.status, finished.run.said) == ("cancelled", True)
    with pytest.raises(Refused, match="TURN_FINISHED"):
        await turns.client.send(ORG, session, c.Interrupt(turn=turn))
    boot = turns.site.boot(session)
    await turns.client.stop(ORG, session)
    assert left_of(boot) == []


async def test_what_an_agent_does_is_there_in_its_order(turns: Turns) -> None:
    session, turn = await turns.run("lines 300", turn="many")
    assert turn.finished is not None
    assert turn.finished.status == "success"
    assert tools(await turns.events(session, "many")) == [f"t{number}" for number in range(1, 301)]
    _, turn = await turns.run("sub", session, turn="subs")
    said = [
        (event.data.text, event.data.parent)
        for event in await turns.events(session, "subs")
        if isinstance(event.data, a.AgentText)
    ]
    assert said == [("I have started somebody", None), ("looking", "t1"), ("it is found", None)]
    assert turn.usage.cost_micro_usd == 900
    await settled(turns, session, "subs")
    await turns.site.projected()
    ops = "SELECT state, phase, status, agent, attempt, requested_by, tool_uses, steers_queued FROM reel.ops"
    (row,) = await turns.site.sql(f"{ops} WHERE session = $1 AND turn = 'many'", session)
    assert row == ("completed", "finished", "success", "claude-code", 1, turns.client.actor, 300, 0)
    events = "SELECT kind, depth, text, output IS NOT NULL FROM reel.turn_events"
    rows = await turns.site.sql(f"{events} WHERE session = $1 AND turn = 'subs' ORDER BY position", session)
    assert [row[1:3] for row in rows if row[0] == "text"] == [
        (0 if parent is None else 1, text) for text, parent in said
    ]
    assert [row[3] for row in rows if row[0] == "tool"] == [True] * len(tools(await turns.events(session, "subs")))
    (reconciled,) = await turns.site.sql(
        "SELECT agent_cost_micro_usd, drifted IS NOT NULL FROM reel.usage_turns WHERE session = $1 AND turn = 'subs'",
        session,
    )
    assert reconciled == (900, True)


@pytest.mark.parametrize(
    ("prompt", "status", "error", "execs"),
    [
        ("quiet", "failed", "the agent ended without a word, 2 times", 2),
        ("die 3", "interrupted", "the agent's program exited with 3 without a result: something broke", 1),
        ("fail 402", "failed", "API Error: 402 (the model's API answered 402)", 1),
    ],
)
async def test_a_turn_that_comes_to_nothing_says_why(
    turns: Turns, prompt: str, status: str, error: str, execs: int
) -> None:
    session, turn = await turns.run(prompt, "sad")
    assert turn.finished is not None
    assert (turn.finished.status, turn.finished.error, len(turn.keys)) == (status, error, execs)
    assert turn.preparing is not None
    await settled(turns, session, turn.preparing.exec.rpartition("-")[0])
    assert not any(key.live for key in turns.gateway.keys.values() if key.session == session)


@pytest.mark.parametrize(("spent", "budgets"), [(60, [100, 40]), (100, [100])])
async def test_what_an_attempt_has_spent_is_spent_for_the_next_one(
    turns: Turns, spent: int, budgets: list[int]
) -> None:
    """An agent that ended without a word may have worked for all of its turn's budget before."""
    session, turn = f"thrifty-{spent}", f"thrifty-{spent}"
    names = [key_name(ORG, session, 1, turn, attempt) for attempt in (1, 2)]
    turns.gateway.charges[names[0]] = spent
    _, done = await turns.run("quiet", session, turn=turn, budget_micro_usd=100)
    assert [turns.gateway.terms[name].budget_micro_usd for name in names if name in turns.gateway.terms] == budgets
    assert done.finished is not None
    assert ("BUDGET_SPENT" in (done.finished.error or "")) == (len(budgets) == 1)
    assert not turns.gateway.keys[names[0]].live


async def test_a_plan_is_approved_once_and_its_conversation_carries_it_out(turns: Turns) -> None:
    session, turn = await turns.run("plan 1. look 2. leap", turn="planned", permission_mode="plan")
    assert turn.finished is not None
    assert (turn.finished.status, turn.proposed) == ("plan", "1. look 2. leap")
    approvals = [turns.client.send(ORG, session, c.Approve(turn="planned")) for _ in range(3)]
    outcomes = await asyncio.gather(*approvals)
    assert sorted(outcome.settled for outcome in outcomes) == [False, True, True]
    with pytest.raises(Refused, match="PLAN_DECIDED"):
        await turns.client.send(ORG, session, c.Reject(turn="planned"))
    following = next(outcome.data.next_turn for outcome in outcomes if not outcome.settled)
    assert following.startswith("planned-go-")
    done = await turns.until(session, following)
    assert done.finished is not None
    assert done.finished.status == "success"
    assert done.request is not None
    assert done.preparing is not None
    assert (done.request.permission_mode, done.request.conversation_id) == ("execute", "planned")
    assert done.preparing.agent_session_id == turn.run.agent_session_id
    _, other = await turns.run("plan nothing", session, turn="unloved", permission_mode="plan")
    assert other.proposed == "nothing"
    await turns.client.send(ORG, session, c.Reject(turn="unloved", reason="no"))
    with pytest.raises(Refused, match="NO_PLAN"):
        await turns.client.send(ORG, session, c.Approve(turn=following))


async def test_messages_that_were_not_read_open_the_next_turn(turns: Turns) -> None:
    session, turn = await turns.start("hold", turn="busy")
    await turns.until(session, turn, lambda state: state.run.said)
    for number in range(2):
        await turns.client.send(ORG, session, c.Steer(turn=turn, message_id=f"m{number}", text=f"say more {number}"))
    await turns.client.cancel(ORG, session, exec_of(turn, 1))
    finished = await turns.until(session, turn)
    assert list(finished.requeued) == ["m0", "m1"]
    assert finished.finished is not None
    assert finished.finished.status == "cancelled"
    following = await turns.until(session, "busy-next")
    assert following.request is not None
    assert (following.request.prompt, following.request.conversation_id) == ("say more 0\n\nsay more 1", "busy")
    assert texts(await turns.events(session, "busy-next")) == ["more 0\n\nsay more 1"]


async def test_a_session_that_ends_under_a_turn_tells_how_it_ended(turns: Turns) -> None:
    session, turn = await turns.start("hold")
    await turns.until(session, turn, lambda state: state.run.said)
    await turns.client.stop(ORG, session)
    stopped = await turns.until(session, turn)
    assert stopped.finished is not None
    assert (stopped.finished.status, stopped.finished.error) == ("cancelled", "the session was stopped")
    session, turn = await turns.start("hold", session)
    await turns.until(session, turn, lambda state: state.run.said)
    await turns.client.destroy(ORG, session)
    destroyed = await turns.until(session, turn)
    assert destroyed.finished is not None
    assert destroyed.finished.status == "cancelled"
    await settled(turns, session, turn)
    assert not [name for name, key in turns.gateway.keys.items() if key.session == session and key.live]
    session, turn = await turns.start("hold", new_token("s-"))
    await turns.until(session, turn, lambda state: state.run.said)
    turns.site.kill_runnerd(session)
    lost = await turns.until(session, turn)
    assert lost.finished is not None
    assert lost.finished.status == "interrupted"


async def test_a_turn_needs_a_gateway_that_confirms_and_a_model_that_it_has(turns: Turns) -> None:
    _, turn = await turns.run("say hello", "sad", model="nobody's")
    assert turn.finished is not None
    assert turn.finished.status == "failed"
    assert (turn.finished.error or "").startswith("MODEL_NOT_ALLOWED")
    turns.gateway.trouble = Refused("NO_PROVIDER", "the org has no provider")
    try:
        _, turn = await turns.run("say hello", "sad")
    finally:
        turns.gateway.trouble = None
    assert turn.finished is not None
    assert turn.finished.error == "NO_PROVIDER: the org has no provider"
    assert turn.keys == ()


async def test_keys_without_a_turn_are_found_and_young_ones_spared(turns: Turns) -> None:
    session, turn = await turns.start("hold")
    await turns.until(session, turn, lambda state: state.run.said)
    old = turns.gateway.age(3600)
    needed = key_name(ORG, session, 1, turn, 1)
    turns.gateway.stuck = {"stuck"}  # which is no reason to spare those behind it
    for name, age in (("stuck", 3600.0), ("orphan", 3600.0), ("young", 1.0)):
        turns.gateway.plant(name, ORG, "gone", "never", age)
    assert needed in old
    async with turns.bridge(scan_s=0.05):
        await until(lambda: not turns.gateway.keys["orphan"].live, "the orphan is revoked")
    assert turns.gateway.keys["young"].live
    assert turns.gateway.keys[needed].live
    await turns.client.send(ORG, session, c.Interrupt(turn=turn))
    await turns.until(session, turn)
