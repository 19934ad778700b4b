"""What OpenCode's server tells through its driver (`sandreel_bridge.drivers.opencode`), as agent events. Pure.

Observed with 1.18.33 (`tests/bridge/recordings/opencode`).
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from sandreel_bridge.adapters.adapter import micro_usd, sentence
from sandreel_core.agent import AgentItem, Typed
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.contract.message import Count
from sandreel_core.turn import summed

NAME = "opencode"
# Messages, parts and sub-agents that are remembered: many more than are ever under way together.
_REMEMBERED = 256
_ABORTED = "MessageAbortedError"


class _Cache(Struct, frozen=True):
    read: Count = 0
    write: Count = 0


class _Tokens(Struct, frozen=True):
    input: Count = 0
    output: Count = 0
    reasoning: Count = 0
    cache: _Cache = _Cache()


class _ErrorData(Struct, frozen=True, rename={"status_code": "statusCode"}):
    message: str = ""
    status_code: int | None = None


class _Error(Struct, frozen=True):
    name: str = ""
    data: _ErrorData = _ErrorData()


class _Time(Struct, frozen=True):
    end: float | None = None
    completed: float | None = None


class _Info(Struct, frozen=True, rename={"session_id": "sessionID", "model_id": "modelID"}):
    """Of a message: a reply of the model, or what was said to it."""

    id: str = ""
    session_id: str = ""
    role: str = ""
    model_id: str | None = None
    time: _Time = _Time()
    tokens: _Tokens | None = None
    cost: float | None = None
    finish: str | None = None
    error: _Error | None = None


class _ToolState(Struct, frozen=True):
    status: str = ""
    input: Any = None
    output: Any = None
    error: Any = None
    metadata: dict[str, Any] = {}


class _Part(Struct, frozen=True, rename={"session_id": "sessionID", "message_id": "messageID", "call_id": "callID"}):
    id: str = ""
    session_id: str = ""
    message_id: str = ""
    type: str = ""
    text: str = ""
    tool: str = ""
    call_id: str = ""
    state: _ToolState = _ToolState()
    time: _Time = _Time()


class _Status(Struct, frozen=True):
    type: str = ""
    attempt: int | None = None
    message: str = ""


class _About(Struct, frozen=True, rename={"session_id": "sessionID", "part_id": "partID"}):
    info: _Info = _Info()
    part: _Part = _Part()
    session_id: str = ""
    part_id: str = ""
    field: str = ""
    delta: str = ""
    status: _Status = _Status()
    error: _Error | None = None


class _Session(Struct, frozen=True, tag="session", rename={"session_id": "sessionID"}):
    session_id: str


class _Message(Struct, frozen=True, tag="message.updated"):
    properties: _About


class _PartOf(Struct, frozen=True, tag="message.part.updated"):
    properties: _About


class _Delta(Struct, frozen=True, tag="message.part.delta"):
    properties: _About


class _Standing(Struct, frozen=True, tag="session.status"):
    properties: _About


class _Failed(Struct, frozen=True, tag="session.error"):
    properties: _About


class _Idle(Struct, frozen=True, tag="session.idle"):
    properties: _About


class _Lifecycle(Struct, frozen=True, tag="command_lifecycle"):
    """Of a message. Passed on as it came."""


_Line: TypeAlias = _Session | _Message | _PartOf | _Delta | _Standing | _Failed | _Idle | _Lifecycle
_line = msgspec.json.Decoder(_Line).decode


class OpenCodeLines(Struct):
    """`replies`: ids of the model's messages, and whether their usage was told; `texts` and `tools`: ids of parts and calls that have begun;
    `within`: sub-agents' sessions, and the tool use that each belongs to; `heard`: id of the newest message to it. The rest is of the answer that is under way."""

    session_id: str | None = None
    replies: dict[str, bool] = {}
    texts: dict[str, None] = {}
    tools: dict[str, None] = {}
    within: dict[str, str] = {}
    heard: str = ""
    answering: bool = True
    finish: str = ""
    error: str | None = None
    http_status: int | None = None
    aborted: bool = False
    last_text: str | None = None
    used: t.Usage | None = None

    def line(self, line: bytes, n: int) -> list[AgentItem] | None:
        """See Parser."""
        said: _Line = _line(line)
        match said:
            case _Session():
                self.session_id = said.session_id
                return [a.RunStarted(source_n=n, agent=NAME, agent_session_id=said.session_id)]
            case _Message():
                return self._message(said.properties.info, n)
            case _PartOf():
                return self._part(said.properties.part, n)
            case _Delta():
                about = said.properties
                heard = about.field == "text" and about.part_id in self.texts
                return [Typed(about.delta, self._parent(about.session_id))] if heard else []
            case _Standing():
                return self._retry(said.properties, n)
            case _Failed() if said.properties.error is not None:
                return self._failed(said.properties.error, self._parent(said.properties.session_id), n)
            case _Idle():
                ended = said.properties.session_id == self.session_id and self.answering
                return [self._result(n)] if ended else []
        return None

    def _parent(self, session_id: str) -> str | None:
        return self.within.get(session_id)

    def _message(self, info: _Info, n: int) -> list[AgentItem]:
        parent = self._parent(info.session_id)
        if info.role != "assistant":
            # It is told again when what it has led to is summed up. Its ids ascend.
            if parent is None and info.id > self.heard:
                self.heard, self.answering = info.id, True
            return []
        if self.replies.get(info.id):
            return []  # all of it was told
        if parent is None:
            self.answering, self.finish = True, info.finish or ""
        done = info.time.completed is not None and info.tokens is not None
        _remember(self.replies, info.id, done)
        if not done or info.tokens is None:
            return []
        usage = _usage(info.tokens, info.cost)
        if usage == t.Usage():
            return []  # it failed, or was interrupted: what it had used is not told
        self.used = usage if self.used is None else summed((self.used, usage))
        return [a.AgentUsage(source_n=n, parent=parent, usage=usage, model=info.model_id)]

    def _part(self, part: _Part, n: int) -> list[AgentItem] | None:
        if part.message_id not in self.replies:
            return []  # of what was said to it
        parent = self._parent(part.session_id)
        if part.type == "tool":
            return self._tool(part, parent, n) if part.call_id else None
        if part.type != "text":
            return []
        if part.time.end is None:
            _remember(self.texts, part.id, None)
            return []
        self.texts.pop(part.id, None)
        if parent is None:
            self.last_text = part.text
        return [a.AgentText(source_n=n, parent=parent, text=part.text)] if part.text else []

    def _tool(self, part: _Part, parent: str | None, n: int) -> list[AgentItem]:
        state, call = part.state, part.call_id
        if state.status == "pending":
            return []  # its input is not whole
        found: list[AgentItem] = []
        if call not in self.tools:
            _remember(self.tools, call, None)
            found.append(a.ToolUse(source_n=n, parent=parent, tool_use_id=call, tool_name=part.tool, input=state.input))
        if isinstance(child := state.metadata.get("sessionId"), str):
            _remember(self.within, child, call)
        if state.status in ("completed", "error"):
            output = state.output if state.output is not None else state.error
            failed = state.status == "error"
            found.append(a.ToolResult(source_n=n, parent=parent, tool_use_id=call, output=output, is_error=failed))
        return found

    def _retry(self, about: _About, n: int) -> list[AgentItem]:
        status, parent = about.status, self._parent(about.session_id)
        if status.type != "retry":
            return []
        said = f"{status.message}: attempt {status.attempt}, again soon"
        return [a.AgentError(source_n=n, parent=parent, message=sentence(said), goes_on=True)]

    def _failed(self, error: _Error, parent: str | None, n: int) -> list[AgentItem]:
        said = sentence(error.data.message or error.name)
        if parent is None and error.name == _ABORTED:
            self.aborted = True
            return []
        if parent is None:
            self.error, self.http_status = said, error.data.status_code
        return [a.AgentError(source_n=n, parent=parent, message=said)]

    def _result(self, n: int) -> AgentItem:
        """And nothing of this answer is left for the next one."""
        status: Literal["completed", "error", "cancelled"] = "completed"
        error = self.error
        if self.aborted:
            status, error = "cancelled", None
        elif error is not None:
            status = "error"
        elif self.finish == "length":
            status, error = "error", "the answer was longer than the model's limit of output tokens"
        result = a.AgentResult(
            source_n=n,
            status=status,
            agent_session_id=self.session_id,
            final_text=self.last_text if status == "completed" else None,
            error=error,
            http_status=self.http_status if status == "error" else None,
            usage=self.used,
        )
        self.answering = self.aborted = False
        self.finish, self.error, self.http_status, self.last_text, self.used = "", None, None, None, None
        return result

    def end(self, n: int, exit_code: int | None) -> list[AgentItem]:
        """See Parser. It ends by itself only when it is idle; before that, whatever the exit code, it was ended."""
        if not self.answering:
            return []
        unfinished = a.AgentResult(
            source_n=n,
            status="cancelled" if self.aborted else "error" if self.error is not None else "interrupted",
            agent_session_id=self.session_id,
            error=self.error,
            http_status=self.http_status,
            usage=self.used,
        )
        return [unfinished]


def _remember(kept: dict[str, Any], id: str, what: Any) -> None:
    kept[id] = what
    if len(kept) > _REMEMBERED:
        del kept[next(iter(kept))]


def _usage(tokens: _Tokens, cost: float | None) -> t.Usage:
    """Its input is without what was cached, its output without what was thought."""
    return t.Usage(
        input_tokens=tokens.input + tokens.cache.read + tokens.cache.write,
        output_tokens=tokens.output + tokens.reasoning,
        cache_read_input_tokens=tokens.cache.read,
        cache_creation_input_tokens=tokens.cache.write,
        cost_micro_usd=micro_usd(cost),
    )
