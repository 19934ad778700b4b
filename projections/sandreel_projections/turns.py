"""The fold behind `reel.ops`: one row per agent turn, as far as its events say. Pure and total."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.contract.message import Unknown
from sandreel_core.contract.session import CommandRefused, CommandSettled
from sandreel_projections.change import Change, bigint, integer, text
from sandreel_projections.recent import brief

Key = tuple[str, str, str]
Phase = Literal["none", "requested", "running", "finished"]

# Of a prompt: enough to recognise it by. The whole stands in `reel.turn_events` and in the log.
MAX_PROMPT_CHARS = 1024
# Behaviour §4.4: what is shown of a turn that runs.
MAX_PROGRESS_CHARS = 8000
# Behaviour §4.1: `recentEvents`.
MAX_RECENT = 20
MAX_PLAN_CHARS = 16_000


class TurnRow(Struct, frozen=True, kw_only=True):
    """One row of `reel.turns`: the fields are its columns, in their order, and are explained there."""

    org: str
    session: str
    turn: str
    phase: Phase = "none"
    agent: str | None = None
    model: str | None = None
    conversation_id: str | None = None
    permission_mode: str | None = None
    prompt: str | None = None
    requested_by: str | None = None
    command_id: str | None = None
    exec: str | None = None
    requested_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    status: str | None = None
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cost_micro_usd: int | None = None
    tool_uses: int = 0
    tool_errors: int = 0
    steers_queued: int = 0
    steers_delivered: int = 0
    checkpoint_n: int | None = None
    unreadable_events: int = 0
    first_cursor: str
    last_cursor: str
    owner_type: str | None = None
    owner_id: str | None = None
    attempt: int | None = None
    incarnation: int | None = None
    agent_session_id: str | None = None
    key_name: str | None = None
    budget_micro_usd: int | None = None
    interrupting_at: datetime | None = None
    plan: str | None = None
    plan_decision: str | None = None
    next_turn: str | None = None
    steers_consumed: int = 0
    agent_errors: int = 0
    progress: str | None = None
    recent_events: str = "[]"
    driver: str | None = None
    heartbeat_at: datetime | None = None
    last_event_at: datetime | None = None


def key(change: Change) -> Key | None:
    """None for an answer to a command that changed nothing: a turn.start that was refused is no turn."""
    where = change.where
    if where.aggregate != "turn" or isinstance(change.data, CommandRefused | CommandSettled):
        return None
    return where.org, where.session, where.key


def step(before: TurnRow | None, change: Change) -> tuple[TurnRow | None, None, str]:
    cursor, where = change.cursor, change.where
    row = before or TurnRow(
        org=where.org, session=where.session, turn=where.key, first_cursor=cursor, last_cursor=cursor
    )
    row = replace(row, last_cursor=cursor, recent_events=_recent(row.recent_events, change))
    if change.envelope.causationid is None:  # else it answers a command, which any bridge does
        row = replace(row, driver=text(change.envelope.source), heartbeat_at=change.at)
    data = change.data
    if isinstance(data, a.AgentEvent):
        row = _agent(replace(row, last_event_at=change.at), data)
    elif isinstance(data, t.SteerQueued | t.SteerDelivered | t.SteerConsumed):
        row = _steer(row, data)
    else:
        row = _life(row, change)
    return row, None, ""


def _life(row: TurnRow, change: Change) -> TurnRow:
    event, data = change.envelope, change.data
    match data:
        case Unknown():
            return replace(row, unreadable_events=row.unreadable_events + 1)
        case t.TurnRequested() if row.phase == "none":
            return _requested(row, change, data)
        case t.TurnPreparing() if row.phase != "finished":
            return replace(
                row,
                exec=text(data.exec),
                attempt=integer(data.attempt),
                incarnation=integer(data.incarnation),
                model=text(data.model) or row.model,
                agent_session_id=text(data.agent_session_id) or row.agent_session_id,
                budget_micro_usd=row.budget_micro_usd
                if data.budget_micro_usd is None
                else bigint(data.budget_micro_usd),
            )
        case t.TurnStarted() if row.phase in ("requested", "running"):
            started_at = row.started_at or event.time
            return replace(row, phase="running", exec=text(data.exec), key_name=text(data.key), started_at=started_at)
        case t.TurnInterrupting():
            return replace(row, interrupting_at=row.interrupting_at or event.time)
        case t.Checkpoint():
            return replace(row, checkpoint_n=bigint(data.exec_n))
        case t.PlanProposed():
            return replace(row, plan=_beginning(data.plan, MAX_PLAN_CHARS))
        case t.PlanApproved() if row.plan_decision is None:
            return replace(row, plan_decision="approved", next_turn=text(data.next_turn))
        case t.PlanRejected() if row.plan_decision is None:
            return replace(row, plan_decision="rejected")
        case t.TurnFinished() if row.phase in ("requested", "running"):
            said = {"finished_at": event.time, "status": data.status, "error": text(data.error)}
            return replace(row, phase="finished", **said, **tokens(data.usage))
    return row


def _requested(row: TurnRow, change: Change, data: t.TurnRequested) -> TurnRow:
    event = change.envelope
    return replace(
        row,
        phase="requested",
        agent=text(data.agent),
        model=text(data.model),
        conversation_id=text(data.conversation_id),
        permission_mode=data.permission_mode,
        prompt=_beginning(data.prompt, MAX_PROMPT_CHARS),
        requested_by=text(event.actor),
        command_id=text(event.causationid),
        requested_at=event.time,
        owner_type=text(data.owner.type) if data.owner else None,
        owner_id=text(data.owner.id) if data.owner else None,
        budget_micro_usd=bigint(data.budget_micro_usd),
    )


def _agent(row: TurnRow, data: a.AgentEvent) -> TurnRow:
    match data:
        case a.RunStarted():
            said = text(data.agent_session_id) or row.agent_session_id
            return replace(row, model=row.model or text(data.model), agent_session_id=said)
        case a.AgentText(parent=None):
            said = data.text if row.progress is None else f"{row.progress}\n\n{data.text}"
            return replace(row, progress=text(said[-MAX_PROGRESS_CHARS:]))
        case a.ToolUse():
            return replace(row, tool_uses=row.tool_uses + 1)
        case a.ToolResult(is_error=True):
            return replace(row, tool_errors=row.tool_errors + 1)
        case a.AgentResult():
            return replace(row, agent_session_id=text(data.agent_session_id) or row.agent_session_id)
        case a.AgentError():
            return replace(row, agent_errors=row.agent_errors + 1)
    return row


def _steer(row: TurnRow, data: t.SteerQueued | t.SteerDelivered | t.SteerConsumed) -> TurnRow:
    match data:
        case t.SteerQueued():
            return replace(row, steers_queued=row.steers_queued + 1)
        case t.SteerDelivered():
            return replace(row, steers_delivered=row.steers_delivered + len(data.message_ids))
        case t.SteerConsumed():
            return replace(row, steers_consumed=row.steers_consumed + len(data.message_ids))
    return row


def _recent(before: str, change: Change) -> str:
    """JSON text of the newest, the oldest first."""
    said = brief(change)
    if said is None:
        return before
    kept = [*msgspec.json.decode(before), said][-MAX_RECENT:]
    return msgspec.json.encode(kept).decode()


def tokens(usage: t.Usage) -> dict[str, int | None]:
    return {
        "input_tokens": bigint(usage.input_tokens),
        "output_tokens": bigint(usage.output_tokens),
        "cache_read_input_tokens": bigint(usage.cache_read_input_tokens),
        "cache_creation_input_tokens": bigint(usage.cache_creation_input_tokens),
        "cost_micro_usd": bigint(usage.cost_micro_usd),
    }


def _beginning(value: str | None, limit: int) -> str | None:
    if value is None or len(value) <= limit:
        return text(value)
    return f"{text(value[:limit])}…[+{len(value) - limit}]"
