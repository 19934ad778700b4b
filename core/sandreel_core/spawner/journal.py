"""How the spawner writes: one event at a time on a session's own subject, expecting the revision that was decided on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from sandreel_core.bus.loading import load
from sandreel_core.bus.port import Bus
from sandreel_core.clock import new_id, now
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.message import Envelope, Event
from sandreel_core.contract.subjects import CMD, SessionSubjects
from sandreel_core.errors import Conflict, Unavailable
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.sessions import Record, evolve

MAX_CONFLICTS = 64


class Loaded(NamedTuple):
    """A session as the log had it at a revision, and the commands that its events answer."""

    record: Record
    revision: int
    answered: frozenset[str]


class Journal:
    """The spawner's pen. `source` names this spawner in what it writes."""

    def __init__(
        self,
        bus: Bus,
        *,
        source: str,
        partitions: int,
        appended: Callable[[str, Envelope, int, int], None] = lambda *_: None,
    ) -> None:
        """appended: told of every event: its subject, itself, the revision that it was expected behind, its own."""
        self._bus = bus
        self._source = source
        self._appended = appended
        self._partitions = partitions

    def subjects(self, key: Key) -> SessionSubjects:
        return SessionSubjects(key.org, key.session, self._partitions)

    async def load(self, key: Key) -> Loaded:
        loaded = await load(self._bus, self.subjects(key).event("session"), Record(), evolve)
        return Loaded(loaded.state, loaded.revision, loaded.answers)

    async def _newest(self, key: Key, known: Loaded | None) -> Loaded:
        """As `load`; where what is known is that still, by one question instead of a reading."""
        subjects = self.subjects(key)
        if known is not None:
            last = await self._bus.last(subjects.stream, subjects.event("session"))
            if last is not None and last.sequence == known.revision:
                return known
        return await self.load(key)

    async def commands_last(self) -> int:
        return (await self._bus.state(CMD)).last_sequence

    async def append(
        self, subject: str, event: Event, *, expected: int, n: int | None = None, cause: Envelope | str | None = None
    ) -> int:
        """Store one event; its sequence. `cause`: the command, or its id. Raises Conflict and what the bus raises."""
        attributes: dict[str, str] = {}
        if isinstance(cause, Envelope):
            given: dict[str, str | None] = {"causationid": cause.id, "correlationid": cause.correlationid or cause.id}
            given |= {"actor": cause.actor, "traceparent": cause.traceparent}
            attributes = {name: value for name, value in given.items() if value is not None}
        elif cause is not None:
            attributes = {"causationid": cause, "correlationid": cause}
        envelope = seal(event, id=new_id(), source=self._source, subject=subject, time=now(), n=n, **attributes)
        sequence = await self._bus.append(subject, encode(envelope), expected=expected)
        self._appended(subject, envelope, expected, sequence)
        return sequence

    async def decide(
        self,
        key: Key,
        choose: Callable[[Record, frozenset[str]], Event | Awaitable[Event | None] | None],
        *,
        cause: Envelope | str | None = None,
        known: Loaded | None = None,
    ) -> Event | None:
        """Load, choose one event (None: nothing to say), append it expecting what was loaded; again on a conflict.
        `known`: what the caller has loaded before.

        Returns what was appended. Raises Unavailable after 64 conflicts.
        """
        subject = self.subjects(key).event("session")
        for _ in range(MAX_CONFLICTS):
            record, revision, answered = await self._newest(key, known)
            known = None
            chosen = choose(record, answered)
            event = await chosen if isinstance(chosen, Awaitable) else chosen
            if event is None:
                return None
            try:
                await self.append(subject, event, expected=revision, cause=cause)
            except Conflict:
                continue
            return event
        raise Unavailable(f"session {key} is changed all the time")
