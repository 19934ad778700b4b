"""The fold behind `reel.command_log`: each command as it was sent, whatever came of it. Pure and total."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec
from msgspec import Struct

from sandreel_core.bus.port import Stored
from sandreel_core.contract.codec import decode_command
from sandreel_core.contract.exec import ExecCommand
from sandreel_core.contract.message import Command, Envelope
from sandreel_core.contract.subjects import CommandSubject, parse_command_subject
from sandreel_core.contract.turn import TurnCommand
from sandreel_core.errors import Refused
from sandreel_projections.change import aware, instant, text
from sandreel_projections.payload import kept

Key = tuple[str, str, str]
_MAX_NAME_CHARS = 1024


class _Head(Struct, frozen=True):
    """What can still be said of a command that is not in order."""

    type: str | None = None
    source: str | None = None
    actor: str | None = None
    correlationid: str | None = None
    time: datetime | None = None


_head_decoder = msgspec.json.Decoder(_Head)


@dataclass(frozen=True, slots=True)
class Asked:
    """One command of the stream, with its place. `problem` says why it is not in order; then it has no envelope."""

    where: CommandSubject
    envelope: Envelope | None
    head: _Head
    body: bytes
    problem: str
    sequence: int
    at: datetime
    epoch: str


class CommandRow(Struct, frozen=True, kw_only=True):
    """One row of `reel.command_log`: the fields are its columns, in their order, and are explained there."""

    org: str
    session: str
    command_id: str
    role: str
    type: str | None = None
    aggregate: str | None = None
    aggregate_id: str | None = None
    actor: str | None = None
    source: str | None = None
    correlation_id: str | None = None
    sent_at: datetime | None = None
    stored_at: datetime
    deadline: datetime | None = None
    expected_revision: str | None = None
    data: str | None = None
    problem: str | None = None
    sequence: int
    epoch: str


def asked(stored: Stored, epoch: str) -> Asked:
    """Raises Malformed for what stands on no command's subject. What is not in order keeps its place: somebody sent it."""
    where = parse_command_subject(stored.subject)
    place = stored.sequence, instant(stored.time_ns), epoch
    try:
        envelope = decode_command(stored.subject, stored.body)
    except Refused as refused:
        return Asked(where, None, _head(stored.body), stored.body, refused.message, *place)
    return Asked(where, envelope, _Head(), stored.body, "", *place)


def _head(body: bytes) -> _Head:
    try:
        return _head_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Head()


def key(change: Asked) -> Key:
    return change.where.org, change.where.session, change.where.command_id


def step(before: CommandRow | None, change: Asked) -> tuple[CommandRow, None, str]:
    """The first is the command. One that is sent again after the stream has forgotten it is the same one, too late."""
    return before or _row(change), None, ""


def _row(change: Asked) -> CommandRow:
    org, session, command_id = key(change)
    envelope, head = change.envelope, change.head
    data = envelope.data if envelope else None
    said = envelope or head
    type = data.type if isinstance(data, Command) else _name(head.type)
    return CommandRow(
        org=org,
        session=session,
        command_id=command_id,
        role=change.where.role,
        type=type,
        aggregate=data.aggregate if isinstance(data, Command) else None,
        aggregate_id=_aggregate_id(data),
        actor=_name(said.actor),
        source=_name(said.source),
        correlation_id=_name(said.correlationid),
        sent_at=aware(said.time) if said.time else None,
        stored_at=change.at,
        deadline=envelope.deadline if envelope else None,
        expected_revision=_name(envelope.expectedrevision) if envelope else None,
        # Of one that is not in order it is not known what in it is a secret.
        data=kept(type or "", change.body) if envelope else None,
        problem=_name(change.problem) or None,
        sequence=change.sequence,
        epoch=change.epoch,
    )


def _aggregate_id(data: object) -> str | None:
    if isinstance(data, ExecCommand):
        return data.exec
    return data.turn if isinstance(data, TurnCommand) else None


def _name(value: str | None) -> str | None:
    return None if value is None else text(value[:_MAX_NAME_CHARS])
