"""What a reader of a turn is given, typed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from sandreel_core.agent import Typed
from sandreel_core.client.items import CaughtUp, Gap
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.usage import UsageRecorded
from sandreel_core.turn import summed


@dataclass(frozen=True, slots=True)
class TurnEntry:
    """One event of the turn, with its place in the log. `stored_ns` is the server's clock, nanoseconds since 1970."""

    cursor: Cursor
    stored_ns: int
    event: Envelope

    @property
    def data(self) -> Any:
        """A `turn.*` or `agent.*` event of `contract.turn`, or `Unknown`."""
        return self.event.data

    @property
    def stored_at(self) -> datetime:
        return datetime.fromtimestamp(self.stored_ns / 1e9, UTC)


# `Typed` is text that is being typed: it has no place in the log, and comes again, whole, as `agent.text`.
TurnItem: TypeAlias = TurnEntry | Typed | CaughtUp | Gap


@dataclass(frozen=True, slots=True)
class TurnResult:
    """How a turn ended.

    error      one sentence, of a turn that did not succeed
    usage      of the whole turn; its cost is None when a price is not known
    text       the agent's last answer; None without one
    plan       what a turn in plan mode proposed
    """

    turn: str
    session: str
    status: t.TurnStatus
    error: str | None
    usage: t.Usage
    text: str | None
    plan: str | None
    duration_ms: int
    cursor: Cursor

    @property
    def ok(self) -> bool:
        """Whether it did what it was for, which in plan mode is a plan."""
        return self.status in ("success", "plan")


@dataclass(slots=True)
class TurnFold:
    """Takes a turn's items and keeps what its result needs."""

    turn: str
    session: str
    _began_ns: int | None = None
    _text: str | None = None
    _plan: str | None = None

    def take(self, item: TurnItem) -> TurnResult | None:
        """The result, with the item that ends the turn."""
        if not isinstance(item, TurnEntry):
            return None
        data = item.data
        if isinstance(data, t.TurnRequested):
            self._began_ns = item.stored_ns
        elif isinstance(data, a.AgentResult) and data.final_text:
            self._text = data.final_text
        elif isinstance(data, t.PlanProposed):
            self._plan = data.plan
        elif isinstance(data, t.TurnFinished):
            took_ms = (item.stored_ns - (self._began_ns or item.stored_ns)) // 1_000_000
            where = (self.turn, self.session)
            return TurnResult(*where, data.status, data.error, data.usage, self._text, self._plan, took_ms, item.cursor)
        return None


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What a turn used of one model, as the gateway counted it. `usage.cost_micro_usd` is None as soon as one call's
    price is not known; `refused` calls had an answer of the kind 4xx or 5xx."""

    model: str
    calls: int
    refused: int
    usage: t.Usage


def by_model(calls: list[UsageRecorded]) -> list[ModelUse]:
    """The calls of a turn, by the model that answered, in the order in which each was first called."""
    found: dict[str, ModelUse] = {}
    for call in calls:
        before = found.get(call.model, ModelUse(call.model, 0, 0, t.Usage(cost_micro_usd=0)))
        refused = before.refused + ((call.http_status or 0) >= 400)
        found[call.model] = ModelUse(call.model, before.calls + 1, refused, summed((before.usage, call.usage)))
    return list(found.values())
