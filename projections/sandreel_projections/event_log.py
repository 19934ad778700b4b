"""From an event to one row of `reel.event_log`, whatever its type. Pure.

Output stands in `reel.exec_blocks` already and is not stored twice; `reel.audit_log` shows both.
"""

from __future__ import annotations

from datetime import datetime

from sandreel_core.contract.message import Unknown
from sandreel_projections.change import Change, bigint, text
from sandreel_projections.payload import kept

_MAX_NAME_CHARS = 1024

# In the order of the columns of `reel.event_log`.
Event = tuple[
    str, str, str, str | None, str, int | None, str, str, str | None, str | None, str | None,
    datetime, datetime, str | None, str | None, int, int, str,
]  # fmt: skip


def event(change: Change) -> Event:
    """Newer types are kept too; what this version could not read of them stands in `problem`."""
    where, envelope, data = change.where, change.envelope, change.data
    return (
        where.org,
        where.session,
        where.aggregate,
        where.key or None,
        _name(envelope.type) or "",
        bigint(envelope.n),
        _name(envelope.id) or "",
        _name(envelope.source) or "",
        _name(envelope.actor),
        _name(envelope.causationid),
        _name(envelope.correlationid),
        envelope.time,
        change.at,
        kept(envelope.type, change.body),
        text(data.problem[:_MAX_NAME_CHARS]) if isinstance(data, Unknown) else None,
        where.partition,
        change.sequence,
        change.cursor,
    )


def other(change: Change) -> Event | None:
    """The events of every aggregate that counts no ordinals; of an exec only those that its fold takes."""
    return None if change.where.aggregate == "exec" else event(change)


def _name(value: str | None) -> str | None:
    return None if value is None else text(value[:_MAX_NAME_CHARS])
