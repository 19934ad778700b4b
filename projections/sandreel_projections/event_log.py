"""From an event to its row of `reel.event_log` or, of an exec, of `reel.exec_events`, whatever its type. Pure and total.

Output stands in `reel.exec_blocks` already and is not stored twice; `reel.audit_log` shows it all.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct

from sandreel_core.contract.exec import Output
from sandreel_core.contract.message import Unknown
from sandreel_projections.change import Change, aware, text
from sandreel_projections.payload import kept

_MAX_NAME_CHARS = 1024
_MAX_N = 2**63 - 1

# In the order of the columns of `reel.event_log`.
Event = tuple[Any, ...]
Key = tuple[str, str, str, int]


class ExecEventRow(Struct, frozen=True, kw_only=True):
    """One row of `reel.exec_events`: the fields are its columns, in their order, and are explained there."""

    org: str
    session: str
    exec: str
    n: int
    type: str
    id: str
    source: str
    actor: str | None
    causation_id: str | None
    correlation_id: str | None
    said_at: datetime
    stored_at: datetime
    data: str | None
    problem: str | None
    partition: int
    sequence: int
    cursor: str


def event(change: Change) -> Event | None:
    """Newer types are kept too; what this version could not read of them stands in `problem`. None for an exec's."""
    where = change.where
    if where.aggregate == "exec":
        return None
    return where.org, where.session, where.aggregate, where.key or None, *_said(change).values()


def key(change: Change) -> Key | None:
    """None for what is no event of an exec, or has no place in one."""
    where, n = change.where, change.envelope.n
    if where.aggregate != "exec" or n is None or n > _MAX_N or isinstance(change.data, Output):
        return None
    return where.org, where.session, where.key, n


def step(before: ExecEventRow | None, change: Change) -> tuple[ExecEventRow | None, None, str]:
    """The first with an ordinal: a recorder that is not sure whether it was stored sends the same one again."""
    where = change.where
    made = before or ExecEventRow(
        org=where.org, session=where.session, exec=where.key, n=change.envelope.n or 0, **_said(change)
    )
    return made, None, ""


def _said(change: Change) -> dict[str, Any]:
    envelope, data = change.envelope, change.data
    return {
        "type": _name(envelope.type) or "",
        "id": _name(envelope.id) or "",
        "source": _name(envelope.source) or "",
        "actor": _name(envelope.actor),
        "causation_id": _name(envelope.causationid),
        "correlation_id": _name(envelope.correlationid),
        "said_at": aware(envelope.time),
        "stored_at": change.at,
        # Of data that does not fit its type it is not known what in it is a secret.
        "data": None if change.problem else kept(envelope.type, change.body),
        "problem": text(data.problem[:_MAX_NAME_CHARS]) if isinstance(data, Unknown) else None,
        "partition": change.where.partition,
        "sequence": change.sequence,
        "cursor": change.cursor,
    }


def _name(value: str | None) -> str | None:
    return None if value is None else text(value[:_MAX_NAME_CHARS])
