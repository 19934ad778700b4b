"""How the runs of the recordings ended, and what they used: by what the programs say, once."""

from __future__ import annotations

import re

import msgspec
import pytest

from sandreel_bridge.adapters.table import ADAPTERS
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from tests.support.recordings import RECORDINGS, Recording

# (status, input tokens, output tokens) of each result; None where the program did not say what was used.
_BASH = ("completed", 840, 40)
_TEXT = ("completed", 420, 15)
_FAILED = ("error", 0, 0)
_ENDED: dict[str, list[tuple[str, int | None, int | None]]] = {
    # The first result's delta holds the sub-agent's three calls too; nothing was called for the second.
    "claude-code/agent": [("completed", 2100, 95), ("completed", 0, 0)],
    "claude-code/agent_partial": [("completed", 2100, 95), ("completed", 0, 0)],
    "claude-code/api_key_env": [_TEXT],
    "claude-code/bad_json_line": [_TEXT],  # exit code 1, after an answer that was whole
    "claude-code/bash": [_BASH],
    "claude-code/bash_fail": [_BASH],
    "claude-code/bash_partial": [_BASH],
    "claude-code/big_output": [_BASH],
    "claude-code/config_dir": [_TEXT],
    "claude-code/duplicate_user_uuid": [_TEXT],
    "claude-code/error_400": [_FAILED],
    "claude-code/error_401": [_FAILED],
    "claude-code/error_402": [_FAILED],  # its subtype is "success"
    "claude-code/error_403": [_FAILED],
    "claude-code/error_404": [_FAILED],
    "claude-code/error_429_retries1": [_FAILED],
    "claude-code/error_500_retries1": [_FAILED],
    "claude-code/error_529_retries1": [_FAILED],
    "claude-code/error_connrefused": [_FAILED],
    "claude-code/max_turns": [("max_turns", 840, 30)],
    "claude-code/maxtok": [("error", 1680, 60)],
    "claude-code/model_set": [_TEXT],
    "claude-code/multi": [("completed", 840, 60)],
    "claude-code/no_credentials": [_FAILED],
    "claude-code/permission_denied_print": [("completed", 840, 30)],
    "claude-code/plan": [("completed", 840, 30)],
    "claude-code/resume_1": [_TEXT],
    "claude-code/resume_2": [_BASH],
    "claude-code/resume_fork": [_TEXT],
    "claude-code/resume_missing": [_FAILED],
    "claude-code/resume_other_cwd": [_TEXT],
    "claude-code/session_id_reuse": [("interrupted", None, None)],  # nothing on stdout
    "claude-code/sigint_stdin": [("cancelled", 420, 6)],
    "claude-code/sigint_text": [("cancelled", 420, 6)],  # exit code 0
    "claude-code/sigint_tool": [("cancelled", 420, 25)],
    "claude-code/sigterm_text": [("interrupted", None, None)],
    "claude-code/sigterm_tool": [("interrupted", None, None)],
    "claude-code/stdin_eof_early": [_BASH],
    "claude-code/stdin_interrupt_control": [("cancelled", 420, 5), _TEXT],
    "claude-code/stdin_steer_slow": [_TEXT, _TEXT],
    "claude-code/stdin_steer_tool": [_BASH],
    "claude-code/stdin_two_turns": [_TEXT, _BASH],
    "claude-code/text": [_TEXT],
    "claude-code/text_partial": [_TEXT],
    "claude-code/uuid_cancel_queued": [_TEXT],
    "claude-code/uuid_resume_1": [_TEXT],
    "claude-code/uuid_resume_2_dup": [_TEXT],
    "claude-code/write": [("completed", 840, 30)],
    "codex/bash": [("completed", 800, 50)],
    "codex/bash_fail": [("completed", 800, 50)],
    "codex/error_401": [("error", None, None)],
    "codex/error_402": [("error", None, None)],
    "codex/error_500": [("error", None, None)],
    "codex/maxtok": [("error", None, None)],
    "codex/resume_missing": [("interrupted", None, None)],
    "codex/sigint_text": [("interrupted", None, None)],
    "codex/sigint_tool": [("interrupted", None, None)],
    "codex/sigterm_tool": [("interrupted", None, None)],
    "codex/text": [("completed", 400, 25)],
    "codex/thread_1": [("completed", 800, 50)],
    "codex/thread_2": [("completed", 1200, 75)],
    "gemini-cli/bash": [("completed", 800, 50)],  # 40 of output, 10 of thoughts
    "gemini-cli/error_401": [_FAILED],
    "gemini-cli/error_402": [_FAILED],
    "gemini-cli/max_turns": [("max_turns", 800, 50)],
    "gemini-cli/maxtok": [("completed", 400, 25)],  # it does not tell
    "gemini-cli/norelaunch_sigint_text": [("interrupted", None, None)],  # exit code 0
    "gemini-cli/norelaunch_sigterm_tool": [("interrupted", None, None)],
    "gemini-cli/norelaunch_text": [("completed", 400, 25)],
    "gemini-cli/plan": [("completed", 800, 50)],
    "gemini-cli/resume_1": [("completed", 400, 25)],
    "gemini-cli/resume_missing": [("interrupted", None, None)],
    "gemini-cli/sigint_text": [("completed", 400, 25)],
    "gemini-cli/sigterm_tool": [("completed", 800, 50)],
    "gemini-cli/text": [("completed", 400, 25)],
    "gemini-cli/write": [("completed", 800, 50)],
    "opencode/agent": [("completed", 1600, 100)],  # with its sub-agent's two calls
    "opencode/bash": [("completed", 800, 50)],
    "opencode/bash_fail": [("completed", 800, 50)],
    "opencode/error_401": [("error", None, None)],
    "opencode/error_402": [("error", None, None)],
    "opencode/interrupt_text": [("cancelled", None, None)],  # what was cut off is not counted
    "opencode/interrupt_tool": [("cancelled", None, None)],
    "opencode/maxtok": [("error", 400, 25)],
    "opencode/plan": [("completed", 800, 50)],
    "opencode/resume_2": [("completed", 400, 25)],
    "opencode/resume_missing": [("interrupted", None, None)],  # nothing on stdout
    "opencode/sigkill_text": [("interrupted", None, None)],
    "opencode/sigterm_tool": [("interrupted", None, None)],
    "opencode/steer_text": [("completed", 800, 50)],
    "opencode/steer_tool": [("completed", 800, 50)],
    "opencode/text": [("completed", 400, 25)],
    "opencode/two": [("completed", 400, 25), ("completed", 400, 25)],
    "opencode/write": [("completed", 800, 50)],
}


