"""Claude Code: `claude -p` with JSON lines both ways. Its lines are read in `claude_lines`. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from sandreel_bridge.adapters.adapter import BROWSER, Adapter, Launch, RunSpec
from sandreel_bridge.adapters.claude_lines import NAME, ClaudeLines

# Everything that could send a model call elsewhere than to the model that was asked for.
_MODEL_NAMES = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "ANTHROPIC_DEFAULT_FABLE_MODEL",
    "CLAUDE_CODE_SUBAGENT_MODEL",
)
_QUIET = (
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    "DISABLE_TELEMETRY",
    "DISABLE_ERROR_REPORTING",
    "DISABLE_AUTOUPDATER",
)
_PERMISSION_MODES = {"plan": "plan", "execute": "bypassPermissions"}


def launch(spec: RunSpec) -> Launch:
    """The prompt is the first line of its input, which stays open for what is said later."""
    argv = ["claude", "-p", "--output-format", "stream-json", "--input-format", "stream-json", "--verbose"]
    argv += ["--include-partial-messages", "--permission-mode", _PERMISSION_MODES[spec.permission_mode]]
    argv += ["--max-turns", str(spec.max_turns)]
    argv += ["--resume", spec.resume] if spec.resume else []
    argv += ["--model", spec.model] if spec.model else []
    # With `=`: a text that begins with a dash is no option.
    argv += [f"--append-system-prompt={spec.system_prompt_append}"] if spec.system_prompt_append else []
    if spec.mcp:
        servers = {"mcpServers": {"playwright": {"command": BROWSER, "args": []}}}
        argv += ["--mcp-config", msgspec.json.encode(servers).decode(), "--strict-mcp-config"]
    env = {
        "ANTHROPIC_BASE_URL": f"{spec.gateway.base_url}/anthropic",
        # Set, so that a key of the session's own environment is not used beside the turn's.
        "ANTHROPIC_API_KEY": "",
        "CLAUDE_CONFIG_DIR": f"{spec.home}/.claude",
        **dict.fromkeys(_QUIET, "1"),
        **(dict.fromkeys(_MODEL_NAMES, spec.model) if spec.model else {}),
    }
    return Launch(
        argv=argv,
        cwd=spec.workdir,
        env=env,
        secret_env={"ANTHROPIC_AUTH_TOKEN": spec.gateway.key},
        stdin=user_line(spec.prompt, spec.message_uuid),
        hold_stdin=True,
    )


def user_line(text: str, message_uuid: str | None) -> bytes:
    """One message to the program, as a line of its input. Under its UUID it is taken once, however often it is sent, also
    by another process that resumes the conversation."""
    line: dict[str, Any] = {"type": "user", "message": {"role": "user", "content": text}}
    if message_uuid is not None:
        line["uuid"] = message_uuid
    return msgspec.json.encode(line) + b"\n"


def stop_line(request_id: str) -> bytes:
    """Asks it to stop what it is doing: it ends its tools, prints a result, and goes on with what was said meanwhile."""
    line = {"type": "control_request", "request_id": request_id, "request": {"subtype": "interrupt"}}
    return msgspec.json.encode(line) + b"\n"


ADAPTER = Adapter(
    name=NAME,
    dialect="anthropic",
    launch=launch,
    parser=lambda _: ClaudeLines(),
    way="hooked",
    say=user_line,
    stop_line=stop_line,
)
