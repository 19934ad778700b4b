"""Whatever is killed or fails in the middle of a turn: it is finished once and truly, its events are what its program printed, its key is
revoked, nothing is left running, and the ledger is what the provider has counted (`truths.hold`).

Beside them: bridges that die, halt or are not alone (`tests/bridge/test_takeover.py`), an agent that is silent for hours, on a virtual clock
(`tests/bridge/test_silence.py`), what the gateway passes on, cuts and charges (`tests/bridge/gateway`), a gateway that is killed while NATS is away
(`test_daybook.py` there, and `test_gateway.py` here), the real Claude Code before a model that fails, and an
agent that runs out of memory (`tests/docker/test_agent_faults.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from sandreel_bridge.gateway.port import key_name
from sandreel_core.client import Outcome
from sandreel_core.clock import new_id, new_token
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.errors import Refused
from sandreel_core.turn import Turn, derived_id
from tests.support.bridges import texts, tools
from tests.support.model_api import Failure, Reply
from tests.support.system import ORG, left_of
from tests.support.truths import COST, TOKENS, Truths, open_truths

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("turn-faults"),
    pytest.mark.timeout(180),
]
CALLS = 12
STAGES: dict[str, Callable[[Turn], bool]] = {
    "reserving": lambda turn: turn.preparing is not None,
    "running": lambda turn: turn.run.source_n > 5,
    "settling": lambda turn: turn.phase == "finished",
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def truths() -> AsyncIterator[Truths]:
    settings = {
        "SANDREEL_GATEWAY_IDLE_TIMEOUT_S": "2",
        "SANDREEL_GATEWAY_ORG_BUDGET_MICRO_USD_PER_MONTH": "1000000000",
        "SANDREEL_GATEWAY_USER_BUDGET_MICRO_USD_PER_MONTH": "1000000000",
    }
    async with open_truths(**settings) as truths:
        yield truths


@pytest.mark.parametrize(
    "victims",
    [("bridge",), ("spawner",), ("projector",), ("gateway",), ("nats",), ("postgres",), ("bridge", "gateway", "nats")],
    ids="+".join,
)
async def test_killed_in_the_middle_of_a_turn(truths: Truths, victims: tuple[str, ...]) -> None:
    session, turn = await truths.start(f"ask {CALLS}")
    await truths.until(session, turn, STAGES["running"])
    await truths.site.kill(*victims)
    await truths.hold(session, turn, status="success", cut="gateway" in victims)
    assert tools(await truths.events(session, turn)) == [f"c{number}" for number in range(1, CALLS + 1)]
    await truths.nothing_is_held()


@pytest.mark.parametrize(
    ("stage", "victims"),
    [
        ("reserving", ("gateway",)),
        ("reserving", ("bridge",)),
        ("settling", ("bridge", "gateway")),
    ],
    ids=lambda each: each if isinstance(each, str) else "+".join(each),
)
async def test_a_budget_is_reserved_and_settled_once(truths: Truths, stage: str, victims: tuple[str, ...]) -> None:
    """Killed as it is reserved or settled; what lies between is above."""
    session, turn = await truths.start("ask 3", budget_micro_usd=1_000_000)
    await truths.until(session, turn, STAGES[stage])
    await truths.site.kill(*victims)
    await truths.hold(session, turn, status="success", cut="gateway" in victims)
    await truths.nothing_is_held()


async def test_calls_at_once_do_not_overspend_a_budget_and_one_that_is_spent_is_402(truths: Truths) -> None:
    """Four turns of one org at once, each with money for three calls and a bit: the fifth call of each is refused."""
    started = [await truths.start("ask 9", budget_micro_usd=3 * COST + 1) for _ in range(4)]
    for session, turn in started:
        found = await truths.hold(session, turn, status="failed")
        assert found.finished is not None
        assert found.finished.error == "API Error: 402 (the model's API answered 402)"
        standing = await truths.asked.standing(key_name(ORG, session, 1, turn, 1))
        assert standing is not None
        assert standing.charged_micro_usd == 4 * COST
    await truths.nothing_is_held()


TROUBLES: dict[str, tuple[list[Reply | Failure], str]] = {
    "401": ([Failure(401)], "failed"),
    "402": ([Failure(402)], "failed"),
    "429": ([Failure(429), Failure(429)], "success"),
    "500": ([Failure(500), Failure(500)], "success"),
    "hangs": ([Reply("one two three", tokens=TOKENS, hang_after=3)], "success"),
    "hangs before it answers": ([Reply("one", tokens=TOKENS, hang_after=0)], "success"),
    "cuts the stream": ([Reply("one two three", tokens=TOKENS, cut_after=4)], "success"),
}


async def test_a_provider_that_fails(truths: Truths) -> None:
    """All of them at once: a turn that hangs takes its two seconds."""
    started = {}
    for name, (trouble, _) in TROUBLES.items():
        turn = new_token("t-")
        truths.troubles[turn] = [Reply("fine", tokens=TOKENS), *trouble]
        started[name] = await truths.start("ask 3", turn=turn)
    for name, (session, turn) in started.items():
        status = TROUBLES[name][1]
        found = await truths.hold(session, turn, status=status)
        assert found.finished is not None
        assert found.finished.error == (
            f"API Error: {name} (the model's API answered {name})" if status == "failed" else None
        )
    await truths.nothing_is_held()


async def test_a_key_that_is_revoked_under_a_turn_fails_it(truths: Truths) -> None:
    session, turn = await truths.start("ask 500")
    await truths.until(session, turn, STAGES["running"])
    await truths.asked.revoke(key_name(ORG, session, 1, turn, 1))
    found = await truths.hold(session, turn, status="failed", cut=True)
    assert found.finished is not None
    assert found.finished.error == "API Error: 401 (the model's API answered 401)"


ODD: dict[str, tuple[str, str | None]] = {
    "die 0": ("interrupted", "the agent's program exited with 0 without a result: something broke"),
    "killed": ("interrupted", "the agent's program was ended by SIGKILL without a result"),
    "garbage": ("success", None),
    "huge 30": ("success", None),
}


async def test_agents_that_do_as_no_agent_should(truths: Truths) -> None:
    started = {prompt: await truths.start(prompt) for prompt in ODD}
    for prompt, (session, turn) in started.items():
        status, error = ODD[prompt]
        found = await truths.hold(session, turn, status=status)
        assert found.finished is not None
        assert found.finished.error == error
        events = await truths.events(session, turn)
        assert texts(events) == ([] if prompt == "die 0" else ["before"])
        assert tools(events) == (["t1"] if status == "success" else [])
        raw = [event.data.payload for event in events if isinstance(event.data, a.AgentRaw)]
        assert ({"type": "new"} in raw) == (prompt == "garbage")
        left_out = [event.data.message for event in events if isinstance(event.data, a.AgentError)]
        assert left_out == (["a line of over 8388608 bytes was left out"] if prompt == "huge 30" else [])


async def test_the_sessions_stop_ends_a_turn_and_all_that_it_ran(truths: Truths) -> None:
    session, turn = await truths.start("ask 500")
    await truths.until(session, turn, STAGES["running"])
    boot = truths.site.boot(session)
    await truths.client.stop(ORG, session)
    found = await truths.hold(session, turn, status="cancelled", cut=True)
    assert found.finished is not None
    assert found.finished.error == "the session was stopped"
    assert left_of(boot) == []
    await truths.nothing_is_held()


@pytest.mark.parametrize("stage", ["asked", *STAGES])
async def test_a_destroy_that_races_a_turn(truths: Truths, stage: str) -> None:
    """Before it has begun it is made again for the turn, afterwards the turn ends with it; in either case once."""
    session = await truths.site.session("doomed")
    boot = truths.site.boot(session)
    turn = new_token("t-")
    if stage == "asked":
        start = c.StartTurn(turn=turn, agent="claude-code", prompt="ask 4", owner=truths.owner(session))
        await asyncio.gather(truths.client.send(ORG, session, start), truths.client.destroy(ORG, session))
    else:
        await truths.start("ask 4" if stage == "settling" else "ask 500", session, turn=turn)
        await truths.until(session, turn, STAGES[stage])
        await truths.client.destroy(ORG, session)
    ended = await truths.until(session, turn)
    assert ended.finished is not None
    expected = {"settling": ("success",), "asked": ("cancelled", "success")}.get(stage, ("cancelled",))
    assert ended.finished.status in expected
    await truths.hold(session, turn, status=ended.finished.status, cut=True)
    assert left_of(boot) == []
    await truths.nothing_is_held()


async def test_a_message_that_races_the_end_is_heard_once_or_refused(truths: Truths) -> None:
    """Eight turns, each told something as it ends: in the turn, or by the one that follows, or not taken at all."""

    async def race(number: int) -> None:
        session, turn = await truths.start("say first")
        word = f"word-{number}"
        stages: tuple[Callable[[Turn], bool], ...] = (
            lambda turn: turn.accepted,
            lambda turn: turn.run.result is not None,
        )
        await truths.until(session, turn, stages[number % 2])
        told = c.Steer(turn=turn, message_id=word, text=f"say {word}")
        [answer] = await asyncio.gather(truths.client.send(ORG, session, told), return_exceptions=True)
        assert isinstance(answer, Outcome | Refused), answer
        taken = isinstance(answer, Outcome)
        assert taken or "TURN_FINISHED" in str(answer)
        found = await truths.hold(session, turn, status="success")
        said = texts(await truths.events(session, turn))
        if found.requeued:
            following = derived_id(turn, "next")
            await truths.hold(session, following, status="success")
            said += texts(await truths.events(session, following))
        assert said.count(word) == taken, (
            answer,
            said,
            [type(e.data).__name__ for e in await truths.events(session, turn)],
        )

    await asyncio.gather(*(race(number) for number in range(8)))
    await truths.nothing_is_held()


async def test_the_same_start_ten_times_is_one_turn(truths: Truths) -> None:
    session, turn, id = new_token("s-"), new_token("t-"), new_id()
    start = c.StartTurn(turn=turn, agent="claude-code", prompt="ask 4", owner=truths.owner(session))
    outcomes = await asyncio.gather(*(truths.client.send(ORG, session, start, command_id=id) for _ in range(10)))
    assert len({outcome.cursor for outcome in outcomes}) == 1
    found = await truths.hold(session, turn, status="success")
    assert found.keys == ((1, 1),)
    events = await truths.events(session, turn)
    assert [event.type for event in events].count("turn.requested") == 1
    assert tools(events) == [f"c{number}" for number in range(1, 5)]
