"""A coding agent's run as a person reads it."""

from __future__ import annotations

from typing import Any

import pytest

from sandreel_core.agent import AgentItem, Typed
from sandreel_core.cli.agent_view import AgentView
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from tests.support.recordings import RECORDINGS, Recording


def shown(*items: AgentItem, typed: bool = False, colours: bool = False, columns: int = 120) -> str:
    view = AgentView(colours=colours, typed=typed, columns=columns)
    return "".join(view.text(item) for item in items) + view.closed()


def use(id: str, name: str = "Bash", parent: str | None = None, **given: Any) -> a.ToolUse:
    return a.ToolUse(source_n=1, parent=parent, tool_use_id=id, tool_name=name, input=given)


def result(id: str, output: Any, parent: str | None = None, *, is_error: bool = False) -> a.ToolResult:
    return a.ToolResult(source_n=1, parent=parent, tool_use_id=id, output=output, is_error=is_error)


def text(text: str, parent: str | None = None) -> a.AgentText:
    return a.AgentText(source_n=1, parent=parent, text=text)


def test_a_sub_agent_stands_to_the_right_of_what_began_it() -> None:
    assert shown(
        use("a", "Agent", description="look around"),
        text("Looking.", "a"),
        use("b", parent="a", command="ls"),
        result("b", "x\ny", "a"),
        text("Found."),
    ).splitlines() == ["▸ Agent look around", "│ Looking.", "│ ▸ Bash ls", "│   x", "│   y", "Found."]


def test_a_sub_agent_that_goes_on_beside_is_said_once_and_its_receipt_is_cut() -> None:
    task = a.TaskStarted(source_n=1, parent="a", task_id="k", description="look around")
    settled = a.TaskSettled(source_n=1, parent="a", task_id="k", status="completed")
    receipt, report = result("a", "Launched.\n1\n2"), result("b", "1\n2")
    items = [use("a", "Agent", description="look around"), task, receipt, text("Mine."), text("Its.", "a"), settled]
    assert shown(*items).splitlines() == [
        *("▸ Agent look around", "  Launched.", "  … 2 more lines", "Mine.", "│ Its.", "│ · task completed"),
    ]
    # Its own tools have begun before the receipt comes: it is not done.
    began = [items[0], task, use("c", parent="a", command="ls"), receipt]
    assert shown(*began).splitlines()[2:] == ["◂ Agent: look around", "  Launched.", "  … 2 more lines"]
    # One that was waited for has its report in full, and a task of another name is told.
    waited = [use("b", "Agent"), a.TaskStarted(source_n=1, parent="b", task_id="k2"), a.TaskSettled(source_n=1, parent="b", task_id="k2")]  # fmt: skip
    assert shown(*waited, report).splitlines()[1:] == [
        *("│ · task began: k2", "│ · task ended", "  1", "  2"),
    ]


def test_lines_of_tools_fit_a_narrow_terminal() -> None:
    long = "x" * 200
    items = [
        use("a", command=long),
        result("a", long),
        use("b", "Edit", "a", file_path=long, old_string=long, new_string="y"),
    ]
    for columns in (40, 80, 120, 300):
        lines = shown(*items, columns=columns).splitlines()
        assert max(map(len, lines)) == min(columns, 120)
    assert max(map(len, shown(*items, columns=3).splitlines())) < 32  # what is left of them can still be read


def test_a_command_is_shown_without_the_shell_that_runs_it() -> None:
    assert shown(use("a", "command_execution", command="/bin/bash -lc 'echo \"a b\" | wc'")) == (
        '▸ command_execution echo "a b" | wc\n'
    )
    for command in ("bash run.sh", "/bin/bash -lc 'not closed", "bash -x -c ls"):
        assert shown(use("a", command=command)) == f"▸ Bash {command}\n"


def test_tools_that_run_at_once_are_named_at_their_end() -> None:
    assert shown(use("a", command="one"), use("b", command="two"), result("a", "1"), result("b", "")).splitlines() == [
        "▸ Bash one",
        "▸ Bash two",
        "◂ Bash done: one",
        "  1",
        "◂ Bash done: two",
    ]


def test_a_tool_is_named_at_its_end_when_something_was_said_meanwhile() -> None:
    lines = shown(use("a", command="one"), text("Meanwhile."), result("a", "1")).splitlines()
    assert lines == ["▸ Bash one", "Meanwhile.", "◂ Bash done: one", "  1"]


