"""What follows from a turn that is finished."""

from __future__ import annotations

from typing import Any

import pytest

from sandreel_bridge import sandbox
from sandreel_bridge.journal import Name
from sandreel_bridge.process import Home
from sandreel_bridge.settling import is_measured, message_commands, open_next, opens_next, plan_command
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.client import Client
from sandreel_core.contract import turn as c
from sandreel_core.errors import Refused
from sandreel_core.session import Session
from sandreel_core.turn import Turn
from tests.support.turns import RUNNING, folded, preparing, requested, result, text

NAME = Name("acme", "s1", "t1")
STOP = c.TurnInterrupting()
PLAN = c.PlanProposed(plan="1. look")
GO = c.PlanApproved(next_turn="t1-go")


def left(*events: Any, status: c.TurnStatus, messages: int = 2, size: int = 4) -> Turn:
    """A finished turn with messages that nobody has read."""
    ids = [f"m{number}" for number in range(messages)]
    queued = [c.SteerQueued(message_id=id, text=id.ljust(size, ".")) for id in ids]
    return folded(*events, *queued, c.SteerRequeued(message_ids=ids), c.TurnFinished(status=status))


@pytest.mark.parametrize(
    ("turn", "phase", "opens"),
    [
        (left(*RUNNING, text(), result(), status="success"), "ready", True),
        (left(*RUNNING, status="interrupted"), "stopped", True),
        (left(*RUNNING, status="interrupted"), "destroyed", False),
        (left(*RUNNING, status="failed"), "destroying", False),
        (left(*RUNNING, STOP, status="cancelled"), "ready", True),
        (left(*RUNNING, STOP, status="cancelled"), "degraded", True),
        (left(*RUNNING, status="cancelled"), "ready", True),
        (left(*RUNNING, status="cancelled"), "stopping", False),
        (left(*RUNNING, status="cancelled"), "stopped", False),
        (left(*RUNNING, status="cancelled"), "destroyed", False),
        (left(requested(), STOP, status="cancelled"), "ready", False),
        (left(requested(), preparing(), STOP, status="cancelled"), "ready", False),
        (left(*RUNNING, text(), result(), status="success", messages=0), "ready", False),
    ],
)
def test_messages_that_were_not_read_open_a_turn_unless_nobody_wants_one(turn: Turn, phase: Any, opens: bool) -> None:
    assert opens_next(turn, phase) is opens


def test_those_that_fit_make_one_prompt_and_the_others_wait_for_it() -> None:
    turn = left(*RUNNING, status="interrupted", messages=3, size=30_000)
    start, steer = (command for _, command in message_commands(NAME, turn))
    assert isinstance(start, c.StartTurn)
    assert isinstance(steer, c.Steer)
    assert [part[:2] for part in start.prompt.split("\n\n")] == ["m0", "m1"]
    assert (steer.turn, steer.message_id) == ("t1-next", "m2")
    assert message_commands(NAME, turn) == message_commands(NAME, turn)


async def test_messages_do_not_end_up_in_a_turn_that_somebody_else_has_named_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor in none: they open one of another name, which a successor finds again."""
    turn = left(*RUNNING, text(), result(), status="success", messages=3, size=30_000)
    there = {"t1-next"}
    heard: dict[str, list[str]] = {}
    ids: list[str] = []

    async def send(self: Client, org: str, session: str, command: c.TurnCommand, *, command_id: str) -> None:
        ids.append(command_id)
        if isinstance(command, c.StartTurn):
            if command.turn in there:
                raise Refused("DUPLICATE_TURN", "there is a turn of that id already")
            heard[command.turn] = [part[:2] for part in command.prompt.split("\n\n")]
        else:
            assert isinstance(command, c.Steer)
            heard[command.turn].append(command.message_id)

    async def look(*_: object) -> Home:
        return Home(session=Session(phase="ready"), sequence=1)

    monkeypatch.setattr(Client, "send", send)
    monkeypatch.setattr(sandbox, "look", look)
    client = Client(MemoryBus())
    await open_next(client, NAME, turn)
    (name,) = heard
    assert name.startswith("t1-next-")
    assert heard == {name: ["m0", "m1", "m2"]}
    before = list(ids)
    assert len(set(before)) == len(before) == 3
    await open_next(client, NAME, turn)
    assert ids == before * 2, "sent again it is the same commands"


@pytest.mark.parametrize(
    ("events", "opened"),
    [
        ([PLAN], []),
        ([PLAN, GO], ["t1-go"]),
        ([PLAN, c.PlanRejected()], []),
        # Approved while it was still ending, and then stopped.
        ([PLAN, GO, STOP], []),
    ],
)
def test_an_approved_plan_is_carried_out_unless_its_turn_was_stopped(events: list[Any], opened: list[str]) -> None:
    status: c.TurnStatus = "cancelled" if STOP in events else "plan"
    over = c.TurnFinished(status=status)
    before, after = folded(*RUNNING, *events, over), folded(*RUNNING, PLAN, over, *events[1:])
    for turn in (before, after):
        command = plan_command(NAME, turn)
        assert ([command[1].turn] if command is not None else []) == opened


def test_a_plan_that_is_too_long_for_a_prompt_is_cut_and_says_so() -> None:
    over = c.TurnFinished(status="plan")
    for plan, cut in (("1. look", False), ("€" * c.MAX_PROMPT_BYTES, True)):
        turn = folded(*RUNNING, c.PlanProposed(plan=plan), over, c.PlanApproved(next_turn="t1-go"))
        sent = plan_command(NAME, turn)
        assert sent is not None
        command = sent[1]
        assert isinstance(command, c.StartTurn)
        assert len(command.prompt.encode()) <= c.MAX_PROMPT_BYTES
        assert command.prompt.endswith("[the rest of the plan stands in this conversation]") == cut
        assert (plan in command.prompt) != cut


@pytest.mark.parametrize(
    ("events", "measured"),
    [
        ((requested(),), True),
        ((*RUNNING, text()), False),
        ((*RUNNING, result()), True),
        ((*RUNNING, result(), text(n=5)), False),
        ((*RUNNING, result("interrupted", usage=None)), False),
        ((*RUNNING, result("interrupted", usage=None), result(n=6)), False),
    ],
)
def test_what_was_used_is_known_when_each_answer_has_said_it(events: tuple[Any, ...], measured: bool) -> None:
    assert is_measured(folded(*events, c.TurnFinished(status="success"))) is measured
