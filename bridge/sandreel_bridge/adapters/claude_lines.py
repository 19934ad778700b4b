"""What Claude Code prints with `--output-format stream-json`, as agent events. Pure.

Observed with 2.1.330 (`tests/bridge/recordings/claude-code`). The shapes of its lines are in `claude_shapes`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from sandreel_bridge.adapters.adapter import sentence
from sandreel_bridge.adapters.claude_shapes import Assistant, Block, Line, Result, Streamed, System, Tokens, User
from sandreel_core.agent import AgentItem, Typed
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.turn import summed

NAME = "claude-code"
# Ids of messages whose usage was told. A message's lines come together, except that sub-agents' come between them.
_REMEMBERED = 256
# Of the model name: texts that the program made up itself.
_SYNTHETIC = "<synthetic>"
# `system` lines that say nothing that another line does not say as well.
_SILENT = frozenset(
    {"status", "thinking_tokens", "background_tasks_changed", "task_progress", "task_updated", "ui_invalidate"}
)

_line = msgspec.json.Decoder(Line).decode
_block = msgspec.json.Decoder(Block).decode
_any = msgspec.json.Decoder().decode


class _Streaming(Struct):
    """The message of the main thread that is being streamed. `whole`: its last numbers have come."""

    id: str | None
    model: str | None
    tokens: Tokens
    whole: bool = False


class ClaudeLines(Struct):
    """`answering`: something was said that no result has ended yet. `told`: messages whose usage was told,
    in that order."""

    session_id: str | None = None
    answering: bool = False
    ended_once: bool = False
    streaming: _Streaming | None = None
    told: dict[str, None] = {}

    def line(self, line: bytes, n: int) -> list[AgentItem] | None:
        """See Parser."""
        said: Line = _line(line)
        if isinstance(said, Streamed):
            return self._streamed(said, n)
        if isinstance(said, Assistant):
            return self._assistant(said, n)
        if isinstance(said, User):
            return self._user(said, n)
        if isinstance(said, System):
            return self._system(said, n)
        return self._result(said, n) if isinstance(said, Result) else None

    def end(self, n: int, exit_code: int | None) -> list[AgentItem]:
        """See Parser. The exit code says nothing: it is 0 after SIGINT, and 1 after an answer that was whole."""
        if self.ended_once and not self.answering:
            return []
        unfinished = a.AgentResult(source_n=n, status="interrupted", agent_session_id=self.session_id)
        return [*self._unstreamed(n), unfinished]

    def _streamed(self, said: Streamed, n: int) -> list[AgentItem]:
        event = said.event
        if event.delta is not None and event.delta.type == "text_delta":
            return [Typed(event.delta.text or "", said.parent_tool_use_id)]
        self.answering = True
        if event.type == "message_start" and event.message is not None:
            before = self._unstreamed(n)
            message = event.message
            self.streaming = _Streaming(message.id, message.model, message.usage or Tokens())
            return before
        if event.type == "message_delta" and event.usage is not None and self.streaming is not None:
            # Names that it leaves out, or says null of, keep what the start of the message said.
            for name in Tokens.__struct_fields__:
                if (count := getattr(event.usage, name)) is not None:
                    setattr(self.streaming.tokens, name, count)
            self.streaming.whole = True
        if event.type == "message_stop":
            return self._unstreamed(n)
        return []

    def _unstreamed(self, n: int) -> list[AgentItem]:
        """Usage of the message that was streamed, as far as it is known."""
        if (message := self.streaming) is None:
            return []
        self.streaming = None
        self._tell(message.id)
        usage = message.tokens.usage()
        return [a.AgentUsage(source_n=n, usage=usage, model=message.model, provisional=not message.whole)]

    def _tell(self, id: str | None) -> None:
        if id is not None:
            self.told[id] = None
            if len(self.told) > _REMEMBERED:
                del self.told[next(iter(self.told))]

    def _assistant(self, said: Assistant, n: int) -> list[AgentItem]:
        self.answering = True
        message, parent = said.message, said.parent_tool_use_id
        made_up = message.model == _SYNTHETIC
        if isinstance(message.content, str):
            items: list[AgentItem] = [a.AgentText(source_n=n, parent=parent, text=message.content)]
        elif made_up and said.error is not None:
            texts = " ".join(_block(raw).text for raw in message.content)
            return [a.AgentError(source_n=n, parent=parent, message=sentence(texts))]
        else:
            items = [self._said(raw, parent, n) for raw in message.content]
        streamed = self.streaming is not None and self.streaming.id == message.id
        if message.usage is not None and not made_up and not streamed and message.id not in self.told:
            # Its output tokens are a placeholder: each block of a message repeats what was known at its start.
            self._tell(message.id)
            usage = msgspec.structs.replace(message.usage.usage(), output_tokens=0)
            items.append(a.AgentUsage(source_n=n, parent=parent, usage=usage, model=message.model, provisional=True))
        return items

    def _said(self, raw: Raw, parent: str | None, n: int) -> AgentItem:
        block = _block(raw)
        if block.type == "text":
            return a.AgentText(source_n=n, parent=parent, text=block.text)
        if block.type == "tool_use" and block.id:
            return a.ToolUse(source_n=n, parent=parent, tool_use_id=block.id, tool_name=block.name, input=block.input)
        return a.AgentRaw(source_n=n, parent=parent, payload=_any(raw))

    def _user(self, said: User, n: int) -> list[AgentItem] | None:
        if said.isReplay:
            return []  # an echo of what was sent
        if isinstance(said.message.content, str):
            return None
        self.answering = True
        return [self._heard(raw, said.parent_tool_use_id, n) for raw in said.message.content]

    def _heard(self, raw: Raw, parent: str | None, n: int) -> AgentItem:
        block = _block(raw)
        if block.type != "tool_result" or not block.tool_use_id:
            return a.AgentRaw(source_n=n, parent=parent, payload=_any(raw))
        return a.ToolResult(
            source_n=n,
            parent=parent,
            tool_use_id=block.tool_use_id,
            output=block.content,
            is_error=bool(block.is_error),
        )

    def _system(self, said: System, n: int) -> list[AgentItem] | None:
        match said.subtype:
            case "init":
                self.answering = True
                self.session_id = said.session_id
                return [a.RunStarted(source_n=n, agent=NAME, agent_session_id=said.session_id, model=said.model)]
            case "task_started" if said.task_id:
                what = said.description
                return [a.TaskStarted(source_n=n, parent=said.tool_use_id, task_id=said.task_id, description=what)]
            case "task_notification" if said.task_id:
                how = said.status
                return [a.TaskSettled(source_n=n, parent=said.tool_use_id, task_id=said.task_id, status=how)]
            case "api_retry":
                return [a.AgentError(source_n=n, message=sentence(_retry(said)), goes_on=True)]
        return [] if said.subtype in _SILENT else None

    def _result(self, said: Result, n: int) -> list[AgentItem]:
        self.answering, self.ended_once = False, True
        self.session_id = said.session_id or self.session_id
        status = _status(said)
        failed = status not in ("completed", "cancelled")
        errors = [str(each) for each in said.errors] or ([said.result] if said.result else [])
        return [
            *self._unstreamed(n),
            a.AgentResult(
                source_n=n,
                status=status,
                agent_session_id=self.session_id,
                final_text=None if failed else said.result,
                error=sentence("; ".join(errors)) or None if failed else None,
                http_status=said.api_error_status,
                duration_ms=said.duration_ms,
                usage=_used(said),
            ),
        ]


def _status(said: Result) -> Any:
    """By `is_error` and `terminal_reason`: an error of the model's API is of the subtype "success"."""
    reason = said.terminal_reason or ""
    if said.subtype == "error_max_turns" or reason == "max_turns":
        return "max_turns"
    if reason.startswith("aborted"):
        return "cancelled"
    return "error" if said.is_error or said.subtype.startswith("error") else "completed"


def _used(said: Result) -> t.Usage | None:
    """The delta that counts sub-agents and streams that were cut off; `result.usage` counts neither."""
    models = said.model_usage_since_last_result
    if models is None:
        return said.usage.usage() if said.usage is not None else None
    return summed(each.usage() for each in models.values())


def _retry(said: System) -> str:
    answer = f"answered {said.error_status}" if said.error_status is not None else "did not answer"
    why = f" ({said.error})" if isinstance(said.error, str) else ""
    wait = f", again in {(said.retry_delay_ms or 0) / 1000:.1f} s"
    return f"the model's API {answer}{why}: attempt {said.attempt} of {said.max_retries}{wait}"
