"""Gemini CLI: `gemini -o stream-json`, one prompt a run. Pure.

Observed with 0.61.0 (`tests/bridge/recordings/gemini-cli`). Texts come in pieces only: whole ones end where something else comes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from sandreel_bridge.adapters.adapter import BROWSER, Adapter, Launch, RunSpec, sentence, with_instructions
from sandreel_core.agent import AgentItem, Typed
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.contract.message import Count

NAME = "gemini-cli"
_HOME = ".gemini-cli"
# A text that grows longer than this comes as several.
_MAX_TEXT_CHARACTERS = 64 * 1024
_APPROVAL_MODES = {"plan": "plan", "execute": "yolo"}
# Where nobody can be asked, its own rules let it approve its plan itself, and then it may do everything (seen with 0.61.0).
_NO_APPROVAL = b"""\
[[rule]]
toolName = "exit_plan_mode"
decision = "deny"
priority = 999
modes = ["plan"]
denyMessage = "The plan is a person's to approve. End your turn now, with the whole plan as your answer."
"""


def launch(spec: RunSpec) -> Launch:
    """The prompt is its input. What has no option goes into the settings of a home of its own: a file of settings for the
    whole system it takes only from root."""
    home = f"{spec.home}/{_HOME}"
    settings: dict[str, Any] = {
        # Asked for in so many words: with a base URL of another host it would guess one that it then refuses.
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "privacy": {"usageStatisticsEnabled": False},
        "model": {"maxSessionTurns": spec.max_turns},
    }
    if spec.mcp:
        settings["mcpServers"] = {"playwright": {"command": BROWSER}}
    files = {f"{home}/.gemini/settings.json": msgspec.json.encode(settings)}
    if spec.permission_mode == "plan":
        files[f"{home}/.gemini/policies/sandreel.toml"] = _NO_APPROVAL
    argv = ["gemini", "-o", "stream-json", "--approval-mode", _APPROVAL_MODES[spec.permission_mode], "--skip-trust"]
    argv += ["-m", spec.model] if spec.model else []
    argv += ["--resume", spec.resume] if spec.resume else []
    return Launch(
        argv=argv,
        cwd=spec.workdir,
        env={
            "GOOGLE_GEMINI_BASE_URL": f"{spec.gateway.base_url}/genai",
            # Without it the program is a launcher, which ignores signals.
            "GEMINI_CLI_NO_RELAUNCH": "true",
            "GEMINI_CLI_HOME": home,
        },
        secret_env={"GEMINI_API_KEY": spec.gateway.key},
        stdin=with_instructions(spec).encode(),
        files=files,
    )


class _Failure(Struct, frozen=True):
    type: str = ""
    message: str = ""


class _Stats(Struct, frozen=True):
    total_tokens: Count = 0
    input_tokens: Count = 0
    output_tokens: Count = 0
    cached: Count = 0
    duration_ms: Count | None = None


class _Line(Struct, frozen=True):
    type: str
    session_id: str | None = None
    model: str | None = None
    role: str = ""
    content: str = ""
    delta: bool = False
    tool_name: str = ""
    tool_id: str = ""
    parameters: Any = None
    output: Any = None
    status: str = ""
    message: str = ""
    error: _Failure | None = None
    stats: _Stats | None = None


_line = msgspec.json.Decoder(_Line).decode
_any = msgspec.json.Decoder(dict[str, Any]).decode


class GeminiLines(Struct):
    """`pieces`: of the text that is coming, so many `characters` of it."""

    session_id: str | None = None
    answered: bool = False
    pieces: list[str] = []
    characters: int = 0
    last_text: str | None = None

    def line(self, line: bytes, n: int) -> list[AgentItem] | None:
        """See Parser."""
        said = _line(line)
        if said.type == "message" and said.role == "assistant" and said.delta:
            self.pieces.append(said.content)
            self.characters += len(said.content)
            return [Typed(said.content), *(self._text(n) if self.characters > _MAX_TEXT_CHARACTERS else ())]
        text, items = self._text(n), self._other(said, n)
        return [*text, *([a.AgentRaw(source_n=n, payload=_any(line))] if items is None else items)]

    def end(self, n: int, exit_code: int | None) -> list[AgentItem]:
        """See Parser. The exit code says nothing: it is 0 after a signal, and the status of the API modulo 256 after an error."""
        text = self._text(n)
        if self.answered:
            return text
        return [*text, a.AgentResult(source_n=n, status="interrupted", agent_session_id=self.session_id)]

    def _text(self, n: int) -> list[AgentItem]:
        if not self.pieces:
            return []
        self.last_text = "".join(self.pieces)
        self.pieces, self.characters = [], 0
        return [a.AgentText(source_n=n, text=self.last_text)]

    def _other(self, said: _Line, n: int) -> list[AgentItem] | None:
        match said.type:
            case "init":
                self.session_id = said.session_id
                return [a.RunStarted(source_n=n, agent=NAME, agent_session_id=said.session_id, model=said.model)]
            case "message" if said.role == "user":
                return []  # the prompt
            case "message" if said.role == "assistant":
                self.last_text = said.content
                return [a.AgentText(source_n=n, text=said.content)]
            case "tool_use" if said.tool_id:
                return [
                    a.ToolUse(source_n=n, tool_use_id=said.tool_id, tool_name=said.tool_name, input=said.parameters)
                ]
            case "tool_result" if said.tool_id:
                failed = said.status != "success"
                output = said.error.message if said.output is None and said.error is not None else said.output
                return [a.ToolResult(source_n=n, tool_use_id=said.tool_id, output=output, is_error=failed)]
            case "error":
                return [a.AgentError(source_n=n, message=sentence(said.message))]
            case "result":
                return [self._result(said, n)]
        return None

    def _result(self, said: _Line, n: int) -> a.AgentResult:
        self.answered = True
        failed = said.status != "success"
        # By its name in the program's source: no recording has one.
        limited = said.error is not None and said.error.type == "FatalTurnLimitedError"
        stats = said.stats
        return a.AgentResult(
            source_n=n,
            status="max_turns" if limited else "error" if failed else "completed",
            agent_session_id=self.session_id,
            final_text=None if failed else self.last_text,
            error=sentence(said.error.message) if failed and said.error is not None else None,
            duration_ms=stats.duration_ms if stats is not None else None,
            usage=_used(stats) if stats is not None else None,
        )


def _used(stats: _Stats) -> t.Usage:
    """Thoughts stand in the total alone, and are paid for as output."""
    return t.Usage(
        input_tokens=stats.input_tokens,
        output_tokens=max(stats.output_tokens, stats.total_tokens - stats.input_tokens),
        cache_read_input_tokens=stats.cached,
    )


ADAPTER = Adapter(name=NAME, dialect="gemini", launch=launch, parser=lambda _: GeminiLines())
