"""A reader's place in every exec that it has met: which of what is stored it takes, and what it learns to be gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import Struct

from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.exec import Exited, Gap, Lost, Output
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.subjects import parse_event_subject
from sandreel_core.errors import Malformed
from sandreel_core.log import Log
from sandreel_core.ordinals import Ordinals

# A reader of many remembers the place of this many execs; of more, the longest ended are looked up again
# should they ever be met again. About 30 MB.
MAX_REMEMBERED = 65_536


class Recorded(Struct, frozen=True, gc=False):
    """One event that was taken. `time_ns` is the server's timestamp, `size` the length of the stored body."""

    event: Envelope
    cursor: Cursor
    time_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class Gone:
    """The stream has these events of an exec no more (they were archived). `from_n` is None when how far
    the reader had come is not known either."""

    subject: str
    from_n: int | None
    to_n: int


OnSkipped = Callable[[Stored, Malformed], None]
# Called with each event of an exec that lies before the cursor and was read to know the place there.
OnPassed = Callable[[Envelope], None]


class Places:
    """The reader's place in every exec that it has met."""

    def __init__(
        self,
        bus: Bus,
        stream: str,
        partition: int,
        epoch: str,
        on_skipped: OnSkipped | None,
        on_passed: OnPassed | None = None,
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._partition = partition
        self._epoch = epoch
        self._on_skipped = on_skipped
        self._on_passed = on_passed
        self._ordinals: dict[str, Ordinals] = {}
        self._log = Log("execs")
        # Subjects whose event at the cursor is gone, so that it is not known which ordinal comes next.
        self.unknown: set[str] = set()

    def remember(self, subject: str, ordinals: Ordinals) -> None:
        self._ordinals[subject] = ordinals
        if len(self._ordinals) > MAX_REMEMBERED:
            ended = [subject for subject, kept in self._ordinals.items() if kept.ended]
            for old in ended[: max(1, len(ended) // 2)]:
                del self._ordinals[old]

    def has_ended(self, subject: str) -> bool:
        ordinals = self._ordinals.get(subject)
        return ordinals is not None and ordinals.ended

    def at(self, stored: Stored, subject: str) -> Ordinals | None:
        """The place of a reader whose last event this was; None when it is no event of the subject."""
        event = self._decode(stored) if stored.subject == subject else None
        if event is None or event.n is None:
            return None
        return Ordinals(event.n, isinstance(event.data, Exited | Lost))

    async def take_all(self, messages: Sequence[Stored], silent_until: int) -> list[Recorded | Gone]:
        """As `take`, one after the other. Nearly all are the next block of output of an exec that is known: those go
        a short way, which is most of the speed of a reader."""
        items: list[Recorded | Gone] = []
        known, epoch, partition = self._ordinals, self._epoch, self._partition
        for stored in messages:
            event = self._decode(stored)
            if event is None:
                continue
            ordinals = known.get(stored.subject)
            if ordinals is None or ordinals.ended or type(event.data) is not Output or event.n != ordinals.last + 1:
                items += await self._take(stored, event, silent_until)
                continue
            ordinals.last += 1
            if stored.sequence > silent_until:
                cursor = Cursor(epoch, partition, stored.sequence)
                items.append(Recorded(event, cursor, stored.time_ns, len(stored.body)))
            elif self._on_passed is not None:
                self._on_passed(event)
        return items

    async def take(self, stored: Stored, silent_until: int) -> list[Recorded | Gone]:
        """What to hand out for one stored message: nothing, the event, or what is gone and the event."""
        event = self._decode(stored)
        return [] if event is None else await self._take(stored, event, silent_until)

    async def _take(self, stored: Stored, event: Envelope, silent_until: int) -> list[Recorded | Gone]:
        items: list[Recorded | Gone] = []
        loud = stored.sequence > silent_until
        if event.n is not None or parse_event_subject(stored.subject).aggregate == "exec":
            ordinals = self._ordinals.get(stored.subject)
            if ordinals is None:
                ordinals, gone = await self._first_met(stored, event)
                self.remember(stored.subject, ordinals)
                if gone is not None and loud:
                    items.append(gone)
            if self._is_cut_off(ordinals, event):
                if loud:
                    items.append(Gone(stored.subject, ordinals.last + 1, (event.n or 1) - 1))
                ordinals.last = (event.n or 1) - 1
            if not ordinals.accept(event):
                return items
            if not loud and self._on_passed is not None:
                self._on_passed(event)
        if loud:
            cursor = Cursor(self._epoch, self._partition, stored.sequence)
            items.append(Recorded(event, cursor, stored.time_ns, len(stored.body)))
        return items

    def _is_cut_off(self, ordinals: Ordinals, event: Envelope) -> bool:
        """The end is published alone, after all before it is stored. A reader that meets it and lacks something
        was overtaken by the archive: what it lacks does not come again."""
        ends = isinstance(event.data, Exited | Lost) and not ordinals.ended
        return ends and event.n is not None and event.n > ordinals.last + 1

    async def _first_met(self, stored: Stored, event: Envelope) -> tuple[Ordinals, Gone | None]:
        """The place in an exec just before its event that is met first."""
        subject, n = stored.subject, event.n or 1
        if n == 1 or (isinstance(event.data, Gap) and event.data.from_n == 1):
            return Ordinals(), None
        if subject in self.unknown:
            self.unknown.discard(subject)
            return Ordinals(n - 1), Gone(subject, None, n - 1)
        before = await self._before(stored)
        return (before, None) if before is not None else (Ordinals(n - 1), Gone(subject, 1, n - 1))

    async def _before(self, stored: Stored) -> Ordinals | None:
        """The place by what the stream holds of the exec before this message; None when that is nothing."""
        ordinals: Ordinals | None = None
        async with kept(self._bus, self._stream, [stored.subject]) as messages:
            async for earlier in messages:
                if earlier.sequence >= stored.sequence:
                    return ordinals
                before = self._decode(earlier)
                if before is None or before.n is None:
                    continue
                if ordinals is None:
                    cut = before.n > 1 and not isinstance(before.data, Gap)
                    ordinals = Ordinals(before.n - 1 if cut else 0)
                if ordinals.accept(before) and self._on_passed is not None:
                    self._on_passed(before)
        return ordinals

    def _decode(self, stored: Stored) -> Envelope | None:
        try:
            return decode_event(stored.subject, stored.body)
        except Malformed as error:
            self._log.warning("a stored body is no event", subject=stored.subject, sequence=stored.sequence)
            if self._on_skipped is not None:
                self._on_skipped(stored, error)
            return None
