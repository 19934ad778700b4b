"""What is left to do when a turn is finished."""

from __future__ import annotations

from typing import Any

import pytest

from sandreel_bridge.journal import Name
from sandreel_bridge.settling import commands_next, is_measured
from sandreel_core.contract import turn as c
from tests.support.turns import RUNNING, folded, requested, result, text

NAME = Name("acme", "s1", "t1")
PLAN = c.PlanProposed(plan="1. look")
GO = c.PlanApproved(next_turn="t1-go")
LEFT = (c.SteerQueued(message_id="m1", text="and this"), c.SteerRequeued(message_ids=["m1"]))


def over(status: Any) -> c.TurnFinished:
    return c.TurnFinished(status=status)


@pytest.mark.parametrize(
    ("events", "opened"),
    [
        ((over("success"),), []),
        ((*LEFT, over("success")), ["t1-next"]),
        ((*LEFT, over("failed")), ["t1-next"]),
        ((*LEFT, over("cancelled")), []),
        ((PLAN, over("plan")), []),
        ((PLAN, over("plan"), GO), ["t1-go"]),
        ((PLAN, over("plan"), c.PlanRejected()), []),
        ((PLAN, GO, over("plan")), ["t1-go"]),
        # Approved while it was still ending, and then stopped.
        ((PLAN, GO, c.TurnInterrupting(), over("cancelled")), []),
        ((*LEFT, PLAN, over("plan"), GO), ["t1-go", "t1-next"]),
    ],
)
def test_what_comes_next(events: tuple[Any, ...], opened: list[str]) -> None:
    following = commands_next(NAME, folded(*RUNNING, *events))
    assert [command.turn for _, command in following] == opened
    assert len({id for id, _ in following}) == len(following)


@pytest.mark.parametrize(
    ("events", "measured"),
    [
        ((requested(), over("cancelled")), True),
        ((*RUNNING, text(), over("interrupted")), False),
        ((*RUNNING, result(), over("success")), True),
        ((*RUNNING, result(), text(n=5), over("interrupted")), False),
        ((*RUNNING, result("interrupted", usage=None), over("interrupted")), False),
        ((*RUNNING, result("interrupted", usage=None), result(n=6), over("success")), False),
    ],
)
def test_what_was_used_is_known_when_each_answer_said_it(events: tuple[Any, ...], measured: bool) -> None:
    assert is_measured(folded(*events)) is measured
