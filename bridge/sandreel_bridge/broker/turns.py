"""Whether a turn is over, by the last event of its subject: a grant that was made to it ends with it."""

from __future__ import annotations

from contextlib import suppress

from sandreel_bridge.broker.standing import Key, Standing
from sandreel_core.bus.loading import load
from sandreel_core.bus.port import Bus
from sandreel_core.contract.agent import AgentEvent
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.turn import TurnFinished
from sandreel_core.credential import SESSION
from sandreel_core.errors import Malformed, Refused


class Turns:
    """Asks the log; one question a turn."""

    def __init__(self, bus: Bus, standing: Standing) -> None:
        self._bus = bus
        self._standing = standing

    async def is_over(self, key: Key, turn: str) -> bool:
        """A turn of which the log holds nothing is not: it may have been granted something before it was started. Raises
        Unavailable."""
        subjects = self._standing.subjects(key)
        subject = subjects.event("turn", turn)
        stored = await self._bus.last(subjects.stream, subject)
        if stored is None:
            return False
        with suppress(Malformed):
            data = decode_event(subject, stored.body).data
            if isinstance(data, TurnFinished | AgentEvent):
                return isinstance(data, TurnFinished)
        # Behind its end may stand answers to commands.
        return (await load(self._bus, subject, False, _over)).state

    async def check(self, key: Key, turn: str) -> None:
        """Raises Refused (EXPIRED) when the turn, which is none for `SESSION`, is over; Unavailable."""
        if turn != SESSION and await self.is_over(key, turn):
            raise Refused("EXPIRED", "the turn that it was granted to is over")

    async def finished(self, key: Key) -> set[str]:
        """The turns that hold a grant of the session, and are over."""
        credentials = self._standing.get(key).credentials
        turns = {turn for held in credentials.held.values() for turn in held.grants if turn != SESSION}
        return {turn for turn in turns if await self.is_over(key, turn)}


def _over(over: bool, event: Envelope) -> bool:
    return over or isinstance(event.data, TurnFinished)
