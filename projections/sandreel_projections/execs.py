"""The fold behind `reel.execs`. Pure and total: what does not fit changes nothing."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from sandreel_core.contract import exec as x
from sandreel_core.contract.message import Unknown
from sandreel_core.errors import Malformed
from sandreel_core.exec import ENDED, TRANSITIONS, Phase
from sandreel_core.ordinals import Ordinals
from sandreel_projections.blocks import Block, block
from sandreel_projections.change import Change, bigint, integer, text, texts

Key = tuple[str, str, str]


class ExecRow(Struct, frozen=True, kw_only=True):
    """One row of `reel.execs`: the fields are its columns, in their order, and are explained there."""

    org: str
    session: str
    exec: str
    phase: Phase = "none"
    boot_id: str | None = None
    command_id: str | None = None
    correlation_id: str | None = None
    requested_by: str | None = None
    argv: list[str] | None = None
    shell: str | None = None
    cwd: str | None = None
    pid: int | None = None
    tty: bool | None = None
    env_names: list[str] | None = None
    timeout_s: float | None = None
    no_output_timeout_s: float | None = None
    orphan_timeout_s: float | None = None
    accepted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    signal: str | None = None
    reason: str | None = None
    message: str | None = None
    lost_cause: str | None = None
    oom: bool | None = None
    duration_ms: int | None = None
    cpu_ms: int | None = None
    max_rss_bytes: int | None = None
    leftovers: int | None = None
    masked: bool | None = None
    stdout_lines: int = 0
    stdout_bytes: int = 0
    stdout_next_line: int = 1
    stdout_open: bool = False
    stdout_limit_bytes: int | None = None
    stderr_lines: int = 0
    stderr_bytes: int = 0
    stderr_next_line: int = 1
    stderr_open: bool = False
    stderr_limit_bytes: int | None = None
    stdin_bytes: int = 0
    gaps: int = 0
    missing_events: int = 0
    throttled: int = 0
    unreadable_events: int = 0
    last_n: int = 0
    first_cursor: str
    last_cursor: str


def key(change: Change) -> Key | None:
    where = change.where
    return (where.org, where.session, where.key) if where.aggregate == "exec" else None


def step(before: ExecRow | None, change: Change) -> tuple[ExecRow | None, Block | None, str]:
    """One event: the row, its block if it is output, and what was wrong with it (see `source.Step`)."""
    row = follow(before, change)
    if row is None:
        return before, None, ""
    if not isinstance(change.data, x.Output):
        return fold(row, change), None, change.problem
    opened = before is not None and is_open(before, change.data)
    try:
        made = block(change, opened)
    except Malformed as error:
        return unreadable(row), None, str(error)
    return fold(row, change, len(made[10])), made, ""


def skip(before: ExecRow | None, change: Change) -> ExecRow | None:
    """Step over an event that could not be kept: its ordinal counts all the same."""
    row = follow(before, change)
    return before if row is None else unreadable(row)


def follow(row: ExecRow | None, change: Change) -> ExecRow | None:
    """The row with its ordinal moved on if the event is one to take, else None.

    An end behind a hole is taken too: it was published after everything before it was stored, so what is
    missing was archived before these views read it, and will not come again.
    """
    event = change.envelope
    n = event.n
    if n is None:
        return None
    last = row.last_n if row else 0
    ordinals = Ordinals(last, ended=row is not None and row.phase in ENDED)
    missing = 0
    if not ordinals.accept(event):
        if ordinals.ended or n <= last + 1 or not isinstance(event.data, x.Exited | x.Lost):
            return None
        missing = n - last - 1
    elif isinstance(event.data, x.Gap):
        missing = event.data.to_n - event.data.from_n + 1
    cursor = change.cursor
    if row is None:
        where = change.where
        row = ExecRow(org=where.org, session=where.session, exec=where.key, first_cursor=cursor, last_cursor=cursor)
    return replace(row, last_n=bigint(n), last_cursor=cursor, missing_events=bigint(row.missing_events + missing))


def fold(row: ExecRow, change: Change, size: int = 0) -> ExecRow:
    """Fold one event that `follow` has taken. `size` is the number of bytes of an output block."""
    data = change.data
    if isinstance(data, x.Output):
        return _output(row, data, size)
    match data:
        case Unknown():
            return replace(row, unreadable_events=row.unreadable_events + 1)
        case x.Gap():
            row = replace(row, gaps=row.gaps + 1)
            if row.phase == "none" and data.from_n == 1:  # what accepted it is gone with a restored log
                return replace(
                    row,
                    phase="accepted",
                    boot_id=text(x.writer_of(change.envelope.source)),
                    command_id=text(change.envelope.causationid),
                    correlation_id=text(change.envelope.correlationid),
                    requested_by=text(change.envelope.actor),
                )
            return row
        case x.Throttled():
            return replace(row, throttled=row.throttled + 1)
        case x.StdinWritten():
            return replace(row, stdin_bytes=bigint(row.stdin_bytes + data.bytes))
        case x.Truncated(stream="stdout"):
            return replace(row, stdout_limit_bytes=bigint(data.limit_bytes))
        case x.Truncated():
            return replace(row, stderr_limit_bytes=bigint(data.limit_bytes))
    phase = TRANSITIONS.get(change.envelope.type, {}).get(row.phase)
    if phase is None and row.phase == "none" and isinstance(data, x.Exited):
        phase = "exited"  # its beginning was archived
    return row if phase is None else _life(replace(row, phase=phase), change)


def is_open(row: ExecRow, data: x.Output) -> bool:
    """Whether an earlier block holds the beginning of this block's first line."""
    if data.stream == "stdout":
        return row.stdout_open and row.stdout_next_line == data.line
    return row.stderr_open and row.stderr_next_line == data.line


