"""What readers make of every recording, held against what its lines say to a second and simpler reading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sandreel_core.agent import AgentItem
from sandreel_core.contract import agent as a
from tests.support.recordings import RECORDINGS, Recording

recordings = pytest.mark.parametrize("recording", RECORDINGS, ids="/".join)
claude = pytest.mark.parametrize(
    "recording", [each for each in RECORDINGS if each.agent == "claude-code"], ids="/".join
)


def lines(recording: Recording) -> Iterator[dict[str, Any]]:
    for line in recording.stdout.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def results(items: list[AgentItem]) -> list[a.AgentResult]:
    return [item for item in items if isinstance(item, a.AgentResult)]


@claude
def test_usage_is_told_once_a_message(recording: Recording) -> None:
    """However many blocks repeat it, streamed or not, the main thread's or a sub-agent's."""
    told: set[str] = set()
    for line in lines(recording):
        event = line.get("event") or {}
        message = line.get("message") if line["type"] == "assistant" else event.get("message")
        if isinstance(message, dict) and message.get("usage") and message.get("model") != "<synthetic>":
            told.add(message["id"])
    assert sum(isinstance(item, a.AgentUsage) for item in recording.items()) == len(told)


@claude
def test_what_was_used_is_what_the_program_counted_since_its_last_result(recording: Recording) -> None:
    """With sub-agents and streams that were cut off; never a sum of what its messages repeat."""
    counted = [
        sum(
            model["inputTokens"]
            + model["cacheReadInputTokens"]
            + model["cacheCreationInputTokens"]
            + model["outputTokens"]
            for model in line.get("model_usage_since_last_result", {}).values()
        )
        for line in lines(recording)
        if line["type"] == "result"
    ]
    said = [each.usage for each in results(recording.items()) if each.usage is not None]
    assert [usage.input_tokens + usage.output_tokens for usage in said] == counted


@claude
def test_a_failure_is_not_told_by_its_subtype(recording: Recording) -> None:
    judged = [
        "ended" if line["is_error"] or (line.get("terminal_reason") or "completed") != "completed" else "completed"
        for line in lines(recording)
        if line["type"] == "result"
    ]
    found = [each.status for each in results(recording.items()) if each.status != "interrupted"]
    assert ["completed" if status == "completed" else "ended" for status in found] == judged


@recordings
def test_an_exit_code_decides_nothing(recording: Recording) -> None:
    ends = []
    for exit_code in (None, 0, 1, 42, 143):
        reader = recording.reader()
        ends.append([*reader.feed(recording.stdout, 1), *reader.end(1, exit_code)])
    assert all(each == ends[0] for each in ends)


@recordings
def test_whatever_is_cut_off_before_its_result_was_interrupted(recording: Recording) -> None:
    """Line by line: no result is made up."""
    reader, answering = recording.reader(), True
    for line in recording.stdout.splitlines(keepends=True):
        cut_off = recording.reader()
        cut_off.resume(reader.state())
        ended = results(cut_off.end(1, 0))
        if answering:
            assert [each.status for each in ended] == ["interrupted"]
            # OpenCode counts by reply: what was answered in whole was used.
            assert ended[0].usage is None or recording.agent == "opencode"
        if b'"session.error"' in line:
            break  # OpenCode has said what becomes of its answer
        for item in reader.feed(line, 1):
            if isinstance(item, a.AgentResult):
                answering = False
            elif not isinstance(item, a.AgentRaw):
                answering = True
