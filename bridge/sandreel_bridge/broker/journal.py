"""How the broker writes: one event at a time on a session's subject `credential`, expecting the revision it was decided on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sandreel_bridge.broker.standing import Key, Stand, Standing
from sandreel_core.bus.port import Bus
from sandreel_core.clock import new_id, now
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.credential import CredentialEvent
from sandreel_core.contract.message import Envelope
from sandreel_core.errors import Conflict, Unavailable

MAX_CONFLICTS = 32
T = TypeVar("T", bound=CredentialEvent)


class Journal:
    """The broker's pen. `source` names this broker in what it writes."""

    def __init__(
        self,
        bus: Bus,
        standing: Standing,
        *,
        source: str,
        appended: Callable[[str, Envelope, int, int], None] = lambda *_: None,
    ) -> None:
        """appended: told of every event: its subject, itself, the revision that it was expected behind, its own."""
        self._bus = bus
        self._standing = standing
        self._source = source
        self._appended = appended

    async def decide(
        self, key: Key, choose: Callable[[Stand], T | None], *, correlation: str | None = None
    ) -> T | None:
        """Choose one event (None: nothing to say), append it expecting what was chosen on; again, on a fresh reading, on a
        conflict. Returns what was appended. Raises what `choose` raises, and Unavailable."""
        subject = self._standing.subjects(key).event("credential")
        stand = self._standing.get(key)
        for _ in range(MAX_CONFLICTS):
            event = choose(stand)
            if event is None:
                return None
            envelope = seal(
                event, id=new_id(), source=self._source, subject=subject, time=now(), correlationid=correlation
            )
            try:
                sequence = await self._bus.append(subject, encode(envelope), expected=stand.revision)
            except Conflict:
                stand = await self._standing.reload(key)
                continue
            self._standing.fold(key, envelope, sequence)
            self._appended(subject, envelope, stand.revision, sequence)
            return event
        raise Unavailable(f"the credentials of {key} are changed all the time")
