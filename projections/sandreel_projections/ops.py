"""The fold behind `reel.ops`: one row per agent turn, as far as its events say. Pure and total."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from sandreel_core.contract import turn as t
from sandreel_core.contract.message import Unknown
from sandreel_core.turn import Phase, evolve
from sandreel_projections.change import Change, bigint, text

Key = tuple[str, str, str]

# Of a prompt or a final text: enough to recognise it by. The whole stands in the log.
MAX_TEXT_CHARS = 1024


class OpRow(Struct, frozen=True, kw_only=True):
    """One row of `reel.ops`: the fields are its columns, in their order, and are explained there."""

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


def key(change: Change) -> Key | None:
    where = change.where
    return (where.org, where.session, where.key) if where.aggregate == "turn" else None


def step(before: OpRow | None, change: Change) -> tuple[OpRow | None, None, str]:
    cursor, where = change.cursor, change.where
    row = before or OpRow(org=where.org, session=where.session, turn=where.key, first_cursor=cursor, last_cursor=cursor)
    phase = evolve(row.phase, change.envelope.type)
    return _folded(replace(row, phase=phase, last_cursor=cursor), change, moved=phase != row.phase), None, ""


def _folded(row: OpRow, change: Change, *, moved: bool) -> OpRow:
    data, event = change.data, change.envelope
    match data:
        case Unknown():
            return replace(row, unreadable_events=row.unreadable_events + 1)
        case t.TurnRequested() if moved:
            return replace(
                row,
                agent=text(data.agent),
                model=text(data.model),
                conversation_id=text(data.conversation_id),
                permission_mode=data.permission_mode,
                prompt=_beginning(data.prompt),
                requested_by=text(event.actor),
                command_id=text(event.causationid),
                requested_at=event.time,
            )
        case t.TurnStarted() if moved:
            return replace(row, exec=text(data.exec), started_at=event.time)
        case t.TurnFinished() if moved:
            return replace(
                row, finished_at=event.time, status=data.status, error=text(data.error), **_tokens(data.usage)
            )
        case t.RunStarted():
            return replace(row, model=row.model or text(data.model))
        case t.ToolUse():
            return replace(row, tool_uses=row.tool_uses + 1)
        case t.ToolResult(is_error=True):
            return replace(row, tool_errors=row.tool_errors + 1)
        case t.SteerQueued():
            return replace(row, steers_queued=row.steers_queued + 1)
        case t.SteerDelivered():
            return replace(row, steers_delivered=row.steers_delivered + len(data.message_ids))
        case t.Checkpoint():
            return replace(row, checkpoint_n=bigint(data.exec_n))
    return row


def _tokens(usage: t.Usage) -> dict[str, int | None]:
    return {
        "input_tokens": bigint(usage.input_tokens),
        "output_tokens": bigint(usage.output_tokens),
        "cache_read_input_tokens": bigint(usage.cache_read_input_tokens),
        "cache_creation_input_tokens": bigint(usage.cache_creation_input_tokens),
        "cost_micro_usd": bigint(usage.cost_micro_usd),
    }


def _beginning(value: str | None) -> str | None:
    if value is None or len(value) <= MAX_TEXT_CHARS:
        return text(value)
    return f"{text(value[:MAX_TEXT_CHARS])}…[+{len(value) - MAX_TEXT_CHARS}]"
