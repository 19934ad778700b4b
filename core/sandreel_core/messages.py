"""A turn's agent events as the one message that a chat product stores (behaviour §4.4): text, tool calls, tool results. Pure.

message = ChatMessage()
for event in events:      # `agent.*` of one turn, in their order; anything else is passed over
    message.add(event)
msgspec.to_builtins(message.content())    # or msgspec.json.encode
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from sandreel_core.contract import agent as a
from sandreel_core.json_line import json_text

# Behaviour §4.4.
MAX_OUTPUT_CHARS = 16_000
MAX_STEPS_BYTES = 200_000
MAX_DEPTH = 8


class Text(Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    text: str


class ToolCall(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool-call", rename="camel"):
    tool_call_id: str
    tool_name: str
    input: Any


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What a sub-agent said or did. `depth` is 1 for the sub-agent of the main agent, 2 for a sub-agent of that, 8 at most."""

    type: Literal["text", "tool-call", "tool-result"]
    depth: int
    text: str | None = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    input: Any = None
    output: str | None = None
    is_error: bool = False


class SubAgent(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What came of a tool that is a sub-agent. `truncated_steps` later steps were left out: the limit is 200,000 bytes."""

    report: str
    steps: list[Step]
    truncated_steps: int = 0


class ToolResult(
    Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="tool-result", rename="camel"
):
    """`output` of more than 16,000 characters is cut to that and ends in how many are missing."""

    tool_call_id: str
    tool_name: str
    output: str | SubAgent
    is_error: bool = False


Part: TypeAlias = Text | ToolCall | ToolResult
Content: TypeAlias = str | list[Part]


class _Steps:
    """Of one tool use of the main agent: the first of them, within the limit."""

    __slots__ = ("bytes", "kept", "left_out")

    def __init__(self) -> None:
        self.kept: list[Step] = []
        self.bytes = 0
        self.left_out = 0

    def add(self, step: Step) -> None:
        size = len(msgspec.json.encode(step)) + 1  # and the comma
        # Once one is left out all later ones are: what is shown has no hole in it.
        if self.left_out or self.bytes + size > MAX_STEPS_BYTES:
            self.left_out += 1
            return
        self.bytes += size
        self.kept.append(step)


class ChatMessage:
    """One message, as it grows; `content` may be asked for at any time. A tool use that nobody announced has the name ""."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._last_text: str | None = None
        self._names: dict[str, str] = {}
        # Each tool use that is known: the main agent's tool use that it happened within (itself, there), and how deep.
        self._within: dict[str, tuple[str, int]] = {}
        self._steps: dict[str, _Steps] = {}

    def add(self, event: object) -> None:
        """Never raises."""
        match event:
            case a.AgentText(parent=None):
                self._say(event.text)
            case a.AgentText():
                self._step(event.parent, type="text", text=event.text)
            case a.ToolUse():
                self._use(event)
            case a.ToolResult():
                self._result(event)
            case a.AgentResult(final_text=str(final)) if (
                final.strip() and final.strip() != (self._last_text or "").strip()
            ):
                self._say(final)

    def content(self) -> Content:
        """A plain text as long as there are no tools, else parts."""
        if all(isinstance(part, Text) for part in self._parts):
            return "\n\n".join(part.text for part in self._parts if isinstance(part, Text))
        answered = {part.tool_call_id for part in self._parts if isinstance(part, ToolResult)}
        made: list[Part] = []
        for part in self._parts:
            if isinstance(part, ToolResult) and isinstance(part.output, str) and part.tool_call_id in self._steps:
                output = self._sub_agent(part.tool_call_id, part.output)
                made.append(msgspec.structs.replace(part, output=output))
                continue
            made.append(part)
            if isinstance(part, ToolCall) and part.tool_call_id in self._steps and part.tool_call_id not in answered:
                # It was cut off, or goes on: what it did so far is told all the same.
                output = self._sub_agent(part.tool_call_id, "")
                made.append(ToolResult(tool_call_id=part.tool_call_id, tool_name=part.tool_name, output=output))
        return made

    def _say(self, text: str) -> None:
        self._parts.append(Text(text=text))
        self._last_text = text

    def _use(self, event: a.ToolUse) -> None:
        self._names[event.tool_use_id] = event.tool_name
        if event.parent is None:
            self._within[event.tool_use_id] = (event.tool_use_id, 0)
            self._call(event.tool_use_id, event.tool_name, event.input)
            return
        root, depth = self._place(event.parent)
        self._within.setdefault(event.tool_use_id, (root, depth))
        self._step(
            event.parent, type="tool-call", tool_call_id=event.tool_use_id, tool_name=event.tool_name, input=event.input
        )

    def _result(self, event: a.ToolResult) -> None:
        output, name = cut(output_text(event.output)), self._names.get(event.tool_use_id, "")
        said: dict[str, Any] = {"tool_call_id": event.tool_use_id, "tool_name": name, "is_error": event.is_error}
        if event.parent is not None:
            self._step(event.parent, type="tool-result", output=output, **said)
            return
        if event.tool_use_id not in self._within:
            self._within[event.tool_use_id] = (event.tool_use_id, 0)
            self._call(event.tool_use_id, name, None)
        self._parts.append(ToolResult(output=output, **said))

    def _call(self, tool_use_id: str, name: str, given: Any) -> None:
        self._parts.append(ToolCall(tool_call_id=tool_use_id, tool_name=name, input=given))

    def _step(self, parent: str | None, *, type: Literal["text", "tool-call", "tool-result"], **said: Any) -> None:
        root, depth = self._place(parent or "")
        self._steps.setdefault(root, _Steps()).add(Step(type=type, depth=depth, **said))

    def _place(self, parent: str) -> tuple[str, int]:
        """The main agent's tool use that whatever has this parent belongs under, and how deep."""
        if parent not in self._within:
            # Nobody has told of it: it stands for a tool use of the main agent, so that nothing of it is lost.
            self._within[parent] = (parent, 0)
            self._call(parent, "", None)
        root, depth = self._within[parent]
        return root, min(depth + 1, MAX_DEPTH)

    def _sub_agent(self, tool_use_id: str, report: str) -> SubAgent:
        steps = self._steps[tool_use_id]
        return SubAgent(report=report, steps=list(steps.kept), truncated_steps=steps.left_out)


def output_text(output: Any) -> str:
    """A tool's output as a person reads it: texts as they are, blocks of texts (Claude's) joined, what a command printed
    (Codex's), nothing for what is empty, else JSON."""
    if isinstance(output, str):
        return output
    if output is None or output in ({}, []):
        return ""
    if isinstance(output, dict) and isinstance(output.get("aggregated_output"), str):
        return str(output["aggregated_output"])
    if isinstance(output, list) and all(isinstance(one, dict) for one in output):
        return "\n".join(one["text"] if isinstance(one.get("text"), str) else f"[{one.get('type')}]" for one in output)
    return json_text(output)


def cut(text: str) -> str:
    """At most 16,000 characters, the remark included that says how many are missing."""
    if len(text) <= MAX_OUTPUT_CHARS:
        return text
    remark = f"… [{len(text)} characters in all]"
    return text[: MAX_OUTPUT_CHARS - len(remark)] + remark
