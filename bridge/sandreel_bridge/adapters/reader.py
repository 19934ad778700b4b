"""What all adapters share of reading: lines, what is skipped, what is passed on, what is shortened. Pure."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from msgspec import Struct

from sandreel_bridge.adapters.json_lines import MAX_LINE_BYTES, JsonLines
from sandreel_bridge.adapters.shortened import MAX_EVENT_BYTES, shortened
from sandreel_core.agent import AgentItem, Typed
from sandreel_core.contract.agent import AgentError, AgentRaw

_decode = msgspec.json.Decoder(dict[str, Any]).decode
# What is said of a line that is no JSON object in UTF-8, or nested deeper than the interpreter, or the contract, takes.
_SKIPPED = (msgspec.DecodeError, ValueError, RecursionError)


class Parser(Protocol):
    """One program's lines as agent events. A mutable Struct of plain data, so that its state is a value too.

    It keeps what it needs to know of what came before, within bounds: a turn may run for weeks.
    """

    def line(self, line: bytes, n: int) -> list[AgentItem] | None:
        """What one line says; None for one of a type that it does not know. Raises what msgspec raises."""
        ...

    def end(self, n: int, exit_code: int | None) -> list[AgentItem]:
        """What the end of the program says."""
        ...


class State(Struct, frozen=True, kw_only=True):
    """Where a reader stands: what `turn.checkpoint` keeps as its `parser`."""

    lines: JsonLines
    parser: Any
    malformed_lines: int


class Reader:
    """Bytes of one run's stdout, in any chunking, as agent items (see `sandreel_core.agent.AgentReader`).

    The same bytes give the same items however they are cut, `source_n` aside: an event bears the ordinal of the block in which its
    line ended.
    """

    __slots__ = ("_lines", "_parser", "agent", "malformed_lines")

    def __init__(self, agent: str, parser: Parser) -> None:
        self.agent = agent
        self._parser = parser
        self._lines = JsonLines()
        self.malformed_lines = 0

    def state(self) -> Any:
        """All that is known, as JSON can hold it: `resume` on a new reader of the same agent goes on from here."""
        state = State(lines=self._lines, parser=self._parser, malformed_lines=self.malformed_lines)
        return msgspec.to_builtins(state)

    def resume(self, state: Any) -> None:
        """Raises msgspec.ValidationError for what is no state of this agent's reader."""
        found = msgspec.convert(state, State)
        self._parser = msgspec.convert(found.parser, type(self._parser))
        self._lines, self.malformed_lines = found.lines, found.malformed_lines

    def feed(self, data: bytes, source_n: int) -> list[AgentItem]:
        """See AgentReader."""
        return self._items(self._lines.feed(data), source_n)

    def end(self, source_n: int, exit_code: int | None) -> list[AgentItem]:
        """See AgentReader."""
        return self._items(self._lines.end(), source_n) + self._parser.end(source_n, exit_code)

    def _items(self, lines: list[bytes | None], n: int) -> list[AgentItem]:
        items: list[AgentItem] = []
        parse = self._parser.line
        for line in lines:
            if line is None:
                items.append(AgentError(source_n=n, message=f"a line of over {MAX_LINE_BYTES} bytes was left out"))
                continue
            try:
                try:
                    found = parse(line, n)
                except msgspec.ValidationError:
                    found = None  # JSON, and not of the shape that we know: passed on
                if found is None:
                    found = [AgentRaw(source_n=n, payload=_decode(line))]
            except _SKIPPED:
                if line and not line.isspace():
                    self.malformed_lines += 1
                continue
            if len(line) > MAX_EVENT_BYTES:
                found = [item if isinstance(item, Typed) else shortened(item) for item in found]
            items += found
        return items
