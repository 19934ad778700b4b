"""The tables of the schema `reel`, as SQLAlchemy metadata. Migrations make them; a test compares the two.

The comments are the analysts' documentation: `\\d+ reel.execs` shows them. Times that a message carries are its
sayer's clock; only columns that say so are the stream server's.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Index, LargeBinary, Table

from sandreel_projections.audit_tables import command_log, command_outcomes, event_log, exec_events, session_stages
from sandreel_projections.columns import (
    PURPOSE,
    SCHEMA,
    count,
    flag,
    metadata,
    names,
    number,
    place,
    seconds,
    text,
    time,
)
from sandreel_projections.credential_tables import credential_log
from sandreel_projections.turn_tables import turn_items, turns
from sandreel_projections.usage_tables import usage_calls, usage_reconciled

__all__ = [
    "PURPOSE",
    "SCHEMA",
    "columns",
    "command_log",
    "command_outcomes",
    "credential_log",
    "cursors",
    "event_log",
    "exec_blocks",
    "exec_events",
    "execs",
    "key_of",
    "metadata",
    "quarantine",
    "session_stages",
    "sessions",
    "turn_items",
    "turns",
    "usage_calls",
    "usage_reconciled",
]


def _sizes() -> list[Column[Any]]:
    return [
        column
        for stream in ("stdout", "stderr")
        for column in (
            count(f"{stream}_lines", f"newlines on {stream} so far"),
            count(f"{stream}_bytes", f"bytes on {stream} so far"),
            count(f"{stream}_next_line", f"number of the line that the next byte on {stream} belongs to"),
            flag(f"{stream}_open", "whether that line has begun already (no newline yet)"),
            count(f"{stream}_limit_bytes", f"{stream} was cut at exactly so many bytes; null: never", null=True),
        )
    ]  # fmt: skip


sessions = Table(
    "sessions",
    metadata,
    text("org", "organisation that it belongs to", key=True),
    text("session", "id of the session, unique within the organisation", key=True),
    number("incarnation", "which life of this id, from 1: a destroyed id may be created again", key=True),
    text("phase", "requested, provisioning, ready, degraded, stopping, stopped, resuming, destroying, destroyed or failed", null=False),
    text("profile", "default or agent: its user, limits and fences"),
    text("image", "container image, if the request named one"),
    text("owner_type", "what kind of thing owns it: user, thread, workflow, …"),
    text("owner_id", "the owner's id within the organisation"),
    text("requested_by", "actor of the command that asked for it"),
    names("env_names", "names of the variables that it was created with"),
    names("grants", "credentials that it was created with, by slug"),
    seconds("ttl_s", "seconds that one boot may live"),
    seconds("idle_timeout_s", "seconds without an exec after which it is stopped"),
    flag("pinned", "whether it is spared from both"),
    number("boot", "how many times it was booted"),
    text("boot_id", "the boot that is, or was last, alive"),
    text("backend", "docker, kubernetes or process"),
    text("ref", "the backend's own name for it"),
    text("node", "machine that it runs on"),
    text("fence", "how it is kept from the network: none, proven or unfenced"),
    text("runnerd_version", "version of the recorder inside"),
    number("contract_version", "version of the messages that the recorder speaks", null=True),
    time("requested_at", "when it was asked for"),
    time("ready_at", "when its first boot took commands"),
    time("changed_at", "when its phase changed last"),
    time("expires_at", "when it will be stopped, unless it is pinned or busy"),
    time("destroyed_at", "when its workspace was deleted"),
    text("stop_reason", "why it was stopped last: asked, idle, ttl, oom, killed, engine, node, exited"),
    text("degraded_reason", "why it is degraded"),
    text("failure_stage", "what failed last: provision, boot, resume, stop, destroy"),
    text("failure_code", "one constant word for the failure"),
    text("failure_message", "one sentence about it"),
    count("refused_commands", "commands about it that got no for an answer"),
    count("unreadable_events", "events that this version of the views could not read"),
    *place("this life of the session"),
    number("stage", "how many phases this life has had, the present one included"),
    time("stage_began_at", "when the present phase began: when the stream server stored its event", null=False),
    text("stage_cursor", "event that began the present phase: epoch:partition:sequence", null=False),
    Index("sessions_by_owner", "org", "owner_type", "owner_id"),
    comment="One row per organisation, session and incarnation: what the log says about it now.",
)  # fmt: skip

execs = Table(
    "execs",
    metadata,
    text("org", "organisation", key=True),
    text("session", "session that it ran in", key=True),
    text("exec", "id of the exec, used once per session", key=True),
    text("phase", "accepted, running, exited or lost; none: its acceptance could not be read", null=False),
    text("boot_id", "boot of the session that accepted it"),
    text("command_id", "id of the exec.start that asked for it"),
    text("correlation_id", "turn or root command that it belongs to"),
    text("requested_by", "actor of that command"),
    names("argv", "program and arguments; null when it is a shell text, and when the exec never started"),
    text("shell", "text given to bash -lc; null when it is argv, and when the exec never started"),
    text("cwd", "directory that it started in"),
    number("pid", "process id inside the session", null=True),
    flag("tty", "whether it had a terminal (then all output is stdout)", null=True),
    names("env_names", "names of its variables"),
    seconds("timeout_s", "wall-clock limit in seconds; null: none"),
    seconds("no_output_timeout_s", "limit without output in seconds; null: none"),
    seconds("orphan_timeout_s", "limit without a keepalive in seconds; null: none"),
    time("accepted_at", "when runnerd took it"),
    time("started_at", "when its process existed"),
    time("ended_at", "when its end was recorded"),
    number("exit_code", "as the kernel told it; null while it runs, on a signal, and when it was lost", null=True),
    text("signal", "signal that ended it"),
    text("reason", "exited, cancelled, stopped, deadline, no_output, orphaned, spawn_failed, or lost"),
    text("message", "one sentence, where there is more to say"),
    text("lost_cause", "why its end is not known: oom, container_exit, runnerd_died, node_gone"),
    flag("oom", "whether the kernel ended it for memory", null=True),
    count("duration_ms", "milliseconds from start to end, by runnerd's monotonic clock", null=True),
    count("cpu_ms", "milliseconds of processor time", null=True),
    count("max_rss_bytes", "largest resident memory", null=True),
    count("leftovers", "processes that outlived it", null=True),
    flag("masked", "whether a secret was masked in its output", null=True),
    *_sizes(),
    count("stdin_bytes", "bytes written to its input"),
    count("gaps", "holes in its record, each explained by an exec.gap"),
    count("missing_events", "events in these holes, and those that were archived before these views read them"),
    count("throttled", "how often its output was made to wait"),
    count("unreadable_events", "events that this version of the views could not read"),
    count("last_n", "ordinal of its newest event"),
    *place("the exec"),
    Index("execs_by_id", "exec"),
    Index("execs_by_start", "org", "accepted_at"),
    comment="One row per exec: one program run inside a session, and how it ended.",
)  # fmt: skip

exec_blocks = Table(
    "exec_blocks",
    metadata,
    text("org", "organisation", null=False),
    text("session", "session", null=False),
    text("exec", "exec", null=False),
    text("stream", "stdout or stderr", null=False),
    count("n", "ordinal of the event in its exec: blocks in the order in which they were read"),
    count("line", "number, from 1 per stream, of the line that holds the first byte"),
    count("lines", "newlines in the block"),
    flag("starts_line", "whether the first byte is also the first byte of its line that is known"),
    flag("eol", "whether the block ends with a newline"),
    flag("is_text", "whether the block is UTF-8 without NUL"),
    Column("data", LargeBinary, nullable=False, comment="the bytes, exactly"),
    number("partition", "partition of the log"),
    count("sequence", "place in that partition"),
    time("at", "when the stream server stored it; the table is partitioned by day of it", null=False),
    # Exec first: an analyst has an exec's id, and rarely types the other two.
    Index("exec_blocks_by_exec", "exec", "session", "org", "stream", "line"),
    comment="Output as it was recorded: one row per block. reel.exec_lines serves it by line.",
    postgresql_partition_by="RANGE (at)",
)

cursors = Table(
    "cursors",
    metadata,
    text("stream", "stream that was read: REEL-0, … are the partitions of the log", key=True),
    number("partition", "partition of the log; null for a stream that is none", null=True),
    text("epoch", "of the stream that was read; empty for one without", null=False),
    text(
        "build", "token of these rows: another one after a rebuild, so that no writer goes on from old ones", null=False
    ),
    count("sequence", "everything up to here is in these views, nothing behind it is"),
    time("at", "when the stream server stored that event"),
    count("stream_sequence", "last sequence of the stream when the projector looked"),
    time("stream_at", "when the stream server stored that one"),
    time("looked_at", "when the projector looked, by Postgres' clock"),
    comment="How far each stream has been read; written in one transaction with what was read.",
)

quarantine = Table(
    "quarantine",
    metadata,
    text("stream", "stream that it stands in", key=True),
    text("epoch", "of that stream; empty for one without", key=True),
    count("sequence", "place in that stream", key=True),
    number("partition", "partition of the log; null for a stream that is none", null=True),
    text("cursor", "the same place as epoch:partition:sequence", null=False),
    text("subject", "subject that it is stored on", null=False),
    text("reason", "what was wrong with it", null=False),
    Column("body", LargeBinary, nullable=False, comment="the message as it is stored, at most its first MiB"),
    time("at", "when the stream server stored it", null=False),
    comment="Events that no view could digest. The stream was read on without them.",
)


def columns(table: Table) -> tuple[str, ...]:
    """The names of a table's columns, in order."""
    return tuple(column.name for column in table.columns)


def key_of(table: Table) -> tuple[str, ...]:
    """The names of the columns of its primary key, in order."""
    return tuple(column.name for column in table.primary_key.columns)
