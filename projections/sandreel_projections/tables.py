"""The tables of the schema `reel`, as SQLAlchemy metadata. Migrations make them; a test compares the two.

The comments are the analysts' documentation: `\\d+ reel.execs` shows them. Times that a message carries are its
sayer's clock; only columns that say so are the stream server's.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

SCHEMA = "reel"
metadata = MetaData(schema=SCHEMA)


def _text(name: str, comment: str, *, null: bool = True, key: bool = False) -> Column[str]:
    return Column(name, Text, comment=comment, nullable=null and not key, primary_key=key)


def _count(name: str, comment: str, *, null: bool = False, key: bool = False) -> Column[int]:
    return Column(name, BigInteger, comment=comment, nullable=null and not key, primary_key=key, autoincrement=False)


def _number(name: str, comment: str, *, null: bool = False, key: bool = False) -> Column[int]:
    return Column(name, Integer, comment=comment, nullable=null and not key, primary_key=key, autoincrement=False)


def _time(name: str, comment: str, *, null: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), comment=comment, nullable=null)


def _flag(name: str, comment: str, *, null: bool = False) -> Column[bool]:
    return Column(name, Boolean, comment=comment, nullable=null)


def _seconds(name: str, comment: str) -> Column[float]:
    return Column(name, Double, comment=comment)


def _names(name: str, comment: str) -> Column[list[str]]:
    return Column(name, ARRAY(Text), comment=comment)


def _place(what: str) -> list[Column[str]]:
    return [
        _text("first_cursor", f"where {what} begins in the log: epoch:partition:sequence", null=False),
        _text("last_cursor", "its newest event that these views have seen: epoch:partition:sequence", null=False),
    ]  # fmt: skip


def _sizes() -> list[Column[Any]]:
    return [
        column
        for stream in ("stdout", "stderr")
        for column in (
            _count(f"{stream}_lines", f"newlines on {stream} so far"),
            _count(f"{stream}_bytes", f"bytes on {stream} so far"),
            _count(f"{stream}_next_line", f"number of the line that the next byte on {stream} belongs to"),
            _flag(f"{stream}_open", "whether that line has begun already (no newline yet)"),
            _count(f"{stream}_limit_bytes", f"{stream} was cut at exactly so many bytes; null: never", null=True),
        )
    ]  # fmt: skip


sessions = Table(
    "sessions",
    metadata,
    _text("org", "organisation that it belongs to", key=True),
    _text("session", "id of the session, unique within the organisation", key=True),
    _number("incarnation", "which life of this id, from 1: a destroyed id may be created again", key=True),
    _text("phase", "requested, provisioning, ready, degraded, stopping, stopped, resuming, destroying, destroyed or failed", null=False),
    _text("profile", "default or agent: its user, limits and fences"),
    _text("image", "container image, if the request named one"),
    _text("owner_type", "what kind of thing owns it: user, thread, workflow, …"),
    _text("owner_id", "the owner's id within the organisation"),
    _text("requested_by", "actor of the command that asked for it"),
    _names("env_names", "names of the variables that it was created with"),
    _names("grants", "credentials that it was created with, by slug"),
    _seconds("ttl_s", "seconds that one boot may live"),
    _seconds("idle_timeout_s", "seconds without an exec after which it is stopped"),
    _flag("pinned", "whether it is spared from both"),
    _number("boot", "how many times it was booted"),
    _text("boot_id", "the boot that is, or was last, alive"),
    _text("backend", "docker, kubernetes or process"),
    _text("ref", "the backend's own name for it"),
    _text("node", "machine that it runs on"),
    _text("fence", "how it is kept from the network: none, proven or unfenced"),
    _text("runnerd_version", "version of the recorder inside"),
    _number("contract_version", "version of the messages that the recorder speaks", null=True),
    _time("requested_at", "when it was asked for"),
    _time("ready_at", "when its first boot took commands"),
    _time("changed_at", "when its phase changed last"),
    _time("expires_at", "when it will be stopped, unless it is pinned or busy"),
    _time("destroyed_at", "when its workspace was deleted"),
    _text("stop_reason", "why it was stopped last: asked, idle, ttl, oom, killed, engine, node, exited"),
    _text("degraded_reason", "why it is degraded"),
    _text("failure_stage", "what failed last: provision, boot, resume, stop, destroy"),
    _text("failure_code", "one constant word for the failure"),
    _text("failure_message", "one sentence about it"),
    _count("refused_commands", "commands about it that got no for an answer"),
    _count("unreadable_events", "events that this version of the views could not read"),
    *_place("this life of the session"),
    Index("sessions_by_owner", "org", "owner_type", "owner_id"),
    comment="One row per organisation, session and incarnation: what the log says about it now.",
)  # fmt: skip

execs = Table(
    "execs",
    metadata,
    _text("org", "organisation", key=True),
    _text("session", "session that it ran in", key=True),
    _text("exec", "id of the exec, used once per session", key=True),
    _text("phase", "accepted, running, exited or lost; none: its acceptance could not be read", null=False),
    _text("boot_id", "boot of the session that accepted it"),
    _text("command_id", "id of the exec.start that asked for it"),
    _text("correlation_id", "turn or root command that it belongs to"),
    _text("requested_by", "actor of that command"),
    _names("argv", "program and arguments; null when it is a shell text"),
    _text("shell", "text given to bash -lc; null when it is argv"),
    _text("cwd", "directory that it started in"),
    _number("pid", "process id inside the session", null=True),
    _flag("tty", "whether it had a terminal (then all output is stdout)", null=True),
    _names("env_names", "names of its variables"),
    _seconds("timeout_s", "wall-clock limit in seconds; null: none"),
    _seconds("no_output_timeout_s", "limit without output in seconds; null: none"),
    _seconds("orphan_timeout_s", "limit without a keepalive in seconds; null: none"),
    _time("accepted_at", "when runnerd took it"),
    _time("started_at", "when its process existed"),
    _time("ended_at", "when its end was recorded"),
    _number("exit_code", "as the kernel told it; null while it runs, on a signal, and when it was lost", null=True),
    _text("signal", "signal that ended it"),
    _text("reason", "exited, cancelled, stopped, deadline, no_output, orphaned, spawn_failed, or lost"),
    _text("message", "one sentence, where there is more to say"),
    _text("lost_cause", "why its end is not known: oom, container_exit, runnerd_died, node_gone"),
    _flag("oom", "whether the kernel ended it for memory", null=True),
    _count("duration_ms", "milliseconds from start to end, by runnerd's monotonic clock", null=True),
    _count("cpu_ms", "milliseconds of processor time", null=True),
    _count("max_rss_bytes", "largest resident memory", null=True),
    _count("leftovers", "processes that outlived it", null=True),
    _flag("masked", "whether a secret was masked in its output", null=True),
    *_sizes(),
    _count("stdin_bytes", "bytes written to its input"),
    _count("gaps", "holes in its record, each explained by an exec.gap"),
    _count("missing_events", "events in these holes, and those that were archived before these views read them"),
    _count("throttled", "how often its output was made to wait"),
    _count("unreadable_events", "events that this version of the views could not read"),
    _count("last_n", "ordinal of its newest event"),
    *_place("the exec"),
    Index("execs_by_id", "exec"),
    Index("execs_by_start", "org", "accepted_at"),
    comment="One row per exec: one program run inside a session, and how it ended.",
)  # fmt: skip

exec_blocks = Table(
    "exec_blocks",
    metadata,
    _text("org", "organisation", null=False),
    _text("session", "session", null=False),
    _text("exec", "exec", null=False),
    _text("stream", "stdout or stderr", null=False),
    _count("n", "ordinal of the event in its exec: blocks in the order in which they were read"),
    _count("line", "number, from 1 per stream, of the line that holds the first byte"),
    _count("lines", "newlines in the block"),
    _flag("starts_line", "whether the first byte is also the first byte of its line that is known"),
    _flag("eol", "whether the block ends with a newline"),
    _flag("is_text", "whether the block is UTF-8 without NUL"),
    Column("data", LargeBinary, nullable=False, comment="the bytes, exactly"),
    _number("partition", "partition of the log"),
    _count("sequence", "place in that partition"),
    _time("at", "when the stream server stored it; the table is partitioned by day of it", null=False),
    # Exec first: an analyst has an exec's id, and rarely types the other two.
    Index("exec_blocks_by_exec", "exec", "session", "org", "stream", "line"),
    comment="Output as it was recorded: one row per block. reel.exec_lines serves it by line.",
    postgresql_partition_by="RANGE (at)",
)

cursors = Table(
    "cursors",
    metadata,
    _text("stream", "stream that was read: REEL-0, … are the partitions of the log", key=True),
    _number("partition", "partition of the log; null for a stream that is none", null=True),
    _text("epoch", "of the stream that was read; empty for one without", null=False),
    _text(
        "build", "token of these rows: another one after a rebuild, so that no writer goes on from old ones", null=False
    ),
    _count("sequence", "everything up to here is in these views, nothing behind it is"),
    _time("at", "when the stream server stored that event"),
    _count("stream_sequence", "last sequence of the stream when the projector looked"),
    _time("stream_at", "when the stream server stored that one"),
    _time("looked_at", "when the projector looked, by Postgres' clock"),
    comment="How far each stream has been read; written in one transaction with what was read.",
)

quarantine = Table(
    "quarantine",
    metadata,
    _text("stream", "stream that it stands in", key=True),
    _text("epoch", "of that stream; empty for one without", key=True),
    _count("sequence", "place in that stream", key=True),
    _number("partition", "partition of the log; null for a stream that is none", null=True),
    _text("cursor", "the same place as epoch:partition:sequence", null=False),
    _text("subject", "subject that it is stored on", null=False),
    _text("reason", "what was wrong with it", null=False),
    Column("body", LargeBinary, nullable=False, comment="the message as it is stored, at most its first MiB"),
    _time("at", "when the stream server stored it", null=False),
    comment="Events that no view could digest. The stream was read on without them.",
)


def columns(table: Table) -> tuple[str, ...]:
    """The names of a table's columns, in order."""
    return tuple(column.name for column in table.columns)


def key_of(table: Table) -> tuple[str, ...]:
    """The names of the columns of its primary key, in order."""
    return tuple(column.name for column in table.primary_key.columns)
