"""Which events of an exec a reader takes: the few lines that every reader of execs shares (design §3).

Go-back-N means that the log may hold repeats, and pieces that stand behind a hole; the pieces that belong
into the hole come again. A reader that takes only `last + 1` therefore sees exactly what was sent.
"""

from __future__ import annotations

from sandreel_core.contract.exec import Exited, Gap, Lost
from sandreel_core.contract.message import Envelope


class Ordinals:
    """The reader's place in one exec. `last` is the ordinal taken last; nothing is taken after the end."""

    __slots__ = ("ended", "last")

    def __init__(self, last: int = 0, ended: bool = False) -> None:
        self.last = last
        self.ended = ended

    def accept(self, event: Envelope) -> bool:
        """Whether to take this event. Not taken: repeats, pieces behind a hole, whatever follows the end."""
        n = event.n
        if n is None or self.ended:
            return False
        data = event.data
        if isinstance(data, Gap):
            if n != data.to_n + 1 or not data.from_n - 1 == self.last < n:
                return False
        elif n != self.last + 1:
            return False
        self.last = n
        if isinstance(data, Exited | Lost):
            self.ended = True
        return True
