"""Reading the log beyond one exec: as it stood, as it comes, as it is stored, and what became of commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing

from sandreel_core.bus.execs import Snapshot
from sandreel_core.client.lifecycle import Lifecycle
from sandreel_core.client.log import LogItem, read_log
from sandreel_core.client.moment import Moment, nanoseconds, place, time_of
from sandreel_core.client.outcomes import MAX_COMMANDS, CommandInfo, commands_with_outcomes
from sandreel_core.client.standing import StateAt, fold
from sandreel_core.client.tail import UNFINISHED_S, tail
from sandreel_core.client.tailing import Judge, Tailing, TailItem
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.cursors import Cursors
from sandreel_core.errors import Malformed, NotFound
from sandreel_core.ids import check_command_id, check_id, check_org

# What one reader may name (the server compares each message with each of them).
MAX_SESSIONS = 512
Snapshots = Callable[[int], Awaitable[Snapshot | None]]


class History(Lifecycle):
    """Every reading ends with what was stored when it began, unless it goes on live."""

    async def state_at(
        self, org: str, session: str | None = None, *, at: Moment | str | None = None, last_lines: int = 10
    ) -> StateAt:
        """The org's sessions, or one, and their execs as they stood at a cursor or a time (None: now).

        last_lines  how many of the last lines of each stream of each exec (0 to 100)
        Raises NotFound when the log did not know the session by then, Malformed for a cursor of another stream,
        Unavailable.
        """
        moment = Cursors.parse(at) if isinstance(at, str) else at
        if session is None:
            return await fold(self.bus, range(self.partitions), check_org(org), None, moment, last_lines)
        partition = self.subjects(org, session).partition
        state = await fold(self.bus, range(partition, partition + 1), org, session, moment, last_lines)
        if not any(one.state.phase != "none" for one in state.sessions):
            raise NotFound(f"there was no session {session} in org {org} by then")
        return state

    async def tail(
        self,
        org: str | None,
        sessions: Sequence[str] = (),
        *,
        since: Moment | None = None,
        judge: Judge | None = None,
        stream: x.Stream | None = None,
        events: bool = False,
        live: bool = True,
        unfinished_s: float = UNFINISHED_S,
        snapshots: Snapshots | None = None,
        stop: asyncio.Event | None = None,
    ) -> AsyncGenerator[list[TailItem], None]:
        """The lines of many sessions, of an org (no `sessions`), or of all orgs (None): what is stored behind `since`
        (None: from the beginning), then what comes.

        judge      only lines of which it says yes, by their bytes
        events     every other event too
        snapshots  by partition, where execs stand, so that those in their middle need not be read from their beginning
        stop       ends it: what has not ended is given out as it is
        A line whose beginning lies before `since` is marked as such a rest. Batches are never empty. To go on behind an
        item: the newest cursor of each partition, beginning with `places`. Raises Malformed, NotFound, Unavailable.
        """
        filters = self._filters(org, sessions, ">" if events else "exec.*")
        after = {cursor.partition: cursor for cursor in (await self.places(org, sessions, since)).each}
        known: dict[int, Snapshot] = {}
        for partition, cursor in after.items():
            snapshot = await snapshots(partition) if snapshots is not None and cursor.sequence else None
            # One of later than the cursor cannot be used: it says nothing of events between them.
            if snapshot is not None and _is_before(snapshot.cursor, cursor):
                known[partition] = snapshot
        tailing = Tailing(
            after,
            open_lines={key: line for snapshot in known.values() for key, line in snapshot.open.items()},
            judge=judge,
            stream=stream,
            events=events,
            unfinished_s=unfinished_s,
        )
        items = tail(self.bus, filters, tailing, snapshots=known, live=live, stop=stop)
        async with aclosing(items):
            async for batch in items:
                yield batch

    async def places(self, org: str | None, sessions: Sequence[str] = (), since: Moment | None = None) -> Cursors:
        """Where `tail` begins, in each partition that it reads. Raises what it does."""
        cursors = []
        for partition in self._filters(org, sessions, "exec.*"):
            if since is None:
                cursors.append(Cursor(await self._reels.epoch(partition), partition, 0))
            else:
                cursors.append(await place(self.bus, partition, since))
        return Cursors(cursors)

    async def log(
        self,
        org: str | None,
        sessions: Sequence[str] = (),
        *,
        execs: Sequence[str] = (),
        since: Moment | None = None,
        until: Moment | None = None,
        live: bool = False,
    ) -> AsyncGenerator[LogItem, None]:
        """Every message as it is stored, of some sessions, of an org, or of all orgs (None); of some execs alone.

        Raises Malformed, NotFound, Unavailable.
        """
        lasts = [f"exec.{check_id('exec', each)}" for each in execs] or [">"]
        filters: dict[int, list[str]] = {}
        for last in lasts:
            for partition, each in self._filters(org, sessions, last).items():
                filters.setdefault(partition, []).extend(each)
        epochs = {partition: await self._reels.epoch(partition) for partition in filters}
        bounds = [await self._sequences(filters, moment) for moment in (since, until)]
        async with aclosing(read_log(self.bus, filters, epochs, after=bounds[0], until=bounds[1], live=live)) as items:
            async for item in items:
                yield item

    async def commands(
        self,
        org: str,
        session: str | None = None,
        *,
        command_id: str | None = None,
        since: Moment | None = None,
        limit: int = 100,
    ) -> list[CommandInfo]:
        """The newest commands to an org's sessions, or to one, oldest first, each with its outcome.

        since  CMD keeps commands for seven days; None is all of them
        limit  1 to 10,000
        Raises Malformed, Unavailable.
        """
        if not 1 <= limit <= MAX_COMMANDS:
            raise Malformed(f"limit {limit} is not 1 to {MAX_COMMANDS}")
        check_org(org)
        if session is not None:
            check_id("session", session)
        if command_id is not None:
            check_command_id(command_id)
        since_ns = 0
        if isinstance(since, Cursor | Cursors):
            since_ns = await time_of(self.bus, since)
        elif since is not None:
            since_ns = nanoseconds(since)
        return await commands_with_outcomes(
            self.bus,
            self._reels,
            self.partitions,
            org,
            session,
            command_id=command_id,
            since_ns=since_ns,
            limit=limit,
        )

    async def _sequences(self, partitions: Iterable[int], moment: Moment | None) -> dict[int, int]:
        """Of each partition at a moment; none for no moment."""
        if moment is None:
            return {}
        return {partition: (await place(self.bus, partition, moment)).sequence for partition in partitions}

    def _filters(self, org: str | None, sessions: Sequence[str], last: str) -> Mapping[int, list[str]]:
        """Subjects by partition."""
        if org is not None:
            check_org(org)
        if not sessions:
            return {partition: [f"evt.{partition}.{org or '*'}.*.{last}"] for partition in range(self.partitions)}
        if len(sessions) > MAX_SESSIONS:
            raise Malformed(f"{len(sessions)} sessions are named; the limit is {MAX_SESSIONS}: name the org alone")
        if org is None:
            raise Malformed("sessions belong to an org: name it")
        filters: dict[int, list[str]] = {}
        for session in dict.fromkeys(sessions):
            subjects = self.subjects(org, session)
            filters.setdefault(subjects.partition, []).append(f"evt.{subjects.partition}.{org}.{session}.{last}")
        return filters


def _is_before(cursor: Cursor, other: Cursor) -> bool:
    return cursor.epoch == other.epoch and cursor.sequence <= other.sequence
