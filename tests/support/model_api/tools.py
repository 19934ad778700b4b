"""How each program calls a tool: chosen by the names that its request offers. Pure."""

from __future__ import annotations

import shlex
from typing import Any

from tests.support.model_api.asked import Asked
from tests.support.model_api.script import Call, Delegate, Edit, Read, Shell, Tool, Write

# Claude Code, OpenCode, Codex, Gemini CLI, in this order where they differ.
_SHELL = (
    "Bash",
    "bash",
    "shell_command",
    "exec_command",
    "shell",
    "local_shell",
    "run_shell_command",
    "container.exec",
)


def call(tool: Tool, asked: Asked) -> tuple[str, dict[str, Any]]:
    """(name, input). A program that has no such tool gets a shell command that does the same."""
    match tool:
        case Call(name, input):
            return name, dict(input)
        case Shell(command):
            return _shell(command, asked)
        case Delegate(prompt):
            name = _first(("Agent", "Task", "task", "agent"), asked) or "Agent"
            kind = "general-purpose" if name[0].isupper() else "general"
            return name, {"description": "a part of the work", "prompt": prompt, "subagent_type": kind}
        case Read(path):
            at = f"{asked.workdir}/{path}"
            forms = {"Read": {"file_path": at}, "read": {"filePath": at}, "read_file": {"file_path": at}}
            return _form(forms, f"cat {shlex.quote(path)}", asked)
        case Write(path, content):
            at = f"{asked.workdir}/{path}"
            forms = {
                "Write": {"file_path": at, "content": content},
                "write": {"filePath": at, "content": content},
                "write_file": {"file_path": at, "content": content},
            }
            return _form(forms, f"printf %s {shlex.quote(content)} > {shlex.quote(path)}", asked)
        case Edit(path, old, new):
            at = f"{asked.workdir}/{path}"
            forms = {
                "Edit": {"file_path": at, "old_string": old, "new_string": new},
                "edit": {"filePath": at, "oldString": old, "newString": new},
                "replace": {"file_path": at, "old_string": old, "new_string": new, "instruction": "mend it"},
            }
            program = "import sys; p, o, n = sys.argv[1:]; t = open(p).read(); open(p, 'w').write(t.replace(o, n, 1))"
            return _form(forms, shlex.join(["python3", "-c", program, path, old, new]), asked)


def _form(forms: dict[str, dict[str, str]], command: str, asked: Asked) -> tuple[str, dict[str, Any]]:
    name = _first(tuple(forms), asked)
    return (name, dict(forms[name])) if name else _shell(command, asked)


def _shell(command: str, asked: Asked) -> tuple[str, dict[str, Any]]:
    name = _first(_SHELL, asked) or "Bash"
    if name == "exec_command":
        return name, {"cmd": command}
    if name in ("shell", "local_shell", "container.exec"):
        return name, {"command": ["bash", "-lc", command]}
    return name, {"command": command, "description": "a command"}


def _first(names: tuple[str, ...], asked: Asked) -> str:
    return next((name for name in names if name in asked.tools), "")
