"""What the log holds of an exec: who accepted it, how far its ordinals go without a hole, which commands it answers."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus
from sandreel_core.contract.bootstrap import ExecHead
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.exec import Accepted, Exited, Gap, Lost, writer_of
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Malformed
from sandreel_core.log import Log
from sandreel_core.ordinals import Ordinals

MAX_KEPT = 1024
MAX_READERS = 8


@dataclass(slots=True)
class Head:
    """`revision`: the sequence of the last event on the exec's subject, accepted or not."""

    ordinals: Ordinals = field(default_factory=Ordinals)
    revision: int = 0
    accepted_by: str | None = None
    started_by: str | None = None
    answered: set[str] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def public(self) -> ExecHead:
        ordinals = self.ordinals
        return ExecHead(
            boot_id=self.accepted_by, started_by=self.started_by, last_n=ordinals.last, ended=ordinals.ended
        )


class Heads:
    """Reads execs, and keeps the last 1024 heads so that asking again reads only what is new."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._kept: OrderedDict[str, Head] = OrderedDict()
        self._readers = asyncio.Semaphore(MAX_READERS)
        self._log = Log("spawner.heads")

    async def read(self, subjects: SessionSubjects, exec_id: str) -> Head:
        """The head as the log has it now."""
        subject = subjects.exec(exec_id)
        head = self._kept.pop(subject, None) or Head()
        self._kept[subject] = head
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        async with head.lock, self._readers:
            await self._advance(subjects.stream, subject, head)
        return head

    async def _advance(self, stream: str, subject: str, head: Head) -> None:
        async with kept(self._bus, stream, [subject], after=head.revision) as messages:
            async for stored in messages:
                head.revision = stored.sequence
                self._fold(subject, stored.body, head)

    def _fold(self, subject: str, body: bytes, head: Head) -> None:
        try:
            event = decode_event(subject, body)
        except Malformed as error:
            self._log.warning("an event of an exec was skipped", subject=subject, problem=str(error))
            return
        if not head.ordinals.accept(event):
            return
        if event.causationid:
            head.answered.add(event.causationid)
        if isinstance(event.data, Accepted):
            head.accepted_by = event.data.boot_id
            head.started_by = event.causationid
        elif isinstance(event.data, Gap) and event.data.from_n == 1:
            # The log was restored from before the exec was accepted: whoever accepted it says so, and goes on.
            head.accepted_by = writer_of(event.source)
            head.started_by = event.causationid

    async def open(self, subjects: SessionSubjects) -> list[str]:
        """Execs of the session whose last event is no end, by id. One look at each: not exact, but never too few."""
        prefix = subjects.event("exec", "x")[:-1]
        found = await self._bus.subjects(subjects.stream, f"{prefix}*")
        ids: list[str] = []
        for subject in sorted(found):
            last = await self._bus.last(subjects.stream, subject)
            if last is not None and not _is_end(subject, last.body):
                ids.append(subject.removeprefix(prefix))
        return ids


def _is_end(subject: str, body: bytes) -> bool:
    try:
        return isinstance(decode_event(subject, body).data, Exited | Lost)
    except Malformed:
        return False