def results(recording: Recording) -> list[a.AgentResult]:
    return [item for item in recording.items() if isinstance(item, a.AgentResult)]


def test_every_recording_is_judged() -> None:
    assert _ENDED.keys() == {"/".join(recording) for recording in RECORDINGS}


@pytest.mark.parametrize("name", _ENDED)
def test_a_run_ends_as_the_program_says(name: str) -> None:
    found = results(Recording(*name.split("/")))
    assert [
        (each.status, each.usage and each.usage.input_tokens, each.usage and each.usage.output_tokens) for each in found
    ] == _ENDED[name]


@pytest.mark.parametrize("recording", RECORDINGS, ids="/".join)
def test_an_error_says_what_it_was_and_an_answer_is_none(recording: Recording) -> None:
    for result in results(recording):
        assert (result.error is not None) == (result.status in ("error", "max_turns"))
        assert result.final_text is None or result.status == "completed"
        assert result.status != "completed" or result.usage is not None


@pytest.mark.parametrize("recording", RECORDINGS, ids="/".join)
def test_what_goes_on_is_no_failure(recording: Recording) -> None:
    """A retry or a warning ends no answer; what does stands before a result that has failed."""
    failed = any(isinstance(item, a.AgentError) and not item.goes_on for item in recording.items())
    assert failed <= any(result.status == "error" for result in results(recording))


