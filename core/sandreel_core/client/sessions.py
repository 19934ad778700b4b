"""What the log says of sessions and of their execs, folded now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import dataclass

from sandreel_core import exec as execs
from sandreel_core import session as sessions
from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.client.items import Ended
from sandreel_core.client.reels import Reels
from sandreel_core.client.viewer import view
from sandreel_core.contract import exec as x
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.subjects import SessionSubjects, parse_event_subject, reel, stream_of
from sandreel_core.errors import Malformed, NotFound, Refused, Unavailable
from sandreel_core.ids import check_org

# Heads of an org's execs are asked for one by one, so many at a time.
_AT_ONCE = 16
# Sequences of the stream, not only of the exec: twenty times what an exec has under way at once (decision 0006).
_TAIL = 256


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as its log tells it. `state` is the fold; `cursor` that of the last event folded."""

    org: str
    session: str
    state: sessions.Session
    cursor: Cursor

    @property
    def phase(self) -> sessions.Phase:
        return self.state.phase

    @property
    def ready(self) -> bool:
        return self.state.phase in sessions.RUNNING


@dataclass(frozen=True, slots=True)
class ExecInfo:
    """An exec by its newest event. `ended` is how it ended, None while it goes on; `cursor` that of its newest event."""

    exec_id: str
    cursor: Cursor
    ended: x.Exited | x.Lost | None

    @property
    def phase(self) -> execs.Phase:
        if self.ended is None:
            return "running"
        return "exited" if isinstance(self.ended, x.Exited) else "lost"


class Sessions:
    """Reads sessions."""

    def __init__(self, bus: Bus, reels: Reels, partitions: int) -> None:
        self._bus = bus
        self._reels = reels
        self._partitions = partitions

    async def one(self, subjects: SessionSubjects) -> SessionInfo:
        """Raises NotFound when the log knows no session of this id."""
        found = await self._fold(subjects.partition, subjects.event("session"))
        if not found:
            raise NotFound(f"there is no session {subjects.session} in org {subjects.org}")
        return found[0]

    async def all(self, org: str | None) -> list[SessionInfo]:
        """Every session of the org (None: of every org) that the log knows, also destroyed ones, by id."""
        tokens = "*" if org is None else check_org(org)
        found: list[SessionInfo] = []
        for partition in range(self._partitions):
            found += await self._fold(partition, f"evt.{partition}.{tokens}.*.session")
        return sorted(found, key=lambda info: info.session)

    async def _fold(self, partition: int, filter: str) -> list[SessionInfo]:
        states: dict[str, tuple[sessions.Session, int]] = {}
        async with kept(self._bus, reel(partition), [filter]) as messages:
            async for stored in messages:
                state, _ = states.get(stored.subject, (sessions.Session(), 0))
                states[stored.subject] = (_evolve(state, stored), stored.sequence)
        epoch = await self._reels.epoch(partition)
        return [
            SessionInfo(where.org, where.session, state, Cursor(epoch, partition, sequence))
            for subject, (state, sequence) in states.items()
            if (where := parse_event_subject(subject)) and state.phase != "none"
        ]

    async def follow(self, subjects: SessionSubjects) -> AsyncGenerator[SessionInfo, None]:
        """The session after each of its events, from the first one on, live. Close it."""
        epoch = await self._reels.epoch(subjects.partition)
        state = sessions.Session()
        async with aclosing(self._bus.follow(subjects.stream, [subjects.event("session")])) as items:
            async for batch in items:
                for stored in batch if isinstance(batch, list) else ():
                    state = _evolve(state, stored)
                    cursor = Cursor(epoch, subjects.partition, stored.sequence)
                    yield SessionInfo(subjects.org, subjects.session, state, cursor)

    async def until(
        self, subjects: SessionSubjects, phases: Collection[str], *, since: Cursor, timeout_s: float
    ) -> SessionInfo:
        """The session, as soon as it is in one of `phases` at or after the cursor `since`.

        Raises Refused with the failure's code when its boot failed, SESSION_<PHASE> when it went where
        none of them can follow from, Unavailable when that took longer than `timeout_s`.
        """
        info: SessionInfo | None = None
        try:
            async with asyncio.timeout(timeout_s), aclosing(self.follow(subjects)) as states:
                async for info in states:
                    if info.cursor.sequence < since.sequence:
                        continue
                    if info.phase in phases:
                        return info
                    _check(info, phases)
        except TimeoutError as error:
            phase = info.phase if info else "unknown"
            why = f" ({info.state.degraded_reason})" if info and info.state.degraded_reason else ""
            raise Unavailable(
                f"session {subjects.session} is not {' or '.join(phases)} after {timeout_s:g} s, but {phase}{why}"
            ) from error
        raise Unavailable(f"the log of session {subjects.session} ended")

    async def execs(self, subjects: SessionSubjects) -> list[ExecInfo]:
        """The session's execs in the order in which they were last heard of."""
        found = await self._execs(subjects, f"{subjects.event('exec', '0')[:-1]}*")
        return sorted(found, key=lambda info: info.cursor.sequence)

    async def exec(self, subjects: SessionSubjects, exec_id: str) -> ExecInfo:
        """Raises NotFound when nobody ever accepted such an exec."""
        found = await self._execs(subjects, subjects.exec(exec_id))
        if not found:
            raise _no_exec(subjects, exec_id)
        return found[0]

    async def require_exec(self, subjects: SessionSubjects, exec_id: str) -> None:
        """Raises NotFound when nobody ever accepted such an exec; nothing of it is read."""
        if await self._bus.last(subjects.stream, subjects.exec(exec_id)) is None:
            raise _no_exec(subjects, exec_id)

    async def _execs(self, subjects: SessionSubjects, filter: str) -> list[ExecInfo]:
        counts = await self._bus.subjects(subjects.stream, filter)
        limit = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            lasts = [group.create_task(self._last(subjects, subject, limit)) for subject in counts]
        newest = [last for task in lasts if (last := task.result()) is not None]
        # After them: what the boot that is alive now has accepted, nobody had closed by then.
        alive = await self._boot(subjects) if any(end_of(last, counts[last.subject]) is None for last in newest) else ""
        async with asyncio.TaskGroup() as group:
            told = [
                group.create_task(self._exec(subjects, last, counts[last.subject], alive, limit)) for last in newest
            ]
        return [task.result() for task in told]

    async def _last(self, subjects: SessionSubjects, subject: str, limit: asyncio.Semaphore) -> Stored | None:
        async with limit:
            return await self._bus.last(subjects.stream, subject)

    async def _exec(
        self, subjects: SessionSubjects, last: Stored, count: int, alive: str, limit: asyncio.Semaphore
    ) -> ExecInfo:
        exec_id = parse_event_subject(last.subject).key
        async with limit:
            cursor = await self._reels.cursor(subjects.partition, last.sequence)
            end = end_of(last, count)
            if end is None:
                written_by_it = bool(alive) and _source(last) == f"/runnerd/{subjects.org}/{subjects.session}/{alive}"
                end = await (self._tail(last) if written_by_it else self._read(subjects, exec_id))
        return ExecInfo(exec_id, cursor, end)

    async def _boot(self, subjects: SessionSubjects) -> str:
        """The boot that the log says is alive, "" for none."""
        found = await self._fold(subjects.partition, subjects.event("session"))
        return found[0].state.boot_id if found and found[0].state.commands_after is not None else ""

    async def _tail(self, last: Stored) -> x.Exited | x.Lost | None:
        """The end of an exec whose boot is alive: nobody but that boot has written it, so at most pieces under way when
        the end was sent, repeats, stand behind it."""
        after = max(0, last.sequence - _TAIL)
        async with kept(self._bus, stream_of(last.subject), [last.subject], after=after) as messages:
            async for stored in messages:
                if (end := end_of(stored)) is not None:
                    return end
        return None

    async def _read(self, subjects: SessionSubjects, exec_id: str) -> x.Exited | x.Lost | None:
        """The end by all events of an exec: something late may stand behind it."""
        async with aclosing(view(self._bus, self._reels, subjects, exec_id, live=False)) as items:
            async for item in items:
                if isinstance(item, Ended):
                    return item.exited or item.lost
        return None


