"""The agents that there are. A new one is a file and a row here. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sandreel_bridge.adapters import claude_code, codex, gemini_cli, opencode
from sandreel_bridge.adapters.adapter import Adapter
from sandreel_core.agent import AgentReader
from sandreel_core.errors import Malformed

ADAPTERS: Mapping[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        claude_code.ADAPTER,
        opencode.ADAPTER,
        codex.ADAPTER,
        gemini_cli.ADAPTER,
    )
}


def adapter(name: str) -> Adapter:
    """Raises Malformed, with the names that there are."""
    try:
        return ADAPTERS[name]
    except KeyError:
        raise Malformed(f"there is no agent {name[:80]!r}; there are {', '.join(ADAPTERS)}") from None


def readers() -> Mapping[str, Callable[[], AgentReader]]:
    """For a command line that knows agents by name alone (`sandreel_core/cli/agents.py`)."""
    return {name: found.reader for name, found in ADAPTERS.items()}