@pytest.mark.parametrize(
    ("name", "goes_on"),
    [
        ("claude-code/error_529_retries1", [True, False]),
        ("claude-code/error_402", [False]),
        ("codex/text", [True]),  # it knows nothing of the model
        ("codex/error_500", [True, True, False]),
    ],
)
def test_a_retry_and_a_warning_are_told_apart_from_the_failure(name: str, goes_on: list[bool]) -> None:
    items = Recording(*name.split("/")).items()
    assert [item.goes_on for item in items if isinstance(item, a.AgentError)] == goes_on


def test_a_retry_of_opencode_goes_on() -> None:
    status = b'{"type":"retry","attempt":2,"message":"Overloaded","next":1790000000000}'
    line = b'{"type":"session.status","properties":{"sessionID":"s1","status":' + status + b"}}\n"
    [error] = ADAPTERS["opencode"].reader().feed(line, 1)
    assert error == a.AgentError(source_n=1, message="Overloaded: attempt 2, again soon", goes_on=True)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("claude-code/error_401", 401),
        ("claude-code/error_402", 402),
        ("claude-code/error_529_retries1", 529),
        ("claude-code/error_connrefused", None),
        ("opencode/error_402", 402),
    ],
)
def test_the_status_of_the_api_is_told_where_the_program_does(name: str, status: int | None) -> None:
    [result] = results(Recording(*name.split("/")))
    assert result.http_status == status


def test_a_reply_s_usage_is_told_once_and_whole_where_it_is_streamed() -> None:
    """Six lines repeat the placeholder of each of two messages, whose last lines say what it was."""
    usages = [item for item in Recording("claude-code", "bash_partial").items() if isinstance(item, a.AgentUsage)]
    assert [(each.usage.output_tokens, each.provisional) for each in usages] == [(25, False), (15, False)]
    usages = [item for item in Recording("claude-code", "multi").items() if isinstance(item, a.AgentUsage)]
    assert [(each.usage.output_tokens, each.provisional) for each in usages] == [(0, True), (0, True)]


def test_a_reply_that_was_cut_off_is_told_as_far_as_it_is_known() -> None:
    whole = Recording("claude-code", "text_partial").stdout
    reader = ADAPTERS["claude-code"].reader()
    begun = reader.feed(whole[: whole.index(b'"type":"message_delta"')].rpartition(b"\n")[0] + b"\n", 1)
    assert not any(isinstance(item, a.AgentUsage) for item in begun)
    [usage, result] = reader.end(1, None)
    assert isinstance(usage, a.AgentUsage)
    assert (usage.usage.input_tokens, usage.provisional) == (420, True)
    assert isinstance(result, a.AgentResult)
    assert (result.status, result.usage) == ("interrupted", None)


def test_usage_counts_as_opentelemetry_does() -> None:
    """What was read from a cache and written to it is input, and is told beside it; the price is in millionths."""
    [result] = results(Recording("claude-code", "text"))
    assert result.usage == t.Usage(
        input_tokens=420,
        output_tokens=15,
        cache_read_input_tokens=300,
        cache_creation_input_tokens=20,
        cost_micro_usd=860,
    )


def test_a_cost_of_nothing_for_something_is_no_price() -> None:
    free = re.sub(rb'"cost":[0-9.]+', b'"cost":0', Recording("opencode", "text").stdout)
    [result] = [item for item in ADAPTERS["opencode"].reader().feed(free, 1) if isinstance(item, a.AgentResult)]
    assert result.usage is not None
    assert (result.usage.input_tokens, result.usage.cost_micro_usd) == (400, None)


