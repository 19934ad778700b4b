"""What follows from a turn that is finished."""

from __future__ import annotations

from typing import Any

import pytest

from sandreel_bridge.journal import Name
from sandreel_bridge.settling import commands_next, opens_next
from sandreel_core.contract import turn as c
from sandreel_core.turn import Turn
from tests.support.turns import RUNNING, folded, preparing, requested, result, text

NAME = Name("acme", "s1", "t1")
STOP = c.TurnInterrupting()


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
    assert [command.turn for _, command in commands_next(NAME, turn, with_messages=opens)] == ["t1-next"] * opens


def test_those_that_fit_make_one_prompt_and_the_others_wait_for_it() -> None:
    turn = left(*RUNNING, status="interrupted", messages=3, size=30_000)
    start, steer = (command for _, command in commands_next(NAME, turn, with_messages=True))
    assert isinstance(start, c.StartTurn)
    assert isinstance(steer, c.Steer)
    assert [part[:2] for part in start.prompt.split("\n\n")] == ["m0", "m1"]
    assert (steer.turn, steer.message_id) == ("t1-next", "m2")
    assert commands_next(NAME, turn, with_messages=True) == commands_next(NAME, turn, with_messages=True)
