"""A turn in a list: what its first event and its newest ones tell. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sandreel_core.client.turn_standing import TurnState
from sandreel_core.contract import turn as t
from sandreel_core.contract.cursor import Cursor


@dataclass(frozen=True, slots=True)
class TurnInfo:
    """A turn as it stands (`turn_standing.Standing`). `decided`: whether its plan was approved (the turn in which it goes on) or rejected;
    `ended_ns`: the server's time of its end; `began` and `cursor`: where its first event stands and its newest one."""

    org: str
    session: str
    turn: str
    requested: t.TurnRequested | None
    state: TurnState
    ended: t.TurnFinished | None
    decided: t.PlanApproved | t.PlanRejected | None
    asked_ns: int
    ended_ns: int | None
    heard_ns: int
    began: Cursor
    cursor: Cursor
