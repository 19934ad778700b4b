"""What a coding agent's tool is about, in a line; and any text of an agent as lines that steer no terminal. Pure."""

from __future__ import annotations

import shlex
from typing import Any

from sandreel_core.cli.text import plain
from sandreel_core.json_line import json_text

_SHELLS = ("/bin/bash ", "/bin/sh ", "bash ", "sh ")
# Of a tool's input, what tells a person most, in this order; else all of it as JSON.
_TELLING = ("command", "file_path", "filePath", "path", "pattern", "query", "url", "description", "prompt")
# What GPT models change files with, through OpenCode: a patch that names its files in such lines.
PATCH = "patchText"
_PATCHED = ("*** Update File: ", "*** Add File: ", "*** Delete File: ")


def one_line(text: str) -> str:
    """On one line, as `text.plain` shows it."""
    return " ".join(plain_lines(text)).strip()


def plain_lines(text: str) -> list[str]:
    return [plain(line.encode("utf-8", "replace")) for line in text.split("\n")]


def telling(given: Any) -> str:
    """Of a tool's input, what says most, on one line of any length."""
    if isinstance(given, dict):
        for name in _TELLING:
            if isinstance(given.get(name), str):
                return one_line(_command(given[name]) if name == "command" else given[name])
        if (several := _changes(given) or _todos(given)) is not None:
            return several
    return one_line(given if isinstance(given, str) else json_text(given)) if given else ""


def _command(line: str) -> str:
    """Without the shell that it is run by (Codex: `/bin/bash -lc '…'`), which is the same for every one."""
    if not line.startswith(_SHELLS):
        return line
    try:
        words = shlex.split(line)
    except ValueError:
        return line
    return words[2] if len(words) == 3 and words[1] in ("-c", "-lc") else line


def _changes(given: dict[Any, Any]) -> str | None:
    """The files of a patch (OpenCode's `apply_patch`), and of Codex's `file_change`, which tells no more than their names."""
    if isinstance(patch := given.get(PATCH), str):
        heads = [line for line in patch.splitlines() if line.startswith(_PATCHED)]
        return one_line(", ".join(head.partition(": ")[2] for head in heads)) or None
    changes = given.get("changes")
    if not isinstance(changes, list) or not all(isinstance(each, dict) and "path" in each for each in changes):
        return None
    return one_line(", ".join(f"{each.get('kind') or ''} {each['path']}".strip() for each in changes)) or None


def _todos(given: dict[Any, Any]) -> str | None:
    """How far a list of what is to be done is, and what is being done."""
    todos = given.get("todos")
    if not isinstance(todos, list) or not todos or not all(isinstance(each, dict) for each in todos):
        return None
    done = sum(each.get("status") == "completed" for each in todos)
    now = next((str(each.get("content", "")) for each in todos if each.get("status") == "in_progress"), "")
    return one_line(f"{done} of {len(todos)} done{': ' + now if now else ''}")
