"""From an event of a turn to its row of `reel.turn_items`, of which the view `reel.turn_events` makes the timeline:
there a tool's input and output are one row. Pure and total."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.contract.message import Unknown
from sandreel_core.contract.session import CommandRefused, CommandSettled
from sandreel_core.messages import MAX_OUTPUT_CHARS, output_text
from sandreel_projections.change import Change, aware, bigint, text, texts
from sandreel_projections.payload import json_within

# Of what a tool was given, and of what an adapter did not know, as JSON; a file that is written may have half a megabyte.
MAX_DATA_BYTES = 64 * 1024
_MAX_NAME_CHARS = 1024

# In the order of the columns of `reel.turn_items`.
Item = tuple[Any, ...]


class _Said(Struct, frozen=True, kw_only=True):
    """What an event says, in the columns between its place and its times."""

    kind: str
    parent: str | None = None
    pair: str | None = None
    name: str | None = None
    text: str | None = None
    is_error: bool | None = None
    status: str | None = None
    message_ids: list[str] | None = None
    data: Any = None
    source_n: int | None = None


def record(change: Change) -> Item | None:
    """None for what is no event of a turn, for a checkpoint, which only a bridge reads, and where it was so already."""
    where, data = change.where, change.data
    if where.aggregate != "turn" or isinstance(data, t.Checkpoint | CommandSettled):
        return None
    said = _agent(data) if isinstance(data, a.AgentEvent) else _turn(change)
    shown, omitted = _shown(said)
    return (
        where.org,
        where.session,
        where.key,
        where.partition,
        change.sequence,
        text(said.kind),
        _name(said.parent),
        _name(said.pair),
        _name(said.name),
        shown,
        omitted,
        said.is_error,
        _name(said.status),
        texts(said.message_ids),
        None if said.data is None else json_within(said.data, MAX_DATA_BYTES),
        bigint(said.source_n),
        change.at,
        _time(change),
        change.cursor,
    )


def _agent(data: a.AgentEvent) -> _Said:
    return replace(_agent_said(data), parent=data.parent, source_n=data.source_n)


def _agent_said(data: a.AgentEvent) -> _Said:
    of: dict[str, Any]
    match data:
        case a.AgentText():
            return _Said(kind="text", text=data.text)
        case a.ToolUse():
            return _Said(kind="tool_use", pair=data.tool_use_id, name=data.tool_name, data=data.input)
        case a.ToolResult():
            output = output_text(data.output)
            return _Said(kind="tool_result", pair=data.tool_use_id, text=output, is_error=data.is_error)
        case a.RunStarted():
            of = {"agent_session_id": data.agent_session_id, "model": data.model}
            return _Said(kind="run_started", name=data.agent, data=of)
        case a.AgentUsage():
            of = {"model": data.model, "provisional": data.provisional, "usage": to_builtins(data.usage)}
            return _Said(kind="usage", data=of)
        case a.AgentResult():
            of = {"http_status": data.http_status, "duration_ms": data.duration_ms, "usage": to_builtins(data.usage)}
            return _Said(kind="result", status=data.status, text=data.error or data.final_text, data=of)
        case a.AgentError():
            return _Said(kind="error", text=data.message, is_error=not data.goes_on)
        case a.TaskStarted():
            return _Said(kind="task_started", pair=data.task_id, text=data.description)
        case a.TaskSettled():
            return _Said(kind="task_settled", pair=data.task_id, status=data.status)
        case a.AgentRaw():
            return _Said(kind="raw", data=data.payload)
    return _Said(kind=data.type.removeprefix("agent."))


def _turn(change: Change) -> _Said:
    data = change.data
    of: dict[str, Any]
    match data:
        case t.TurnRequested():
            of = {"model": data.model, "permission_mode": data.permission_mode, "prompt_object": data.prompt_object}
            return _Said(kind="requested", name=data.agent, text=data.prompt, data=of)
        case t.TurnPreparing():
            of = {"attempt": data.attempt, "exec": data.exec, "model": data.model}
            return _Said(kind="preparing", data=of)
        case t.TurnStarted():
            return _Said(kind="started", data={"exec": data.exec, "key": data.key})
        case t.SteerQueued():
            return _Said(kind="steer_queued", text=data.text, message_ids=[data.message_id])
        case t.SteerDelivered():
            return _Said(kind="steer_delivered", status=data.channel, message_ids=data.message_ids)
        case t.SteerConsumed() | t.SteerRequeued():
            return _Said(kind=data.type.removeprefix("turn."), message_ids=data.message_ids)
        case t.PlanProposed():
            return _Said(kind="plan", text=data.plan)
        case t.PlanApproved():
            return _Said(kind="plan_approved", data={"next_turn": data.next_turn})
        case t.PlanRejected():
            return _Said(kind="plan_rejected", text=data.reason)
        case t.TurnFinished():
            return _Said(kind="finished", status=data.status, text=data.error, data=to_builtins(data.usage))
        case CommandRefused():
            return _Said(kind="refused", name=data.code, text=data.message)
        case Unknown():
            return _Said(kind="unknown", name=change.envelope.type, text=data.problem)
    return _Said(kind=change.envelope.type.removeprefix("turn."))


def _shown(said: _Said) -> tuple[str | None, int]:
    """A tool's output is cut; how many characters are missing is told. What the agent itself says is not."""
    value = said.text
    if value is None or said.kind != "tool_result" or len(value) <= MAX_OUTPUT_CHARS:
        return text(value), 0
    return text(value[:MAX_OUTPUT_CHARS]), len(value) - MAX_OUTPUT_CHARS


def _name(value: str | None) -> str | None:
    return None if value is None else text(value[:_MAX_NAME_CHARS])


def _time(change: Change) -> datetime:
    return aware(change.envelope.time)
