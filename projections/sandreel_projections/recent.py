"""One event of a turn in a few words, for `recent_events` of `reel.ops`. Pure and total."""

from __future__ import annotations

from typing import Any

import msgspec

from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.messages import output_text
from sandreel_projections.change import Change, text

# Twenty of them stand in one row, which is written anew with every event of a turn.
MAX_BRIEF_CHARS = 200


def brief(change: Change) -> dict[str, Any] | None:
    """`{"at", "type", "text", "parent"}`, the last two where there is something to say; None for what only machines
    read: checkpoints, usage, and what an adapter did not know. `at` is the stream server's time."""
    data = change.data
    if isinstance(data, t.Checkpoint | a.AgentUsage | a.AgentRaw):
        return None
    said: dict[str, Any] = {"at": change.at.isoformat(), "type": text(change.envelope.type[:MAX_BRIEF_CHARS])}
    if words := _words(data):
        said["text"] = words
    if isinstance(data, a.AgentEvent) and data.parent is not None:
        said["parent"] = text(data.parent[:MAX_BRIEF_CHARS])
    return said


def _words(data: Any) -> str:
    match data:
        case a.AgentText() | t.SteerQueued():
            return _cut(data.text)
        case a.ToolUse():
            given = data.input
            return _cut(f"{data.tool_name} {given if isinstance(given, str) else _json(given)}")
        case a.ToolResult():
            return _cut(f"{'error: ' if data.is_error else ''}{output_text(data.output)}")
        case a.AgentError():
            return _cut(data.message)
        case a.TaskStarted():
            return _cut(data.description or data.task_id)
        case a.TaskSettled():
            return _cut(f"{data.task_id} {data.status or 'ended'}")
        case a.AgentResult():
            return _cut(f"{data.status} {data.error or ''}".strip())
        case t.TurnFinished():
            return _cut(f"{data.status} {data.error or ''}".strip())
        case t.TurnPreparing():
            return _cut(f"attempt {data.attempt}, exec {data.exec}")
    return ""


def _json(value: Any) -> str:
    # Only as much as can be shown of it is made: an input may have half a megabyte.
    if isinstance(value, dict):
        value = {name: each[:MAX_BRIEF_CHARS] if isinstance(each, str) else each for name, each in value.items()}
    return "" if value is None else msgspec.json.encode(value).decode()


def _cut(value: str) -> str:
    line = " ".join(value[: 4 * MAX_BRIEF_CHARS].split())
    shown = line if len(line) <= MAX_BRIEF_CHARS else f"{line[: MAX_BRIEF_CHARS - 1]}…"
    return text(shown) or ""
