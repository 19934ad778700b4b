"""The fold behind `reel.command_outcomes`: of each command the first event that names it as its cause. Pure and total."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from sandreel_core.contract.exec import Lost, Output
from sandreel_core.contract.session import CommandRefused, CommandSettled
from sandreel_projections.change import Change, aware, text

Key = tuple[str, str, str]
Outcome = Literal["done", "settled", "refused", "lost"]

# A command's id has 36 characters. What names a longer cause names no command.
_MAX_ID = 64


class OutcomeRow(Struct, frozen=True, kw_only=True):
    """One row of `reel.command_outcomes`: the fields are its columns, in their order, and are explained there."""

    org: str
    session: str
    command_id: str
    outcome: Outcome
    event_type: str
    code: str | None = None
    message: str | None = None
    aggregate: str
    aggregate_id: str | None = None
    actor: str | None = None
    correlation_id: str | None = None
    source: str
    said_at: datetime
    stored_at: datetime
    cursor: str


def key(change: Change) -> Key | None:
    cause = change.envelope.causationid
    # Output names no cause, and is most of the log.
    if cause is None or not 0 < len(cause) <= _MAX_ID or "\0" in cause or isinstance(change.data, Output):
        return None
    return change.where.org, change.where.session, cause


def step(before: OutcomeRow | None, change: Change) -> tuple[OutcomeRow | None, None, str]:
    """The first is the outcome; whatever names the command later is what came of it."""
    return before or _row(change), None, ""


def _row(change: Change) -> OutcomeRow:
    event, data, where = change.envelope, change.data, change.where
    answer = data if isinstance(data, CommandRefused | CommandSettled) else None
    return OutcomeRow(
        org=where.org,
        session=where.session,
        command_id=event.causationid or "",
        outcome=_outcome(data),
        event_type=text(event.type) or "",
        code=text(data.code) if isinstance(data, CommandRefused) else None,
        message=text(answer.message) or None if answer else None,
        aggregate=where.aggregate,
        aggregate_id=where.key or None,
        actor=text(event.actor),
        correlation_id=text(event.correlationid),
        source=text(event.source) or "",
        said_at=aware(event.time),
        stored_at=change.at,
        cursor=change.cursor,
    )


def _outcome(data: object) -> Outcome:
    if isinstance(data, CommandRefused):
        return "refused"
    if isinstance(data, CommandSettled):
        return "settled"
    return "lost" if isinstance(data, Lost) else "done"
