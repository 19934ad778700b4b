"""An agent's turn, event by event, with what it cost: two answers of the model, a sub-agent, a tool that fails, a steered
message; one call that was told twice, one without a price, and one that was cut off."""

from __future__ import annotations

from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.contract import usage as u
from sandreel_core.contract.message import Event, Owner

ANN = Owner(type="user", id="ann")
START = t.StartTurn(turn="t-1", agent="claude-code", prompt="Fix the failing test", conversation_id="c-1", owner=ANN)
LONG = "o" * 20_000


def call(
    call_id: str, usage: t.Usage, *, turn: str | None = "t-1", model: str = "big", complete: bool = True
) -> u.UsageRecorded:
    return u.UsageRecorded(
        call_id=call_id,
        provider="anthropic",
        model=model,
        asked_model="best",
        usage=usage,
        meter="gateway",
        turn=turn,
        key="acme.demo.1.t-1.1",
        user="ann",
        prices="2026-11",
        http_status=200,
        duration_ms=900,
        complete=complete,
    )


FIRST = t.Usage(input_tokens=1000, output_tokens=50, cache_read_input_tokens=400, cost_micro_usd=4500)
SECOND = t.Usage(input_tokens=2000, output_tokens=70, cache_creation_input_tokens=100, cost_micro_usd=9000)
UNPRICED = t.Usage(input_tokens=10, output_tokens=1)
COUNTED = t.Usage(
    input_tokens=3010,
    output_tokens=121,
    cache_read_input_tokens=400,
    cache_creation_input_tokens=100,
    cost_micro_usd=13_500,
)
SAID = t.Usage(input_tokens=3000, output_tokens=120, cost_micro_usd=50_000)

EVENTS: tuple[Event, ...] = (
    t.TurnRequested(agent="claude-code", prompt="Fix the failing test", conversation_id="c-1", owner=ANN),
    t.TurnPreparing(attempt=1, exec="t-1-1", incarnation=1, model="best", budget_micro_usd=5_000_000),
    t.TurnStarted(exec="t-1-1", key="acme.demo.1.t-1.1"),
    a.RunStarted(source_n=3, agent="claude-code", agent_session_id="a-1", model="big"),
    a.AgentText(source_n=4, text="I look at the test."),
    call("call-1", FIRST),
    call("call-1", FIRST),
    a.ToolUse(source_n=5, tool_use_id="u-1", tool_name="Bash", input={"command": "pytest -q"}),
    a.ToolResult(source_n=6, tool_use_id="u-1", output=LONG, is_error=True),
    a.ToolUse(source_n=7, tool_use_id="u-2", tool_name="Task", input={"prompt": "search"}),
    a.TaskStarted(source_n=7, task_id="k-1", description="search", parent="u-2"),
    a.AgentText(source_n=8, text="Searching.", parent="u-2"),
    a.ToolUse(source_n=9, tool_use_id="u-3", tool_name="Task", input={"prompt": "deeper"}, parent="u-2"),
    a.AgentText(source_n=10, text="Deeper.", parent="u-3"),
    a.ToolResult(source_n=11, tool_use_id="u-3", output="nothing", parent="u-2"),
    call("call-2", SECOND),
    a.TaskSettled(source_n=12, task_id="k-1", status="completed", parent="u-2"),
    a.ToolResult(source_n=12, tool_use_id="u-2", output=[{"type": "text", "text": "Found it."}]),
    t.SteerQueued(message_id="m-1", text="and the docs"),
    t.SteerDelivered(message_ids=["m-1"], channel="stdin"),
    t.SteerConsumed(message_ids=["m-1"]),
    call("call-3", UNPRICED, model="new", complete=False),
    a.AgentError(source_n=13, message="overloaded, tries again", goes_on=True),
    t.Checkpoint(exec_n=13),
    a.AgentText(source_n=14, text="Fixed it."),
    a.AgentResult(source_n=15, status="completed", agent_session_id="a-1", final_text="Fixed it.", usage=SAID),
    t.TurnFinished(status="success", usage=COUNTED),
    u.UsageReconciled(turn="t-1", gateway=COUNTED, agent=SAID, drift_micro_usd=-36_500),
)
