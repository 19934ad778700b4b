"""What a tool of a coding agent is about to change in a file, as lines of a diff. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import ndiff
from typing import Any

from sandreel_core.cli.agent_words import PATCH

# Lines of each side that are compared: what it takes grows with their product.
_COMPARED = 200
_SHOWN = 20
# How tools name the text that goes and the one that comes (Claude Code and Gemini CLI, OpenCode), and a whole file's.
_PAIRS = (("old_string", "new_string"), ("oldString", "newString"))
_WHOLE = "content"
_PATHS = ("file_path", "filePath", "path")
_OF_A_PATCH = ("+", "-", " ")


def diff(given: Any) -> list[str]:
    """Lines that begin with `+ `, `- ` or two blanks, at most 20 and then one that says how many are left out; none for an
    input that changes no file."""
    lines = list(_changes(given)) if isinstance(given, dict) else []
    return lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f"… {len(lines) - _SHOWN} more lines"]


def _changes(given: dict[Any, Any]) -> Iterator[str]:
    for old, new in _PAIRS:
        before, after = given.get(old), given.get(new)
        if isinstance(before, str) and isinstance(after, str):
            yield from _compared(before.splitlines(), after.splitlines())
    edits = given.get("edits")
    for edit in edits if isinstance(edits, list) else ():
        if isinstance(edit, dict):
            yield from _changes({name: edit.get(name) for pair in _PAIRS for name in pair})
    if isinstance(patch := given.get(PATCH), str):
        yield from (f"{line[:1]} {line[1:]}" for line in patch.splitlines() if line[:1] in _OF_A_PATCH)
    content = given.get(_WHOLE)
    if isinstance(content, str) and any(isinstance(given.get(path), str) for path in _PATHS):
        yield from (f"+ {line}" for line in content.splitlines())


def _compared(before: list[str], after: list[str]) -> Iterator[str]:
    if max(len(before), len(after)) > _COMPARED:
        yield from (f"- {line}" for line in before)
        yield from (f"+ {line}" for line in after)
    else:
        # `? ` lines of ndiff point at characters within a line.
        yield from (line for line in ndiff(before, after) if not line.startswith("? "))
