"""OpenCode: `opencode run --format json`, one prompt a run. Pure.

Observed with 1.18.33 (`tests/bridge/recordings/opencode`). It prints a tool only when it has ended, no piece of a text, nothing of
its sub-agents, and no last line: how it went is the exit code beside what came before.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from sandreel_bridge.adapters.adapter import (
    BROWSER,
    KEY_NAME,
    Adapter,
    Launch,
    RunSpec,
    micro_usd,
    sentence,
    with_instructions,
)
from sandreel_core.agent import AgentItem
from sandreel_core.contract import turn as t
from sandreel_core.contract.message import Count
from sandreel_core.turn import summed

NAME = "opencode"
_PROVIDER = "gateway"
_DISABLED = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "SHARE", "DEFAULT_PLUGINS")
_AGENTS = {"plan": "plan", "execute": "build"}


def launch(spec: RunSpec) -> Launch:
    """The prompt is its input. The title is given, so that no model is asked for one."""
    model = spec.model or "default"
    agent = _AGENTS[spec.permission_mode]
    config: dict[str, Any] = {
        "model": f"{_PROVIDER}/{model}",
        "small_model": f"{_PROVIDER}/{model}",
        "autoupdate": False,
        "share": "disabled",
        "permission": {"*": "allow"} if spec.permission_mode == "execute" else {},
        "agent": {agent: {"steps": spec.max_turns}},
        "provider": {
            _PROVIDER: {
                "npm": "@ai-sdk/openai-compatible",
                "name": "gateway",
                "options": {"baseURL": f"{spec.gateway.base_url}/openai/v1", "apiKey": f"{{env:{KEY_NAME}}}"},
                "models": {model: {"name": model}},
            }
        },
    }
    if spec.mcp:
        config["mcp"] = {"playwright": {"type": "local", "command": [BROWSER]}}
    argv = ["opencode", "run", "--format", "json", "--title", "turn", "--agent", agent, "--dir", spec.workdir]
    argv += ["-s", spec.resume] if spec.resume else []
    return Launch(
        argv=argv,
        cwd=spec.workdir,
        env={
            "OPENCODE_CONFIG_CONTENT": msgspec.json.encode(config).decode(),
            **{f"OPENCODE_DISABLE_{what}": "1" for what in _DISABLED},
        },
        secret_env={KEY_NAME: spec.gateway.key},
        stdin=with_instructions(spec).encode(),
    )


class _Cache(Struct, frozen=True):
    read: Count = 0
    write: Count = 0


class _Tokens(Struct, frozen=True):
    input: Count = 0
    output: Count = 0
    reasoning: Count = 0
    cache: _Cache = _Cache()


class _ToolState(Struct, frozen=True):
    status: str = ""
    input: Any = None
    output: Any = None
    error: Any = None


class _Part(Struct, frozen=True, rename={"call_id": "callID"}):
    id: str = ""
    text: str = ""
    tool: str = ""
    call_id: str = ""
    state: _ToolState = _ToolState()
    reason: str = ""
    tokens: _Tokens | None = None
    cost: float | None = None


class _ErrorData(Struct, frozen=True, rename={"status_code": "statusCode"}):
    message: str = ""
    status_code: int | None = None


class _Error(Struct, frozen=True):
    name: str = ""
    data: _ErrorData = _ErrorData()


class _Line(Struct, frozen=True, rename={"session_id": "sessionID"}):
    type: str
    session_id: str | None = None
    part: _Part = _Part()
    error: _Error | None = None


_line = msgspec.json.Decoder(_Line).decode


class OpenCodeLines(Struct):
    """`reason`: why the last step ended, empty while one is under way. `used`: by all steps; the program gives no total."""

    session_id: str | None = None
    reason: str = ""
    error: str | None = None
    http_status: int | None = None
    last_text: str | None = None
    used: t.Usage | None = None
    last_step: str = ""

    def line(self, line: bytes, n: int) -> list[AgentItem] | None:
        """See Parser."""
        said = _line(line)
        items = self._said(said, n)
        if items is None or said.session_id is None or said.session_id == self.session_id:
            return items
        self.session_id = said.session_id
        return [t.RunStarted(source_n=n, agent=NAME, agent_session_id=said.session_id), *items]

    def _said(self, said: _Line, n: int) -> list[AgentItem] | None:
        part = said.part
        match said.type:
            case "step_start":
                self.reason = ""
                return []
            case "text":
                self.last_text = part.text
                return [t.AgentText(source_n=n, text=part.text)]
            case "tool_use" if part.call_id:
                return _tool(part, n)
            case "step_finish":
                return self._step(part, n)
            case "error" if said.error is not None:
                self.error = sentence(said.error.data.message or said.error.name)
                self.http_status = said.error.data.status_code
                return [t.AgentError(source_n=n, message=self.error)]
        return None

    def _step(self, part: _Part, n: int) -> list[AgentItem]:
        self.reason = part.reason
        if part.tokens is None or (part.id and part.id == self.last_step):
            return []
        self.last_step = part.id
        usage = _usage(part.tokens, part.cost)
        self.used = usage if self.used is None else summed((self.used, usage))
        return [t.AgentUsage(source_n=n, usage=usage)]

    def end(self, n: int, exit_code: int | None) -> list[AgentItem]:
        """See Parser. Completed is what ended by itself, with 0, after a step that nothing had to follow."""
        status: Any = "interrupted"
        error = self.error
        if error is not None:
            status = "error"
        elif exit_code == 0 and self.reason == "length":
            status, error = "error", "the answer was longer than the model's limit of output tokens"
        elif exit_code == 0 and self.reason not in ("", "tool-calls"):
            status = "completed"
        return [
            t.AgentResult(
                source_n=n,
                status=status,
                agent_session_id=self.session_id,
                final_text=self.last_text if status == "completed" else None,
                error=error,
                http_status=self.http_status,
                usage=self.used,
            )
        ]


def _tool(part: _Part, n: int) -> list[AgentItem]:
    """Both ends of it: the beginning was not told."""
    state = part.state
    output = state.output if state.output is not None else state.error
    return [
        t.ToolUse(source_n=n, tool_use_id=part.call_id, tool_name=part.tool, input=state.input),
        t.ToolResult(source_n=n, tool_use_id=part.call_id, output=output, is_error=state.status == "error"),
    ]


def _usage(tokens: _Tokens, cost: float | None) -> t.Usage:
    """Its input is without what was cached, its output without what was thought."""
    return t.Usage(
        input_tokens=tokens.input + tokens.cache.read + tokens.cache.write,
        output_tokens=tokens.output + tokens.reasoning,
        cache_read_input_tokens=tokens.cache.read,
        cache_creation_input_tokens=tokens.cache.write,
        cost_micro_usd=micro_usd(cost),
    )


ADAPTER = Adapter(name=NAME, launch=launch, parser=lambda _: OpenCodeLines())
