"""How each program is started: what stands in its argv, its environment, its input and its files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandreel_bridge import drivers
from sandreel_bridge.adapters.adapter import Gateway, Launch, RunSpec
from sandreel_bridge.adapters.table import ADAPTERS, adapter
from sandreel_core.contract.exec import SecretRef
from sandreel_core.environment import is_admissible
from sandreel_core.errors import Malformed

agents = pytest.mark.parametrize("agent", sorted(ADAPTERS))
PROMPT = "--help me 'and' $HOME\nplease"
KEY = SecretRef(role="bridge", lease="lease-1")


def launched(agent: str, **more: Any) -> Launch:
    gateway = Gateway(base_url="http://gateway:8080", key=KEY)
    return adapter(agent).launch(RunSpec(prompt=PROMPT, gateway=gateway, **more))


def heard(launch: Launch) -> str:
    """What the program takes from its input for the prompt."""
    if not launch.hold_stdin:
        return launch.stdin.decode()
    line = msgspec.json.decode(launch.stdin)
    text: str = line["text"] if "text" in line else line["message"]["content"]
    return text


def config(launch: Launch) -> Any:
    return msgspec.json.decode(launch.env["OPENCODE_CONFIG_CONTENT"])


@agents
def test_the_prompt_is_input_and_the_key_a_reference(agent: str) -> None:
    launch = launched(agent, system_prompt_append="Be brief.", message_uuid="0190c0de-0000-7000-8000-000000000001")
    assert PROMPT in heard(launch)
    public = msgspec.json.encode([launch.argv, launch.env, {p: b.decode() for p, b in launch.files.items()}]).decode()
    assert "help me" not in public
    assert "lease-1" not in public
    assert list(launch.secret_env.values()) == [KEY]
    assert "http://gateway:8080" in public
    # What the session lets an exec set, and what a name can be given once.
    assert all(is_admissible(name, value) for name, value in launch.env.items())
    assert all(is_admissible(name, "x") and name not in launch.env for name in launch.secret_env)
    assert all(path.startswith("/workspace/.home/") for path in launch.files)


@agents
def test_a_program_is_told_where_its_workspace_really_is(agent: str) -> None:
    """In a session without bubblewrap there is no /workspace."""
    launch = launched(agent, workspace="/srv/s1", workdir="/srv/s1/repo", mcp=False)
    assert "/workspace" not in repr((launch.argv, launch.cwd, launch.env, list(launch.files)))
    assert launch.cwd == "/srv/s1/repo"
    assert all(path.startswith("/srv/s1/.home/") for path in launch.files)


@agents
def test_an_appended_system_prompt_arrives(agent: str) -> None:
    launch = launched(agent, system_prompt_append="-- Be brief.")
    if agent == "claude-code":
        assert "--append-system-prompt=-- Be brief." in launch.argv
    else:
        assert heard(launch).startswith("-- Be brief.\n\n--help")


@agents
def test_a_browser_comes_only_when_asked_for(agent: str) -> None:
    def said(mcp: bool) -> bool:
        launch = launched(agent, mcp=mcp)
        return "sandreel-playwright-mcp" in str([launch.argv, launch.env, launch.files])

    assert (said(True), said(False)) == (True, False)


def test_claude_code() -> None:
    launch = launched("claude-code", mcp=False, message_uuid="0190c0de-0000-7000-8000-000000000001")
    assert launch.argv == [
        *("claude", "-p", "--output-format", "stream-json", "--input-format", "stream-json", "--verbose"),
        *("--include-partial-messages", "--permission-mode", "bypassPermissions", "--max-turns", "40"),
    ]
    assert launch.env["ANTHROPIC_BASE_URL"] == "http://gateway:8080/anthropic"
    assert launch.env["ANTHROPIC_API_KEY"] == ""
    assert list(launch.secret_env) == ["ANTHROPIC_AUTH_TOKEN"]
    assert launch.env["CLAUDE_CONFIG_DIR"] == "/workspace/.home/.claude"
    assert (launch.cwd, launch.hold_stdin, launch.stdin.count(b"\n")) == ("/workspace/repo", True, 1)
    assert msgspec.json.decode(launch.stdin) == {
        "type": "user",
        "uuid": "0190c0de-0000-7000-8000-000000000001",
        "message": {"role": "user", "content": PROMPT},
    }

    more = launched("claude-code", permission_mode="plan", resume="r1", model="m1", max_turns=7)
    assert "plan" in more.argv
    assert more.argv[more.argv.index("--max-turns") + 1] == "7"
    assert more.argv[more.argv.index("--resume") + 1] == "r1"
    assert more.argv[more.argv.index("--mcp-config") + 2] == "--strict-mcp-config"
    # No call may go to a model that was not asked for, where a key allows but one.
    named = {name for name, value in more.env.items() if value == "m1"}
    assert len(named) == 6
    assert not any("MODEL" in name for name in launch.env)


def test_opencode() -> None:
    launch = launched("opencode", model="m1", resume="ses_1", workdir="/workspace/other")
    [(driver, program)] = launch.files.items()
    assert launch.argv == [
        *("python3", "-IS", driver, "--dir", "/workspace/other", "--agent", "build", "--model", "gateway/m1"),
        *("--resume", "ses_1"),
    ]
    assert program == (Path(drivers.__file__).parent / "opencode.py").read_bytes()
    assert config(launch)["model"] == config(launch)["small_model"] == "gateway/m1"
    assert config(launch)["provider"]["gateway"]["options"] == {
        "baseURL": "http://gateway:8080/openai/v1",
        "apiKey": "{env:GATEWAY_TOKEN}",
    }
    assert config(launch)["permission"] == {"*": "allow"}
    assert config(launch)["agent"] == {"build": {"steps": 40}}
    assert launch.hold_stdin

    plan = launched("opencode", permission_mode="plan")
    assert plan.argv[plan.argv.index("--agent") + 1] == "plan"
    permission = config(plan)["permission"]
    assert "*" not in permission, "the plan agent's own rules hold"
    assert (permission["edit"], permission["bash"]) == ("deny", "deny"), "for whom it asks as well"


def test_codex() -> None:
    launch = launched("codex", mcp=False, model="m1", resume="t1")
    assert launch.argv[:5] == [
        *("codex", "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
    ]
    assert 'model_providers.gateway.base_url="http://gateway:8080/openai/v1"' in launch.argv
    assert 'model_providers.gateway.env_key="GATEWAY_TOKEN"' in launch.argv
    assert launch.argv[-5:] == ["-m", "m1", "resume", "t1", "-"]
    assert launched("codex").argv[-1] == "-"
    with pytest.raises(Malformed, match="no plan mode"):
        launched("codex", permission_mode="plan")


def test_gemini_cli() -> None:
    launch = launched("gemini-cli", model="m1", resume="r1", max_turns=7)
    assert launch.argv == [
        *("gemini", "-o", "stream-json", "--approval-mode", "yolo", "--skip-trust", "-m", "m1", "--resume", "r1"),
    ]
    assert launch.env["GEMINI_CLI_NO_RELAUNCH"] == "true"
    [(path, settings)] = launch.files.items()
    assert path == f"{launch.env['GEMINI_CLI_HOME']}/.gemini/settings.json"
    assert msgspec.json.decode(settings)["model"] == {"maxSessionTurns": 7}
    plan = launched("gemini-cli", permission_mode="plan")
    assert "plan" in plan.argv
    rules = tomllib.loads(plan.files[f"{plan.env['GEMINI_CLI_HOME']}/.gemini/policies/sandreel.toml"].decode())
    [rule] = rules["rule"]
    assert (rule["toolName"], rule["decision"], rule["modes"]) == ("exit_plan_mode", "deny", ["plan"])


def test_an_agent_that_there_is_not_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(Malformed, match="'claude'; there are claude-code, opencode, codex, gemini-cli"):
        adapter("claude")