def _no_exec(subjects: SessionSubjects, exec_id: str) -> NotFound:
    return NotFound(f"session {subjects.session} has no exec {exec_id}")


def _check(info: SessionInfo, wanted: Collection[str]) -> None:
    """Raises Refused when the wanted phases are out of reach without another command."""
    state = info.state
    if state.phase == "failed" and state.failure is not None and "failed" not in wanted:
        raise Refused(state.failure.code, f"the session failed at {state.failure.stage}: {state.failure.message}")
    boots = bool(set(wanted) & set(sessions.RUNNING))
    if boots and state.phase in ("stopping", "stopped", "destroying", "destroyed"):
        raise Refused(f"SESSION_{state.phase.upper()}", f"the session is {state.phase}; it will not get ready")
    if "stopped" in wanted and state.phase in ("destroying", "destroyed"):
        raise Refused(f"SESSION_{state.phase.upper()}", f"the session is {state.phase}; nothing of it is kept")


def _evolve(state: sessions.Session, stored: Stored) -> sessions.Session:
    event = _decode(stored)
    return state if event is None else sessions.evolve(state, event)


def end_of(stored: Stored, count: int | None = None) -> x.Exited | x.Lost | None:
    """The end that this message tells of. `count`: of the exec's messages, of which it is the newest; then only where it
    is sure to be the one that counts (law 2): an archived exec's tombstone, or the n-th of n messages. Others hold
    repeats, and the `exited` of a boot that was closed as lost may be one."""
    event = _decode(stored)
    if event is None or not isinstance(event.data, x.Exited | x.Lost):
        return None
    return event.data if count is None or count in (1, event.n) else None


def _source(stored: Stored) -> str:
    event = _decode(stored)
    return event.source if event else ""


def _decode(stored: Stored) -> Envelope | None:
    try:
        return decode_event(stored.subject, stored.body)
    except Malformed:
        return None
