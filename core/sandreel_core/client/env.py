"""The variables of a session: what its execs get beside their own. Public by definition, since commands are (law 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sandreel_core.bus.kept import kept
from sandreel_core.client.asking import Asking
from sandreel_core.client.commands import Outcome
from sandreel_core.client.reels import Reels
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.session import Requested
from sandreel_core.contract.workspace import EnvPatched, PatchEnv
from sandreel_core.environment import evolve
from sandreel_core.errors import Malformed, NotFound


@dataclass(frozen=True, slots=True)
class Variables:
    """`values` as the log tells them; `denied`: names that somebody tried to set in vain, and that are not set now;
    `cursor` that of the newest event that counts."""

    values: Mapping[str, str]
    denied: tuple[str, ...]
    cursor: Cursor


@dataclass(slots=True)
class _Fold:
    values: dict[str, str] = field(default_factory=dict)
    denied: dict[str, None] = field(default_factory=dict)
    sequence: int = 0

    def take(self, sequence: int, event: object) -> None:
        if isinstance(event, Requested):
            self.denied.clear()
        elif isinstance(event, EnvPatched):
            self.denied |= dict.fromkeys(event.denied)
        else:
            return
        self.values = evolve(self.values, event)
        self.sequence = sequence


class Environment:
    """Made by `Client.env`."""

    def __init__(self, client: Asking, reels: Reels, org: str, session: str) -> None:
        self._client = client
        self._reels = reels
        self._org = org
        self._session = session
        self._subjects = client.subjects(org, session)

    async def read(self) -> Variables:
        """What an exec that starts now gets; from the log, so also of a session that is stopped.

        Raises NotFound when the log knows no such session, Unavailable.
        """
        fold = _Fold()
        filters = [self._subjects.event("session"), self._subjects.event("workspace")]
        async with kept(self._client.bus, self._subjects.stream, filters) as messages:
            async for stored in messages:
                try:
                    fold.take(stored.sequence, decode_event(stored.subject, stored.body).data)
                except Malformed:
                    continue
        if not fold.sequence:
            raise NotFound(f"there is no session {self._session} in org {self._org}")
        cursor = await self._reels.cursor(self._subjects.partition, fold.sequence)
        return Variables(fold.values, tuple(name for name in fold.denied if name not in fold.values), cursor)

    async def patch(self, set: Mapping[str, str] | None = None, unset: Sequence[str] = ()) -> Outcome:
        """Set and unset variables for every exec that starts later. The outcome's data names what was denied.

        Raises Refused (BAD_REQUEST, SESSION_NOT_READY, …), Unavailable.
        """
        return await self._client.send(self._org, self._session, PatchEnv(set=dict(set or {}), unset=list(unset)))
