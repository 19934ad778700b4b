"""The fold behind `reel.sessions`: one row per life of a session id. Pure and total."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from sandreel_core.contract import session as s
from sandreel_core.contract.message import Unknown
from sandreel_core.session import TRANSITIONS, Phase
from sandreel_projections.change import Change, integer, text, texts

Key = tuple[str, str]


class SessionRow(Struct, frozen=True, kw_only=True):
    """One row of `reel.sessions`: the fields are its columns, in their order, and are explained there."""

    org: str
    session: str
    incarnation: int
    phase: Phase = "none"
    profile: str | None = None
    image: str | None = None
    owner_type: str | None = None
    owner_id: str | None = None
    requested_by: str | None = None
    env_names: list[str] | None = None
    grants: list[str] | None = None
    ttl_s: float | None = None
    idle_timeout_s: float | None = None
    pinned: bool = False
    boot: int = 0
    boot_id: str | None = None
    backend: str | None = None
    ref: str | None = None
    node: str | None = None
    fence: str | None = None
    runnerd_version: str | None = None
    contract_version: int | None = None
    requested_at: datetime | None = None
    ready_at: datetime | None = None
    changed_at: datetime | None = None
    expires_at: datetime | None = None
    destroyed_at: datetime | None = None
    stop_reason: str | None = None
    degraded_reason: str | None = None
    failure_stage: str | None = None
    failure_code: str | None = None
    failure_message: str | None = None
    refused_commands: int = 0
    unreadable_events: int = 0
    first_cursor: str
    last_cursor: str
    stage: int = 1
    stage_began_at: datetime
    stage_cursor: str


def key(change: Change) -> Key | None:
    where = change.where
    return (where.org, where.session) if where.aggregate == "session" else None


def fold(row: SessionRow | None, change: Change) -> SessionRow | None:
    """The newest life's row after one event of the session's subject; None while there is none.

    A row with another `incarnation` is a new life: the one before stays as it is.
    """
    data = change.data
    if isinstance(data, s.Requested):
        fits = row is None or TRANSITIONS[data.type].get(row.phase) is not None
        return _requested(change, data) if fits and (row is None or data.incarnation > row.incarnation) else row
    if row is None:
        return None
    folded = _folded(row, change)
    return folded if folded is row else replace(folded, last_cursor=change.cursor)


def _requested(change: Change, data: s.Requested) -> SessionRow:
    cursor, event = change.cursor, change.envelope
    return SessionRow(
        org=change.where.org,
        session=change.where.session,
        incarnation=integer(data.incarnation) or 1,
        phase="requested",
        profile=data.profile,
        image=text(data.image),
        owner_type=text(data.owner.type),
        owner_id=text(data.owner.id),
        requested_by=text(event.actor),
        env_names=texts(sorted(data.env)),
        grants=texts(data.grants),
        ttl_s=data.ttl_s,
        idle_timeout_s=data.idle_timeout_s,
        boot=1,
        requested_at=event.time,
        changed_at=event.time,
        expires_at=data.expires_at,
        stage_began_at=change.at,
        stage_cursor=cursor,
        first_cursor=cursor,
        last_cursor=cursor,
    )


def _folded(row: SessionRow, change: Change) -> SessionRow:
    data, at = change.data, change.envelope.time
    match data:
        case Unknown():
            return replace(row, unreadable_events=row.unreadable_events + 1)
        case s.CommandRefused():
            return replace(row, refused_commands=row.refused_commands + 1)
        case s.Pinned() | s.Unpinned() | s.Extended():
            return row if row.phase == "destroyed" else _expiry(row, data)
    phase = TRANSITIONS.get(change.envelope.type, {}).get(row.phase)
    if phase is None:
        return row
    if phase == row.phase:  # an intent that is said again is no stage of its own
        return _life(row, change)
    stage = {"stage": row.stage + 1, "stage_began_at": change.at, "stage_cursor": change.cursor}
    return _life(replace(row, phase=phase, changed_at=at, **stage), change)


def _expiry(row: SessionRow, data: s.Pinned | s.Unpinned | s.Extended) -> SessionRow:
    if isinstance(data, s.Pinned):
        return replace(row, pinned=True)
    if isinstance(data, s.Unpinned):
        return replace(row, pinned=False, expires_at=data.expires_at)
    return replace(row, expires_at=data.expires_at)


def _life(row: SessionRow, change: Change) -> SessionRow:
    at = change.envelope.time
    match change.data:
        case s.Provisioned() as data:
            return replace(
                row,
                boot=integer(data.boot),
                boot_id=text(data.boot_id),
                backend=text(data.backend),
                ref=text(data.ref),
                node=text(data.node),
                fence=data.fence,
            )
        case s.Ready() as data:
            return replace(
                row,
                boot_id=text(data.boot_id),
                runnerd_version=text(data.runnerd_version),
                contract_version=integer(data.contract_version),
                ready_at=row.ready_at or at,
                stop_reason=None,
                failure_stage=None,
                failure_code=None,
                failure_message=None,
            )
        case s.Degraded() as data:
            return replace(row, degraded_reason=text(data.reason))
        case s.Recovered():
            return replace(row, degraded_reason=None)
        case s.Stopping() as data:
            return replace(row, stop_reason=data.reason, degraded_reason=text(data.waits_for) or None)
        case s.Destroying() as data:
            return replace(row, degraded_reason=text(data.waits_for) or None)
        case s.Stopped() as data:
            return replace(row, stop_reason=data.reason, degraded_reason=None)
        case s.Resuming() as data:
            return replace(row, boot=integer(data.boot), expires_at=data.expires_at)
        case s.Failed() as data:
            return replace(
                row,
                failure_stage=data.stage,
                failure_code=text(data.code),
                failure_message=text(data.message),
                degraded_reason=None,
            )
        case s.Destroyed():
            return replace(row, destroyed_at=at, degraded_reason=None)
    return row
