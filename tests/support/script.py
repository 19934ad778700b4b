"""Events by the handful, for tests that need a log."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.message import Event, Owner
from sandreel_core.contract.subjects import SessionSubjects

AT = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
Message = tuple[str, bytes]


def message(subjects: SessionSubjects, event: Event, *, key: str = "", **attributes: Any) -> Message:
    """(subject, body) of one event on its own aggregate's subject; an answer to a command on the session's."""
    aggregate = "session" if event.aggregate == "command" else event.aggregate
    subject = subjects.event(aggregate, key)
    sealed = seal(
        event, id=f"{event.type}-{attributes.get('n', 0)}", source="/test", subject=subject, time=AT, **attributes
    )
    return subject, encode(sealed)


def life(subjects: SessionSubjects, incarnation: int = 1) -> list[Message]:
    """A session from its request until it is ready."""
    owner = Owner(type="user", id="u1")
    expires_at = AT + timedelta(hours=1)
    events: list[Event] = [
        s.Requested(incarnation=incarnation, profile="default", owner=owner, ttl_s=3600, idle_timeout_s=60, expires_at=expires_at),
        s.Provisioned(boot=1, boot_id=f"{incarnation}-1", backend="process", ref="r", node="here", commands_after=0),
        s.Ready(boot_id=f"{incarnation}-1", runnerd_version="0.1.0", contract_version=1),
    ]  # fmt: skip
    return [message(subjects, event, actor="ann") for event in events]


def end(subjects: SessionSubjects) -> list[Message]:
    """A session that is destroyed."""
    until = AT + timedelta(minutes=1)
    return [message(subjects, event) for event in (s.Destroying(until=until), s.Destroyed(commands_until=7))]


def blocks(chunks: Iterable[tuple[x.Stream, bytes]]) -> list[x.Output]:
    """Output events as runnerd makes them: UTF-8 as text, all else as base64, lines counted per stream."""
    line: dict[str, int] = {"stdout": 1, "stderr": 1}
    made = []
    for stream, chunk in chunks:
        count = chunk.count(b"\n")
        try:
            body: dict[str, Any] = {"text": chunk.decode()}
        except UnicodeDecodeError:
            body = {"base64": base64.b64encode(chunk).decode()}
        made.append(x.Output(stream=stream, line=line[stream], count=count, eol=chunk.endswith(b"\n"), **body))
        line[stream] += count
    return made


def job(subjects: SessionSubjects, exec_id: str, chunks: Iterable[tuple[x.Stream, bytes]]) -> list[Message]:
    """An exec that prints these chunks, a block each, and exits with 0."""
    output = blocks(chunks)
    events: list[Event] = [
        x.Accepted(boot_id="1-1"),
        x.Started(argv=["print"], cwd="/workspace", pid=7, env_names=["A"]),
        *output,
        x.Exited(exit_code=0, reason="exited", duration_ms=12, cpu_ms=3),
    ]
    return [
        message(subjects, event, key=exec_id, n=n, actor="ann", causationid="c-1") for n, event in enumerate(events, 1)
    ]
