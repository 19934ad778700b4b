"""One exec's record, as the exec sees it: it says what happened, the record numbers it and makes it durable."""

from __future__ import annotations

from typing import Protocol

from sandreel_core.contract import exec as c
from sandreel_core.contract.message import Envelope


class Recorder(Protocol):
    """Calls of one exec are taken in the order in which they are made; nothing overtakes."""

    async def accept(self, accepted: c.Accepted, *, command: Envelope) -> None:
        """Store n = 1, expecting an empty subject, and wait for the acknowledgement (for ever, while the bus
        is away). Raises Refused(DUPLICATE_EXEC) when the subject has events already that this call did not
        make, and Denied when this boot was declared dead. No other method may be called before it returned.
        """

    async def record(self, event: c.ExecEvent, *, command: Envelope | None = None) -> None:
        """Take the event into the window or the spool; wait while neither has room, so that the child waits.
        Returning means taken, not yet acknowledged. `command` is what caused it. Raises TooLarge for a block of output that
        is over the server's payload, of which nothing was taken, and Denied when this boot was declared dead: the record takes no more."""

    async def conclude(self, exited: c.Exited) -> None:
        """Publish the end alone, after everything before it is acknowledged; return when it is acknowledged
        itself. Nothing may be recorded afterwards. Raises Denied as `record` does."""