def _output(row: ExecRow, data: x.Output, size: int) -> ExecRow:
    lines, line, is_open = data.count, data.line + data.count, not data.eol
    if data.stream == "stdout":
        return replace(
            row,
            stdout_lines=row.stdout_lines + lines,
            stdout_bytes=row.stdout_bytes + size,
            stdout_next_line=line,
            stdout_open=is_open,
        )
    return replace(
        row,
        stderr_lines=row.stderr_lines + lines,
        stderr_bytes=row.stderr_bytes + size,
        stderr_next_line=line,
        stderr_open=is_open,
    )


def _life(row: ExecRow, change: Change) -> ExecRow:
    event = change.envelope
    match change.data:
        case x.Accepted() as data:
            return replace(
                row,
                boot_id=text(data.boot_id),
                command_id=text(event.causationid),
                correlation_id=text(event.correlationid),
                requested_by=text(event.actor),
                accepted_at=event.time,
            )
        case x.Started() as data:
            return replace(
                row,
                argv=texts(data.argv),
                shell=text(data.shell),
                cwd=text(data.cwd),
                pid=integer(data.pid),
                tty=data.tty is not None,
                env_names=texts(data.env_names),
                timeout_s=data.timeout_s,
                no_output_timeout_s=data.no_output_timeout_s,
                orphan_timeout_s=data.orphan_timeout_s,
                started_at=event.time,
            )
        case x.Exited() as data:
            return replace(
                row,
                ended_at=event.time,
                exit_code=integer(data.exit_code),
                signal=text(data.signal),
                reason=data.reason,
                message=text(data.message),
                oom=data.oom,
                duration_ms=bigint(data.duration_ms),
                cpu_ms=bigint(data.cpu_ms),
                max_rss_bytes=bigint(data.max_rss_bytes),
                leftovers=bigint(data.leftovers),
                masked=data.masked,
            )
        case x.Lost() as data:
            # A start that nobody accepted is closed by the spawner: the command is then this event's cause.
            return replace(
                row,
                ended_at=event.time,
                reason="lost",
                lost_cause=data.cause,
                oom=data.cause == "oom",
                boot_id=row.boot_id or text(data.boot_id),
                command_id=row.command_id or text(event.causationid),
                requested_by=row.requested_by or text(event.actor),
            )
    return row


def unreadable(row: ExecRow) -> ExecRow:
    """After an event of which nothing but its ordinal could be used."""
    return replace(row, unreadable_events=row.unreadable_events + 1)