def test_a_tool_that_took_a_while_says_how_long() -> None:
    view = AgentView(colours=False, typed=False)
    first = view.text(use("a", command="pytest"), 100.0) + view.text(result("a", "3 passed"), 100.9)
    assert first == "▸ Bash pytest\n  3 passed\n"
    began = view.text(use("b", command="make"), 101.0) + view.text(use("c", "Read", file_path="a.py"), 101.0)
    ends = view.text(result("c", ""), 112.5) + view.text(result("b", "no rule", is_error=True), 176.0)
    assert (began + ends).splitlines()[2:] == [
        *("◂ Read done in 11 s", "✗ Bash failed in 1 min 15 s: make", "  no rule"),
    ]
    narrow = AgentView(colours=False, typed=False, columns=40)
    narrow.text(use("a", command="x" * 99))
    narrow.text(text("Meanwhile."))
    assert len(narrow.text(result("a", "")).rstrip()) == 40


def test_what_was_just_said_is_not_said_again() -> None:
    run = a.RunStarted(source_n=1, agent="claude-code", model="m")
    nothing = a.AgentResult(source_n=1, status="completed", usage=t.Usage(cost_micro_usd=0))
    assert shown(run, nothing, run) == "· claude-code, m\n■ completed\n"
    failed = a.AgentResult(source_n=1, status="error", error="API Error: 402")
    assert shown(a.AgentError(source_n=1, message="API Error: 402"), failed) == "! API Error: 402\n■ error\n"


def test_what_goes_on_is_not_shown_as_a_failure() -> None:
    retry = a.AgentError(source_n=1, message="the model's API answered 529: attempt 1 of 10", goes_on=True)
    assert shown(retry, colours=True) == "\x1b[33m· the model's API answered 529: attempt 1 of 10\x1b[0m\n"
    failed = a.AgentResult(source_n=1, status="error", error=retry.message)
    assert shown(retry, failed).splitlines()[1:] == ["■ error", f"  {retry.message}"]


def test_what_changes_in_a_file_is_a_diff() -> None:
    edit = {"file_path": "a.py", "old_string": "one\ntwo\nthree", "new_string": "one\n2\nthree"}
    assert shown(use("a", "Edit", **edit)).splitlines() == [
        *("▸ Edit a.py", "    one", "  - two", "  + 2", "    three"),
    ]
    assert shown(use("a", "edit", filePath="a.py", oldString="x", newString="y")).splitlines() == [
        *("▸ edit a.py", "  - x", "  + y"),
    ]
    several = [{"old_string": "x", "new_string": "y"}, {"old_string": "", "new_string": "z"}]
    assert shown(use("a", "MultiEdit", file_path="a.py", edits=several)).splitlines() == [
        *("▸ MultiEdit a.py", "  - x", "  + y", "  + z"),
    ]
    patch = "*** Begin Patch\n*** Update File: a.py\n@@ def f\n x\n-y\n+z\n*** Add File: b.py\n+n\n*** End Patch"
    assert shown(use("a", "apply_patch", patchText=patch)).splitlines() == [
        *("▸ apply_patch a.py, b.py", "    x", "  - y", "  + z", "  + n"),
    ]
    # A whole file, cut, and one that is too long to be compared, within the time of a test.
    whole = shown(use("a", "Write", "p", file_path="b.py", content="\n".join(map(str, range(99))))).splitlines()
    assert (whole[1], whole[-2:]) == ("│   + 0", ["│   + 19", "│   … 79 more lines"])
    long = {"old_string": "x\n" * 100_000, "new_string": "y\n" * 100_000}
    assert shown(use("a", "Edit", file_path="c.py", **long)).endswith("… 199980 more lines\n")
    assert "+" not in shown(use("a", "Search", content="no file", pattern="x"))


