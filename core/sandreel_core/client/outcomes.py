"""Commands as CMD keeps them, each with its one outcome from the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.client.commands import Outcome, caused_by
from sandreel_core.client.reels import Reels
from sandreel_core.contract.codec import decode_command, decode_event
from sandreel_core.contract.exec import Exited, Lost
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.session import CommandRefused
from sandreel_core.contract.subjects import (
    CMD,
    CommandSubject,
    SessionSubjects,
    parse_command_subject,
    partition_of,
    reel,
)
from sandreel_core.errors import Malformed, Refused

# `unknown`: its exec was archived, and with it the event that answered.
CommandState: TypeAlias = Literal["pending", "refused", "done", "unknown"]
MAX_COMMANDS = 10_000
_CAUSE = b'"causationid"'


class _Asked(msgspec.Struct, frozen=True):
    """What can be said of a body that is no command in order."""

    type: str = ""
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class CommandInfo:
    """One command. `command` is None when its body is not in order: then `problem` says why.

    type, actor   as its body says
    asked_ns      the server's time at which it was stored
    answered_ns   the server's time of its outcome; None without one
    """

    where: CommandSubject
    type: str
    actor: str | None
    command: Envelope | None
    problem: str
    asked_ns: int
    state: CommandState
    outcome: Outcome | None
    answered_ns: int | None


async def commands_with_outcomes(
    bus: Bus,
    reels: Reels,
    partitions: int,
    org: str,
    session: str | None,
    *,
    command_id: str | None,
    since_ns: int,
    limit: int,
) -> list[CommandInfo]:
    """The newest `limit` commands that were stored since, oldest first. All events behind the oldest of them are read:
    an outcome stands there, on one of several subjects."""
    filter = f"cmd.*.{org}.{session or '*'}.{command_id or '*'}"
    asked = (await _asked(bus, filter, since_ns))[-limit:]
    if not asked:
        return []
    by_partition: dict[int, list[Stored]] = {}
    for stored in asked:
        by_partition.setdefault(partition_of(parse_command_subject(stored.subject).session, partitions), []).append(
            stored
        )
    outcomes: dict[str, tuple[Outcome, int]] = {}
    for partition, each in by_partition.items():
        outcomes |= await _outcomes(bus, reels, partition, f"evt.{partition}.{org}.{session or '*'}.>", each)
    return [await _info(bus, partitions, stored, outcomes) for stored in asked]


async def _asked(bus: Bus, filter: str, since_ns: int) -> list[Stored]:
    after = await bus.sequence_at(CMD, since_ns - 1) if since_ns else 0
    found: list[Stored] = []
    async with aclosing(bus.follow(CMD, [filter], after=after, live=False)) as items:
        async for item in items:
            for stored in item if isinstance(item, list) else ():
                try:
                    parse_command_subject(stored.subject)
                except Malformed:
                    continue
                found.append(stored)
            del found[:-MAX_COMMANDS]
    return found


async def _outcomes(
    bus: Bus, reels: Reels, partition: int, filter: str, asked: Sequence[Stored]
) -> dict[str, tuple[Outcome, int]]:
    """By command id: the first event that names it, and when it was stored."""
    wanted = {parse_command_subject(stored.subject).command_id for stored in asked}
    found: dict[str, tuple[Outcome, int]] = {}
    # Both streams are one server's: an outcome is stored after its command.
    after = await bus.sequence_at(reel(partition), asked[0].time_ns - 1)
    async with kept(bus, reel(partition), [filter], after=after) as messages:
        async for stored in messages:
            if _CAUSE not in stored.body:
                continue
            try:
                cause = decode_event(stored.subject, stored.body).causationid
            except Malformed:
                continue
            if cause in wanted and cause not in found and (event := caused_by(stored, cause)) is not None:
                cursor = await reels.cursor(partition, stored.sequence)
                found[cause] = (Outcome(cause, cursor, event), stored.time_ns)
                if len(found) == len(wanted):
                    break
    return found


async def _info(bus: Bus, partitions: int, stored: Stored, outcomes: Mapping[str, tuple[Outcome, int]]) -> CommandInfo:
    where = parse_command_subject(stored.subject)
    command, problem = None, ""
    try:
        command = decode_command(stored.subject, stored.body)
    except (Refused, Malformed) as error:
        problem = str(error)
    said = _said(command, stored.body)
    outcome, answered_ns = outcomes.get(where.command_id, (None, None))
    if outcome is not None:
        state: CommandState = "refused" if isinstance(outcome.data, CommandRefused) else "done"
    else:
        state = "unknown" if await _is_archived(bus, partitions, where, command) else "pending"
    return CommandInfo(where, said.type, said.actor, command, problem, stored.time_ns, state, outcome, answered_ns)


def _said(command: Envelope | None, body: bytes) -> _Asked:
    if command is not None:
        return _Asked(command.type, command.actor)
    try:
        return msgspec.json.decode(body, type=_Asked)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Asked()


async def _is_archived(bus: Bus, partitions: int, where: CommandSubject, command: Envelope | None) -> bool:
    """Whether the exec that the command is about has lost its beginning to the archive."""
    exec_id = getattr(command.data, "exec", None) if command is not None else None
    if exec_id is None:
        return False
    subjects = SessionSubjects(where.org, where.session, partitions)
    first = await bus.next(subjects.stream, subjects.exec(exec_id))
    if first is None:
        return False
    try:
        event = decode_event(first.subject, first.body)
    except Malformed:
        return False
    return isinstance(event.data, Exited | Lost) and event.n != 1
