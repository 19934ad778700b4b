"""What an adapter makes of a coding agent's output: agent events, and text as it is being typed. Pure.

The adapters stand above core (`sandreel_bridge.adapters`); whoever shows an agent needs only what is here.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

from msgspec import Struct

from sandreel_core.contract.agent import AgentEvent


class Typed(Struct, frozen=True):
    """A piece of text that will come again, whole, as `agent.text`: for eyes, and stored nowhere (design §9).

    parent  the tool use that it belongs to; None is the agent itself
    """

    text: str
    parent: str | None = None


AgentItem: TypeAlias = AgentEvent | Typed


class AgentReader(Protocol):
    """One run of an agent's program, as it is read. `agent` is the agent's name; `malformed_lines` counts lines of its
    stdout that were no JSON object and were skipped."""

    @property
    def agent(self) -> str: ...

    @property
    def malformed_lines(self) -> int: ...

    def feed(self, data: bytes, source_n: int) -> list[AgentItem]:
        """What these bytes of stdout, read from event `source_n` of the exec, complete. Never raises."""
        ...

    def end(self, source_n: int, exit_code: int | None) -> list[AgentItem]:
        """What the end of the program completes: an `agent.result` in any case, unless the last one ended all. None is
        an exit code that does not exist or is not known. Once, and nothing is fed after it."""
        ...
