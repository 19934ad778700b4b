"""The tables behind `reel.commands`, `reel.session_timeline` and `reel.audit_log`.

Each is written from one stream alone, so that it has one writer: what is sent comes from `CMD`, what came of it from
the partitions of the log, and views join them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Index, Table
from sqlalchemy.dialects.postgresql import JSONB

from sandreel_projections.columns import count, metadata, number, text, time

_DATA = "what it said, as JSON; of variables only the names, of input only its length; long texts are cut and say so"
_CURSOR = "where it stands in the log: epoch:partition:sequence"


def _data() -> Column[Any]:
    return Column("data", JSONB(none_as_null=True), comment=_DATA)


def _event() -> list[Column[Any]]:
    """What every event says, after the key of its table."""
    return [
        text("type", "what happened", null=False),
        text("id", "id of the event, unique within its source", null=False),
        text("source", "who says it", null=False),
        text("actor", "who asked, as the command says that it came of"),
        text("causation_id", "id of the command that it came of"),
        text("correlation_id", "turn or root command that it belongs to"),
        time("said_at", "when it was said, by the sayer's clock", null=False),
        time("stored_at", "when the stream server stored it", null=False),
        _data(),
        text("problem", "what this version of the views could not read of it; null where it could"),
        number("partition", "partition of the log"),
        count("sequence", "place in that partition"),
        text("cursor", _CURSOR, null=False),
    ]


command_log = Table(
    "command_log",
    metadata,
    text("org", "organisation", key=True),
    text("session", "session that it was sent to", key=True),
    text("command_id", "its id, a UUIDv7; events that it caused name it", key=True),
    text("role", "who is asked: spawner, runnerd, broker or bridge", null=False),
    text("type", "what is asked: session.create, exec.start, …; null where it cannot be read"),
    text("aggregate", "what it is about: session, exec, workspace, turn, credential"),
    text("aggregate_id", "id of that exec or turn; null for what has none"),
    text("actor", "who asks, as the sender says"),
    text("source", "from where it was sent"),
    text("correlation_id", "turn or root command that it belongs to"),
    time("sent_at", "when it was sent, by the sender's clock"),
    time("stored_at", "when the stream server stored it", null=False),
    time("deadline", "past it, it is refused as EXPIRED"),
    text("expected_revision", "cursor of the last event that the sender had seen, where it minds"),
    _data(),
    text("problem", "why it is not in order; null where it is"),
    count("sequence", "place in the stream of commands, as it was then"),
    text(
        "epoch", "epoch of the stream of commands that it was sent to: another one after that was replaced", null=False
    ),
    Index("command_log_by_time", "org", "stored_at"),
    comment="Every command as it was sent. reel.commands shows it with what came of it.",
)

command_outcomes = Table(
    "command_outcomes",
    metadata,
    text("org", "organisation", key=True),
    text("session", "session", key=True),
    text("command_id", "id of the command", key=True),
    text("outcome", "done, settled (it was so already), refused, or lost", null=False),
    text("event_type", "type of the event: the first that names the command as its cause", null=False),
    text("code", "why it was refused, one constant word"),
    text("message", "why, one sentence"),
    text("aggregate", "what the event is about", null=False),
    text("aggregate_id", "id of that exec or turn; null for what has none"),
    text("actor", "who asked, as the event says"),
    text("correlation_id", "turn or root command that it belongs to"),
    text("source", "who answered", null=False),
    time("said_at", "when it was answered, by the clock of whoever answered", null=False),
    time("stored_at", "when the stream server stored the answer", null=False),
    text("cursor", _CURSOR, null=False),
    Index("command_outcomes_by_time", "org", "stored_at"),
    comment="What came of each command. reel.commands shows it with the command itself.",
)

event_log = Table(
    "event_log",
    metadata,
    text("org", "organisation", null=False),
    text("session", "session", null=False),
    text("aggregate", "what it is about: session, workspace, turn, credential, usage, egress, command", null=False),
    text("aggregate_id", "id of the turn; null for what has none"),
    *_event(),
    Index("event_log_by_session", "org", "session", "stored_at"),
    Index("event_log_by_time", "org", "stored_at"),
    comment="Every event but those of execs, also of types that these views do not know. See reel.audit_log.",
)

exec_events = Table(
    "exec_events",
    metadata,
    text("org", "organisation", key=True),
    text("session", "session", key=True),
    text("exec", "exec", key=True),
    count("n", "ordinal of the event in its exec; one that was sent twice is here once", key=True),
    *_event(),
    Index("exec_events_by_time", "org", "stored_at"),
    comment="Every event of an exec but its output, which is in reel.exec_blocks. See reel.audit_log.",
)

session_stages = Table(
    "session_stages",
    metadata,
    text("org", "organisation", key=True),
    text("session", "session", key=True),
    number("incarnation", "which life of this id", key=True),
    number("number", "which stage of that life, from 1", key=True),
    number("boot", "which boot of that life, from 1"),
    text("stage", "the phase: requested, provisioning, ready, …", null=False),
    text("detail", "why it stopped or degraded; of a failure its stage, code and message"),
    time("began_at", "when the stage began, by the stream server's clock", null=False),
    time("ended_at", "when it ended, by the stream server's clock", null=False),
    count("duration_ms", "milliseconds between the two"),
    text("next_stage", "what came after it", null=False),
    text("began_cursor", "event that began it: epoch:partition:sequence", null=False),
    text("ended_cursor", "event that ended it: epoch:partition:sequence", null=False),
    Index("session_stages_by_time", "org", "began_at"),
    comment="One row per stage of a session's life that is over. reel.session_timeline has the present ones too.",
)
