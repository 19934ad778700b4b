"""OpenCode: its server, which a driver of ours turns into a program with lines both ways (decision 0033). What it tells is read in
`opencode_lines`. Pure.

`opencode run` would need no driver, but it prints a tool only when it has ended, no piece of a text, nothing of its sub-agents and no
last line, and takes nothing more once it has begun.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import msgspec

from sandreel_bridge import drivers
from sandreel_bridge.adapters.adapter import BROWSER, KEY_NAME, Adapter, Launch, RunSpec, with_instructions
from sandreel_bridge.adapters.opencode_lines import NAME, OpenCodeLines

_PROVIDER = "gateway"
_DISABLED = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "SHARE", "DEFAULT_PLUGINS")
_AGENTS = {"plan": "plan", "execute": "build"}
# Nobody sits there to be asked. Its plan agent may edit nothing, but would run any command, and have another agent edit (seen
# with 1.18.33): these hold for whomever it asks.
_PERMISSIONS: dict[str, dict[str, str]] = {
    "plan": {"edit": "deny", "bash": "deny", "doom_loop": "deny", "external_directory": "deny"},
    "execute": {"*": "allow"},
}
_DRIVER = ".sandreel/opencode.py"


def launch(spec: RunSpec) -> Launch:
    """The prompt is the first line of its input. The conversation has a title, so that no model is asked for one."""
    model = spec.model or "default"
    agent = _AGENTS[spec.permission_mode]
    config: dict[str, Any] = {
        "model": f"{_PROVIDER}/{model}",
        "small_model": f"{_PROVIDER}/{model}",
        "autoupdate": False,
        "share": "disabled",
        "permission": _PERMISSIONS[spec.permission_mode],
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
    driver = f"{spec.home}/{_DRIVER}"
    argv = ["python3", "-IS", driver, "--dir", spec.workdir, "--agent", agent, "--model", f"{_PROVIDER}/{model}"]
    argv += ["--resume", spec.resume] if spec.resume else []
    return Launch(
        argv=argv,
        cwd=spec.workdir,
        env={
            "OPENCODE_CONFIG_CONTENT": msgspec.json.encode(config).decode(),
            **{f"OPENCODE_DISABLE_{what}": "1" for what in _DISABLED},
        },
        secret_env={KEY_NAME: spec.gateway.key},
        stdin=user_line(with_instructions(spec), spec.message_uuid),
        hold_stdin=True,
        # What importing it would read, as bytes: it runs elsewhere.
        files={driver: files(drivers).joinpath("opencode.py").read_bytes()},
    )


def user_line(text: str, message_uuid: str | None) -> bytes:
    """One message, as a line of the driver's input."""
    line = {"type": "user", "text": text} | ({} if message_uuid is None else {"uuid": message_uuid})
    return msgspec.json.encode(line) + b"\n"


def stop_line(_: str) -> bytes:
    return b'{"type":"interrupt"}\n'


ADAPTER = Adapter(
    name=NAME,
    dialect="openai",
    launch=launch,
    parser=lambda _: OpenCodeLines(),
    way="open",
    say=user_line,
    stop_line=stop_line,
)
