"""A turn in a list: what its first event and its newest one tell. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sandreel_core.contract import turn as t
from sandreel_core.contract.cursor import Cursor

TurnState: TypeAlias = Literal[
    "requested",
    "preparing",
    "running",
    "interrupting",
    "success",
    "failed",
    "cancelled",
    "interrupted",
    "max_turns",
    "plan",
]


@dataclass(frozen=True, slots=True)
class TurnInfo:
    """A turn by its first event and its newest one. `state` of one that has ended is its status; `decided` whether its plan
    was approved (the turn in which it goes on) or rejected; `began` and `cursor`: where the two events stand."""

    org: str
    session: str
    turn: str
    requested: t.TurnRequested | None
    state: TurnState
    ended: t.TurnFinished | None
    decided: t.PlanApproved | t.PlanRejected | None
    asked_ns: int
    heard_ns: int
    began: Cursor
    cursor: Cursor


def state_by(newest: object) -> TurnState:
    """By the newest event; a plan is decided upon only once its turn has ended."""
    match newest:
        case t.TurnFinished(status=status):
            return status
        case t.PlanApproved() | t.PlanRejected():
            return "plan"
        case t.TurnRequested():
            return "requested"
        case t.TurnPreparing():
            return "preparing"
        case t.TurnInterrupting():
            return "interrupting"
    return "running"
