"""What an agent said and did in its turn: the events that every adapter maps its program's output to."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sandreel_core.contract.message import Count, Ordinal, Sentence, not_too_deep
from sandreel_core.contract.turn import TurnEvent, Usage


class AgentEvent(TurnEvent, frozen=True, kw_only=True):
    """`source_n`: ordinal of the exec event it was read from, in which its line ended; `parent`: the tool use it belongs to, whose
    sub-agent said or did it."""

    source_n: Ordinal
    parent: str | None = None


class RunStarted(AgentEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "agent.run_started"
    agent: str
    agent_session_id: str | None = None
    model: str | None = None


class AgentText(AgentEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "agent.text"
    text: str


class ToolUse(AgentEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "agent.tool_use"
    tool_use_id: str
    tool_name: str
    input: Any = None

    def __post_init__(self) -> None:
        not_too_deep(self.input, "input")


class ToolResult(AgentEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "agent.tool_result"
    tool_use_id: str
    output: Any = None
    is_error: bool = False

    def __post_init__(self) -> None:
        not_too_deep(self.output, "output")


class AgentUsage(AgentEvent, frozen=True, kw_only=True):
    """One reply of the model, once. `provisional`: the program told it before the reply was whole, so that its output is not
    counted yet. For eyes: what a run used stands in `agent.result`, which is no sum of these."""

    type: ClassVar[str] = "agent.usage"
    usage: Usage
    model: str | None = None
    provisional: bool = False


class AgentResult(AgentEvent, frozen=True, kw_only=True):
    """An answer is finished, or will not come. A program that is given more input may go on to another one.

    status        interrupted: the program ended without saying how it went
    error         what it said of a failure; http_status: of the model's API, where the program tells it
    usage         since the last result of this run, or since its beginning; absent when it cannot be known
    thread_usage  of the conversation so far, from a program that counts so; its next run is measured from here
    """

    type: ClassVar[str] = "agent.result"
    status: Literal["completed", "error", "max_turns", "cancelled", "interrupted"]
    agent_session_id: str | None = None
    final_text: str | None = None
    error: Sentence | None = None
    http_status: int | None = None
    duration_ms: Count | None = None
    usage: Usage | None = None
    thread_usage: Usage | None = None


class AgentError(AgentEvent, frozen=True, kw_only=True):
    """Something went wrong; whether it ended the answer is said by `agent.result`. `goes_on`: the program itself says that it did not, as
    of a call of the model's API that it tries again, or of what it only warns of."""

    type: ClassVar[str] = "agent.error"
    message: Sentence
    goes_on: bool = False


class TaskStarted(AgentEvent, frozen=True, kw_only=True):
    """Something goes on beside the answer, a sub-agent or a program; `parent` is the tool use that began it."""

    type: ClassVar[str] = "agent.task_started"
    task_id: str
    description: str | None = None


class TaskSettled(AgentEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "agent.task_settled"
    task_id: str
    status: str | None = None


class AgentRaw(AgentEvent, frozen=True, kw_only=True):
    """A vendor's event that the adapter does not know, passed on as it came."""

    type: ClassVar[str] = "agent.raw"
    payload: Any = None

    def __post_init__(self) -> None:
        not_too_deep(self.payload, "payload")