def test_totals_of_a_conversation_become_what_each_run_used() -> None:
    [first] = results(Recording("codex", "thread_1"))
    assert first.usage == first.thread_usage
    assert first.thread_usage is not None

    def second(before: t.Usage | None) -> a.AgentResult:
        reader = ADAPTERS["codex"].reader(before)
        [*_, result] = reader.feed(Recording("codex", "thread_2").stdout, 1)
        assert isinstance(result, a.AgentResult)
        return result

    result = second(first.thread_usage)
    assert result.usage == t.Usage(input_tokens=400, output_tokens=25, cache_read_input_tokens=300)
    assert result.thread_usage == t.Usage(input_tokens=1200, output_tokens=75, cache_read_input_tokens=900)
    # Without what stood before, or with what cannot have stood there, nothing is made up.
    assert second(None).usage is None
    assert second(t.Usage(input_tokens=1_000_000)).usage is None


def test_what_a_sub_agent_does_names_the_tool_use_that_began_it() -> None:
    items = Recording("claude-code", "agent").items()
    [began] = [item for item in items if isinstance(item, a.ToolUse) and item.tool_name == "Agent"]
    within = [item for item in items if isinstance(item, a.AgentEvent) and item.parent == began.tool_use_id]
    assert [type(item) for item in within] == [
        *(a.TaskStarted, a.AgentText, a.AgentUsage, a.ToolUse, a.ToolResult, a.AgentText, a.AgentUsage, a.TaskSettled),
    ]
    started, settled = within[0], within[-1]
    assert isinstance(started, a.TaskStarted)
    assert isinstance(settled, a.TaskSettled)
    assert (started.task_id, settled.status) == (settled.task_id, "completed")


@pytest.mark.parametrize(
    ("agent", "line"),
    [
        (
            "claude-code",
            {"type": "assistant", "message": {"content": [{"type": "tool_use", "name": "Bash", "input": {}}]}},
        ),
        ("claude-code", {"type": "user", "message": {"content": [{"type": "tool_result", "content": "x"}]}}),
        ("codex", {"type": "item.started", "item": {"type": "command_execution", "command": "ls"}}),
        ("gemini-cli", {"type": "tool_use", "tool_name": "ls", "parameters": {}}),
        ("gemini-cli", {"type": "tool_result", "tool_id": "", "output": "x", "status": "success"}),
    ],
)
def test_a_tool_without_an_id_stays_raw(agent: str, line: dict[str, object]) -> None:
    """Under an empty id the predecessor merged calls that had nothing to do with each other."""
    found = ADAPTERS[agent].reader().feed(msgspec.json.encode(line) + b"\n", 1)
    assert [type(item) for item in found] == [a.AgentRaw]


def test_a_tool_of_opencode_without_an_id_stays_raw() -> None:
    """A part belongs to a reply, which has to be known first."""
    reply = b'{"type":"message.updated","properties":{"info":{"id":"m1","role":"assistant","sessionID":"s1"}}}\n'
    tool = b'{"type":"message.part.updated","properties":{"part":{"type":"tool","tool":"bash","messageID":"m1"}}}\n'
    assert [type(item) for item in ADAPTERS["opencode"].reader().feed(reply + tool, 1)] == [a.AgentRaw]


def test_opencode_s_sub_agents_stand_below_the_tool_that_called_them() -> None:
    items = Recording("opencode", "agent").items()
    [task] = [item for item in items if isinstance(item, a.ToolUse) and item.tool_name == "task"]
    below = [item for item in items if isinstance(item, a.AgentEvent) and item.parent == task.tool_use_id]
    assert [type(item) for item in below] == [
        *(a.ToolUse, a.AgentText, a.ToolResult, a.AgentUsage, a.AgentText, a.AgentUsage),
    ]
    assert task.input["prompt"] == "[[bash echo from-subagent]]"


def test_a_tool_of_opencode_is_told_when_it_begins() -> None:
    """Before it has ended, and with all of its input: 3 s lie between the two."""
    items = [type(item) for item in Recording("opencode", "steer_tool").items()]
    assert items.index(a.ToolUse) < items.index(a.AgentText) < items.index(a.ToolResult)
