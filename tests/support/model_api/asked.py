"""What a request asks for, in one form for all dialects. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["user", "assistant", "tool"]
Dialect = Literal["anthropic", "chat", "responses", "gemini"]

_WORKDIR = re.compile(r"[Ww]orking directory:\s*(/\S+)")


@dataclass(frozen=True, slots=True)
class Item:
    """A part of the conversation so far: what a person, the model or a tool said."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One model call. `tools`: the names that the program offers; `workdir`: where it says that it works."""

    dialect: Dialect
    model: str
    stream: bool
    items: tuple[Item, ...]
    tools: tuple[str, ...]
    workdir: str
    max_tokens: int | None = None

    def rounds_after(self, index: int) -> int:
        """How often the model has answered since that item: parts of one answer that stand together are one."""
        rounds, before = 0, ""
        for item in self.items[index + 1 :]:
            rounds += item.role == "assistant" and before != "assistant"
            before = item.role
        return rounds


def text_of(content: Any) -> str:
    """All texts in a message's content, whichever of the APIs' forms it has."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(filter(None, map(text_of, content)))
    if isinstance(content, Mapping):
        return text_of(content.get("text") or content.get("content") or content.get("output") or "")
    return ""


def workdir(*texts: str) -> str:
    """Where the program says that it works: Claude Code, OpenCode and Gemini CLI tell the model so."""
    for text in texts:
        if found := _WORKDIR.search(text):
            return found.group(1).rstrip(".,;`")
    return "/workspace/repo"
