"""Text of an agent as it is typed, put in its place among the events of its turn. Pure.

The bridge reads an exec's output by an adapter and appends the agent's events to the turn. A viewer reads the same output by
the same adapter, so it finds the same events, and between them the pieces of text that no log keeps (design §9). Which of the
two is ahead changes from moment to moment; a piece may be shown once every event before it has come from the log, and is
worthless as soon as one behind it has.
"""

from __future__ import annotations

from collections import deque

from sandreel_core.agent import AgentItem, Typed
from sandreel_core.contract.agent import AgentEvent

# Items by which one side may be ahead of the other. Beyond, pieces are left out until both meet again.
_MAX_AHEAD = 1024


class Partial:
    """`last`: the newest agent event of the log, for output that is read from its middle: all before it is old.

    An event that only one side has (the bridge says something of its own, or left something out) stands in nobody's way:
    the next one that both have ends what was open before it.
    """

    def __init__(self, last: AgentEvent | None = None) -> None:
        # Of the output, in its order: an event that the log has not brought yet, and what follows it.
        self._ahead: deque[AgentItem] = deque()
        # Of the log, in its order: what the output has not brought yet.
        self._behind: deque[AgentEvent] = deque([last] if last is not None else [])

    def read(self, items: list[AgentItem]) -> list[Typed]:
        """What may be shown at once of what the adapter made of some output."""
        shown: list[Typed] = []
        for item in items:
            if isinstance(item, Typed):
                if self._ahead:
                    self._hold(item)
                elif not self._behind:
                    shown.append(item)
            elif item in self._behind:
                _drop_through(self._behind, item)
                self._ahead.clear()
            else:
                self._hold(item)
        return shown

    def came(self, event: AgentEvent) -> list[Typed]:
        """What may be shown behind an event of the log."""
        if event not in self._ahead:
            self._behind.append(event)
            if len(self._behind) > _MAX_AHEAD:
                self._behind.popleft()
            return []
        self._behind.clear()
        _drop_through(self._ahead, event)
        shown: list[Typed] = []
        while self._ahead and isinstance(piece := self._ahead[0], Typed):
            shown.append(piece)
            self._ahead.popleft()
        return shown

    def _hold(self, item: AgentItem) -> None:
        if len(self._ahead) < _MAX_AHEAD:
            self._ahead.append(item)
        elif not isinstance(item, Typed):
            # An event that is left out would make a piece behind it pass for one of now.
            self._ahead.clear()
            self._ahead.append(item)


def _drop_through(items: deque[AgentItem] | deque[AgentEvent], last: AgentEvent) -> None:
    while items.popleft() != last:
        pass