def test_of_a_tools_input_the_line_says_what_tells_most() -> None:
    codex = [{"path": "a.py", "kind": "update"}, {"path": "b.py", "kind": "add"}]
    assert shown(use("a", "file_change", changes=codex), result("a", {})).splitlines() == [
        *("▸ file_change update a.py, add b.py", "◂ file_change done"),
    ]
    todos = [{"content": "look", "status": "completed"}, {"content": "mend", "status": "in_progress"}]
    assert shown(use("a", "TodoWrite", todos=todos)) == "▸ TodoWrite 1 of 2 done: mend\n"
    odd: dict[str, Any]
    for odd in ({"changes": [1]}, {"changes": []}, {"todos": [3]}, {"todos": []}, {"patchText": "none"}):
        assert shown(use("a", "Odd", **odd)).startswith("▸ Odd {")


def test_a_failure_and_a_long_output_are_said() -> None:
    lines = shown(use("a", command="seq 100"), result("a", "\n".join(map(str, range(100))), is_error=True)).splitlines()
    assert lines[1] == "✗ Bash failed"
    assert lines[2:] == [f"  {number}" for number in range(12)] + ["  … 88 more lines"]


def test_nothing_steers_the_terminal() -> None:
    evil = "a\x1b]0;title\x07\x9b2J\rb\u202e"
    everything: list[AgentItem] = [
        *(Typed(evil), text(evil + "\n" + evil), use(evil, evil, command=evil), use("b", evil, x=evil)),
        *(
            result(evil, evil),
            result("b", evil, is_error=True),
            result("c", [{"type": "text", "text": evil}]),
            result("d", {"x": evil}),
        ),
        a.RunStarted(source_n=1, agent=evil, agent_session_id=evil, model=evil),
        a.TaskStarted(source_n=1, task_id=evil, description=evil),
        a.TaskSettled(source_n=1, task_id=evil, status=evil),
        a.AgentError(source_n=1, message=evil),
        a.AgentResult(source_n=1, status="error", error=evil),
    ]
    for typed in (False, True):
        written = shown(*everything, typed=typed)
        assert all(c.isprintable() or c == "\n" for c in written)
        assert written.endswith("\n")


def test_typed_text_is_gone_on_with_and_not_written_twice() -> None:
    pieces = [Typed("Hel"), Typed("lo\nthe"), Typed("re")]
    assert shown(*pieces, text("Hello\nthere."), text("Next."), typed=True) == "Hello\nthere.\nNext.\n"
    assert shown(*pieces, text("Hello\nthere."), typed=False) == "Hello\nthere.\n"
    # OpenCode tells the whole text behind the tool that came after it: it was read already.
    assert shown(*pieces, use("a", command="ls"), typed=True) == "Hello\nthere\n▸ Bash ls\n"
    assert shown(*pieces, use("a", command="ls"), text("Hello\nthere"), typed=True) == "Hello\nthere\n▸ Bash ls\n"
    assert shown(*pieces, use("a", command="ls"), text("Hello\nthere"), text("Hello\nthere"), typed=True) == (
        "Hello\nthere\n▸ Bash ls\nHello\nthere\n"
    )
    # Something else in the middle, and the end of all output: the whole text is written again, on lines of its own.
    assert shown(Typed("Hel"), text("Sub.", "a"), Typed("lo"), text("Hello"), typed=True) == "Hel\n│ Sub.\nlo\nHello\n"


def test_what_a_run_used_and_why_it_failed_end_it() -> None:
    usage = t.Usage(input_tokens=12_345, output_tokens=67, cache_read_input_tokens=10_000, cost_micro_usd=1_234_500)
    ended = a.AgentResult(source_n=1, status="max_turns", duration_ms=61_500, usage=usage, error="Reached 40 turns")
    assert shown(ended).splitlines() == [
        "■ max turns in 61.5 s · 12,345 tokens in (10,000 from cache), 67 out, $1.2345",
        "  Reached 40 turns",
    ]
    thread = a.AgentResult(source_n=1, status="completed", thread_usage=t.Usage(input_tokens=5, output_tokens=1))
    assert shown(thread) == "■ completed · the conversation so far: 5 tokens in, 1 out\n"


@pytest.mark.parametrize("recording", RECORDINGS, ids="/".join)
def test_every_recording_ends_in_whole_lines(recording: Recording) -> None:
    items = recording.items()
    for typed in (False, True):
        written = shown(*items, typed=typed)
        assert written.endswith("\n")
        assert "\n\n" not in written
        assert "\x1b" not in written
        assert "\x1b[2m" in shown(*items, typed=typed, colours=True) or "■" in written
