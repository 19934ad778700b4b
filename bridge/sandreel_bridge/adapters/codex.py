"""Codex: `codex exec --json`, one prompt a run. Pure.

Observed with 0.169.0 (`tests/bridge/recordings/codex`). Its counts are totals of the whole conversation, over resume too: a run's are
the difference to what stood at its beginning.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from sandreel_bridge.adapters.adapter import (
    BROWSER,
    KEY_NAME,
    Adapter,
    Launch,
    RunSpec,
    refuse,
    sentence,
    with_instructions,
)
from sandreel_core.agent import AgentItem
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.contract.message import Count

NAME = "codex"
_PROVIDER = "gateway"
_AGAIN = "Reconnecting..."
# Tools whose end was not told yet; more at once than this, and one that ends without a beginning is told with both.
_REMEMBERED = 256


def launch(spec: RunSpec) -> Launch:
    """The prompt is its input. Raises Malformed for plan mode: its sandbox, which would hold the program to it, cannot work
    in a container, and a plan that may act is none. It has no limit of turns: the gateway's budget is what bounds a run."""
    if spec.permission_mode == "plan":
        raise refuse(NAME, "has no plan mode that holds inside a container")
    settings: dict[str, Any] = {
        "model_provider": _PROVIDER,
        f"model_providers.{_PROVIDER}.name": "gateway",
        f"model_providers.{_PROVIDER}.base_url": f"{spec.gateway.base_url}/openai/v1",
        f"model_providers.{_PROVIDER}.env_key": KEY_NAME,
        f"model_providers.{_PROVIDER}.wire_api": "responses",
    }
    if spec.mcp:
        settings["mcp_servers.playwright.command"] = BROWSER
    argv = ["codex", "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    for name, value in settings.items():
        argv += ["-c", f"{name}={msgspec.json.encode(value).decode()}"]  # a JSON string is a TOML string
    argv += ["-m", spec.model] if spec.model else []
    argv += ["resume", spec.resume, "-"] if spec.resume else ["-"]
    return Launch(
        argv=argv,
        cwd=spec.workdir,
        # Its own home is .codex in the session's, which it makes; one that CODEX_HOME names has to be there before it starts.
        env={},
        secret_env={KEY_NAME: spec.gateway.key},
        stdin=with_instructions(spec).encode(),
    )


class _Item(Struct, frozen=True):
    id: str = ""
    type: str = ""
    text: str = ""
    message: str = ""
    status: str | None = None


class _Tokens(Struct, frozen=True):
    input_tokens: Count = 0
    cached_input_tokens: Count = 0
    cache_write_input_tokens: Count = 0
    output_tokens: Count = 0


class _Failure(Struct, frozen=True):
    message: str = ""


class _Line(Struct, frozen=True):
    type: str
    thread_id: str | None = None
    item: Raw = Raw()
    usage: _Tokens | None = None
    error: _Failure | None = None
    message: str = ""


_line = msgspec.json.Decoder(_Line).decode
_item = msgspec.json.Decoder(_Item).decode
_any = msgspec.json.Decoder(dict[str, Any]).decode
# Items that are tools, and what of each is its input; what else it holds is its output.
_TOOLS = {
    "command_execution": ("command",),
    "file_change": ("changes",),
    "mcp_tool_call": ("server", "tool", "arguments"),
    "web_search": ("query",),
}
_ABOUT = frozenset({"id", "type", "status"})


class CodexLines(Struct):
    """`before`: the conversation's totals when the run began, or at its last result; None when they are not known."""

    before: t.Usage | None
    thread_id: str | None = None
    answered: bool = False
    last_text: str | None = None
    running: list[str] = []

    def line(self, line: bytes, n: int) -> list[AgentItem] | None:
        """See Parser."""
        said = _line(line)
        match said.type:
            case "thread.started":
                self.thread_id = said.thread_id
                return [a.RunStarted(source_n=n, agent=NAME, agent_session_id=said.thread_id)]
            case "turn.started":
                self.answered = False
                return []
            case "item.started" | "item.completed" if bytes(said.item):
                return self._item(said.item, done=said.type == "item.completed", n=n)
            case "error":  # one that it tries again after, or the one that turn.failed repeats
                again = said.message.startswith(_AGAIN)
                return [a.AgentError(source_n=n, message=sentence(said.message), goes_on=again)]
            case "turn.completed":
                return [self._completed(said.usage, n)]
            case "turn.failed":
                return [self._result(n, "error", error=sentence(said.error.message) if said.error else None)]
        return None

    def end(self, n: int, exit_code: int | None) -> list[AgentItem]:
        """See Parser."""
        return [] if self.answered else [self._result(n, "interrupted")]

    def _item(self, raw: Raw, *, done: bool, n: int) -> list[AgentItem] | None:
        item = _item(raw)
        if item.type in _TOOLS:
            return self._tool(item, _any(raw), done=done, n=n) if item.id else None
        if not done:
            return None
        if item.type == "agent_message":
            self.last_text = item.text
            return [a.AgentText(source_n=n, text=item.text)]
        if item.type == "error":  # a warning: an error that ends its answer is no item
            return [a.AgentError(source_n=n, message=sentence(item.message), goes_on=True)]
        return None

    def _tool(self, item: _Item, fields: dict[str, Any], *, done: bool, n: int) -> list[AgentItem]:
        given = _TOOLS[item.type]
        items: list[AgentItem] = []
        if item.id not in self.running:
            put = {name: fields[name] for name in given if name in fields}
            items.append(a.ToolUse(source_n=n, tool_use_id=item.id, tool_name=item.type, input=put))
            self.running = [*self.running[1 - _REMEMBERED :], item.id]
        if done:
            self.running = [each for each in self.running if each != item.id]
            output = {name: value for name, value in fields.items() if name not in given and name not in _ABOUT}
            is_error = item.status not in (None, "completed")
            items.append(a.ToolResult(source_n=n, tool_use_id=item.id, output=output, is_error=is_error))
        return items

    def _completed(self, tokens: _Tokens | None, n: int) -> a.AgentResult:
        if tokens is None:
            return self._result(n, "completed", final_text=self.last_text)
        total = t.Usage(
            input_tokens=tokens.input_tokens,
            output_tokens=tokens.output_tokens,
            cache_read_input_tokens=tokens.cached_input_tokens,
            cache_creation_input_tokens=tokens.cache_write_input_tokens,
        )
        usage = _difference(total, self.before) if self.before is not None else None
        self.before = total
        return self._result(n, "completed", final_text=self.last_text, usage=usage, thread_usage=total)

    def _result(self, n: int, status: Any, **more: Any) -> a.AgentResult:
        self.answered = True
        return a.AgentResult(source_n=n, status=status, agent_session_id=self.thread_id, **more)


def _difference(after: t.Usage, before: t.Usage) -> t.Usage | None:
    """None where a total is less than it was: then it is not of the conversation that we took it for."""
    counts = {
        name: getattr(after, name) - getattr(before, name)
        for name in t.Usage.__struct_fields__
        if name != "cost_micro_usd"
    }
    return t.Usage(**counts) if min(counts.values()) >= 0 else None


ADAPTER = Adapter(name=NAME, dialect="openai", launch=launch, parser=CodexLines)
