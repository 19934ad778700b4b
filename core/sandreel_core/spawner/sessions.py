"""All sessions, as the log says: folded from the session subjects of every partition, and kept up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from sandreel_core import session as machine
from sandreel_core.bus.partitions import Partitions
from sandreel_core.bus.port import Bus
from sandreel_core.bus.wake import Signal
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.session import Failed, Stopped
from sandreel_core.contract.subjects import EventSubject, parse_event_subject
from sandreel_core.log import Log
from sandreel_core.session import RUNNING, Session
from sandreel_core.spawner.backend import Cause, Key

# Commands older than CMD's age need no owner any more; no session boots so often within it on purpose.
MAX_PAST_BOOTS = 256


class PastBoot(Struct, frozen=True, kw_only=True):
    """A boot that the log says is over. Commands to runnerd with `after` < sequence ≤ `until` were its own."""

    boot_id: str
    after: int
    until: int
    cause: Cause


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session with the boots that it had, the earliest first."""

    session: Session = Session()
    past: tuple[PastBoot, ...] = ()

    def owned(self, sequence: int) -> bool:
        """Whether a command with this sequence in CMD is, or was, some boot's: not the spawner's to refuse."""
        return self.session.owns(sequence) or any(boot.after < sequence <= boot.until for boot in self.past)


def evolve(record: Record, event: Envelope) -> Record:
    """Fold one event of the session's own subject. Never raises."""
    before = record.session
    after = machine.evolve(before, event)
    past = record.past
    if before.commands_after is not None and after.commands_after is None and after.commands_until is not None:
        boot = PastBoot(
            boot_id=before.boot_id, after=before.commands_after, until=after.commands_until, cause=_cause(event)
        )
        past = (*past[-(MAX_PAST_BOOTS - 1) :], boot)
    return replace(record, session=after, past=past)


def _cause(event: Envelope) -> Cause:
    data = event.data
    if isinstance(data, Stopped):
        match data.reason:
            case "oom" | "killed" | "engine" | "node":
                return data.reason
    if isinstance(data, Failed):
        return "killed"
    return "exited"


@dataclass(frozen=True, slots=True)
class Known:
    """A session and the sequence of its last event."""

    record: Record
    revision: int

    @property
    def session(self) -> Session:
        return self.record.session


class Sessions:
    """The table. It lags behind the log: what is decided on it is appended with the revision that it shows."""

    def __init__(self, bus: Bus, partitions: int) -> None:
        self._known: dict[Key, Known] = {}
        self._running: set[Key] = set()
        self._changed = Signal()
        self._dirty: set[Key] = set()
        self._reels = Partitions(
            *(bus, partitions, ["session"], self._read), folded=self._changed.fire, log=Log("spawner.sessions")
        )

    def snapshot(self) -> dict[Key, Known]:
        return dict(self._known)

    def running(self) -> dict[Key, Session]:
        """Those that are ready or degraded: few, where all that there ever were are many."""
        return {key: self._known[key].session for key in self._running}

    def get(self, key: Key) -> Known:
        return self._known.get(key, Known(Record(), 0))

    async def caught_up(self) -> None:
        """Returns when everything that was stored when the table began is in it."""
        await self._reels.caught_up()

    async def changed(self) -> None:
        """Returns at the next change of any session."""
        await self._changed.wait()

    def take_changed(self) -> set[Key]:
        """The sessions that have changed since this was asked before."""
        taken, self._dirty = self._dirty, set()
        return taken

    async def until(self, key: Key, condition: Callable[[Session], bool], timeout_s: float) -> bool:
        """Whether the session came to fulfil the condition within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition(self.get(key).session):
                    await self.changed()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Follow every partition, for ever."""
        await self._reels.run()

    def learn(self, subject: str, event: Envelope, expected: int, sequence: int) -> None:
        """We have appended this ourselves. If that was right behind what is known, it is known now: who looks at the session
        again at once must not find it as it was before and do the same once more."""
        where = parse_event_subject(subject)
        key = Key(where.org, where.session)
        if where.aggregate == "session" and self.get(key).revision == expected:
            self._fold(key, event, sequence)
            self._changed.fire()

    def _read(self, where: EventSubject, event: Envelope, sequence: int) -> None:
        key = Key(where.org, where.session)
        if sequence > self.get(key).revision:
            self._fold(key, event, sequence)

    def _fold(self, key: Key, event: Envelope, sequence: int) -> None:
        record = evolve(self.get(key).record, event)
        if record.session.phase == "destroyed":
            record = replace(record, session=replace(record.session, env={}))  # it stays in the table for ever
        self._known[key] = Known(record, sequence)
        (self._running.add if record.session.phase in RUNNING else self._running.discard)(key)
        self._dirty.add(key)
