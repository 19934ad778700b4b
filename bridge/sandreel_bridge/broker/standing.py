"""How every session and its credentials stand, as the log says: folded from both subjects, and kept up to date."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from sandreel_core import credential, session
from sandreel_core.bus.loading import load
from sandreel_core.bus.partitions import Partitions
from sandreel_core.bus.port import Bus
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.session import CommandRefused
from sandreel_core.contract.subjects import EventSubject, SessionSubjects
from sandreel_core.credential import Credentials
from sandreel_core.log import Log
from sandreel_core.session import ABSENT, Session

# Commands that were refused before there was a broker. There are none but at an installation's first start of one.
_MAX_REFUSED = 10_000


class Key(NamedTuple):
    org: str
    session: str

    def __str__(self) -> str:
        return f"{self.org}/{self.session}"


class Stand(Struct, frozen=True, kw_only=True):
    """One session; `revision` is the last sequence of its subject `credential`, 0 for none."""

    session: Session = Session()
    credentials: Credentials = Credentials()
    revision: int = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to remember: no session, and nothing that it holds."""
        return self.session.phase in ABSENT and not self.credentials.held


class Standing:
    """The table. It lags behind the log: what is decided on it is appended with the revision that it shows."""

    def __init__(self, bus: Bus, partitions: int, heard: Callable[[Key, Envelope], None] = lambda *_: None) -> None:
        """heard: told of every event of a subject `credential` that comes after the table has caught up."""
        self._bus = bus
        self._partitions = partitions
        self._heard = heard
        self._known: dict[Key, Stand] = {}
        self._refused: OrderedDict[str, None] = OrderedDict()
        self._changed = asyncio.Event()
        self._dirty: set[Key] = set()
        self._reels = Partitions(bus, partitions, ["session", "credential"], self._read, log=Log("broker.standing"))

    def subjects(self, key: Key) -> SessionSubjects:
        return SessionSubjects(key.org, key.session, self._partitions)

    def get(self, key: Key) -> Stand:
        return self._known.get(key, Stand())

    def holding(self) -> list[Key]:
        """The sessions that hold a grant or a lease."""
        return [key for key, stand in self._known.items() if stand.credentials.held]

    def was_refused(self, command_id: str) -> bool:
        """Whether the spawner has answered the command, as it does where there is no broker."""
        return command_id in self._refused

    async def caught_up(self) -> None:
        """Returns when everything that was stored when the table began is in it."""
        await self._reels.caught_up()

    async def changed(self) -> set[Key]:
        """The sessions that have changed since this was asked before; waits for one."""
        await self._changed.wait()
        self._changed.clear()
        taken, self._dirty = self._dirty, set()
        return taken

    async def session(self, key: Key) -> Session:
        """As the log has it now: what the table shows may be some milliseconds old. Raises Unavailable."""
        subject = self.subjects(key).event("session")
        return (await load(self._bus, subject, Session(), session.evolve)).state

    async def reload(self, key: Key) -> Stand:
        """Both subjects from the log, into the table. Raises Unavailable."""
        found = await load(self._bus, self.subjects(key).event("credential"), Credentials(), credential.evolve)
        known = Stand(session=await self.session(key), credentials=found.state, revision=found.revision)
        if known.revision >= self.get(key).revision:
            self._keep(key, known)
        return known

    def fold(self, key: Key, event: Envelope, sequence: int) -> None:
        """An event of the session's subject `credential`, read or just appended. One that is known changes nothing."""
        stand = self.get(key)
        if sequence > stand.revision:
            self._keep(key, replace(stand, credentials=credential.evolve(stand.credentials, event), revision=sequence))

    async def run(self) -> None:
        """Follow every partition, for ever."""
        await self._reels.run()

    def _read(self, where: EventSubject, event: Envelope, sequence: int) -> None:
        key = Key(where.org, where.session)
        if where.aggregate == "credential":
            self.fold(key, event, sequence)
            if self._reels.is_caught_up:
                self._heard(key, event)
            return
        if isinstance(event.data, CommandRefused) and event.data.code == "ROLE_NOT_INSTALLED":
            self._refused[event.data.command_id] = None
            if len(self._refused) > _MAX_REFUSED:
                self._refused.popitem(last=False)
        stand = self.get(key)
        # What it was created with may be long, and no lease depends on it.
        self._keep(key, replace(stand, session=replace(session.evolve(stand.session, event), env={})))

    def _keep(self, key: Key, stand: Stand) -> None:
        if stand.idle and not stand.session.unreadable:
            self._known.pop(key, None)
            # Its subject goes on with the next session of that name: whoever decides then finds the revision by a conflict.
        else:
            self._known[key] = stand
        self._dirty.add(key)
        self._changed.set()
