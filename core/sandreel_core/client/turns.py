"""Agent turns: started, found again, listed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Literal

from sandreel_core import clock
from sandreel_core.bus.port import Stored
from sandreel_core.client.files import Files
from sandreel_core.client.history import History
from sandreel_core.client.owners import session_of
from sandreel_core.client.prompt import beginning, hand_in
from sandreel_core.client.recorder import Recorder
from sandreel_core.client.turn_handle import TurnHandle
from sandreel_core.client.turn_info import TurnInfo
from sandreel_core.client.turn_reading import Place, begin_of, data_of, first_of, newest_of
from sandreel_core.client.turn_standing import standing
from sandreel_core.client.turn_usage import costs
from sandreel_core.contract import turn as t
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Owner
from sandreel_core.contract.session import Profile
from sandreel_core.contract.subjects import parse_event_subject, reel, stream_of
from sandreel_core.errors import Malformed, NotFound, Refused
from sandreel_core.ids import check_id, check_org
from sandreel_core.session import RUNNING

# Each turn of a list costs two questions, so many at a time.
_AT_ONCE = 16
# Turns whose newest event is looked at to find the newest: 0.3 ms each on a machine with two cores.
MAX_TURNS = 10_000


class Turns(History):
    """What a client does with turns."""

    async def turn(
        self,
        org: str,
        session: str | None = None,
        *,
        agent: str,
        prompt: str,
        owner: Owner | None = None,
        model: str | None = None,
        conversation_id: str | None = None,
        permission_mode: Literal["plan", "execute"] = "execute",
        max_turns: int = 40,
        system_prompt_append: str | None = None,
        grants: Sequence[str] = (),
        profile: Profile = "agent",
        workdir: str | None = None,
        attachments: Sequence[t.Attachment] = (),
        budget_micro_usd: int | None = None,
        turn: str | None = None,
        command_id: str | None = None,
        correlation_id: str | None = None,
        deadline: datetime | None = None,
        answer_timeout_s: float | None = None,
    ) -> TurnHandle:
        """Let an agent work on a prompt; returns when that is recorded, which is before its sandbox is there.

        session    which one; else the owner's own (`owners.session_of`). It is made, resumed or made again as needed
        prompt     up to 4 MiB of UTF-8; one of more than 64 KiB is handed to a bridge first
        owner      whose the session is where it has to be made
        turn       its id, used once per session; made up unless given
        The others are those of `contract.turn.StartTurn`. Sent again with the same `command_id` and `turn` it starts once.
        Raises Malformed when neither a session nor an owner is given, and for a longer prompt; Refused: BAD_REQUEST, DUPLICATE_TURN, …
        """
        name = turn or clock.new_token("t-")
        where = session if session is not None else _own_session(org, owner)
        digest = None
        if len(whole := prompt.encode(errors="replace")) > t.MAX_PROMPT_BYTES:
            within_s = answer_timeout_s or self.answer_timeout_s
            digest = await hand_in(self.bus, self.subjects(org, where), whole, within_s=within_s)
            prompt = beginning(whole)
        command = t.StartTurn(
            turn=name,
            agent=agent,
            prompt=prompt,
            prompt_object=digest,
            model=model,
            conversation_id=conversation_id,
            permission_mode=permission_mode,
            max_turns=max_turns,
            system_prompt_append=system_prompt_append,
            grants=list(grants),
            owner=owner,
            profile=profile,
            workdir=workdir,
            attachments=list(attachments),
            budget_micro_usd=budget_micro_usd,
        )
        outcome = await self.send(
            org,
            where,
            command,
            command_id=command_id,
            correlation_id=correlation_id,
            deadline=deadline,
            answer_timeout_s=answer_timeout_s,
        )
        return self._handle(org, where, name, agent, outcome.cursor)

    async def open_turn(self, org: str, turn: str, session: str | None = None, *, within_s: float = 0.0) -> TurnHandle:
        """A handle on a turn that is there already, running or ended. Without `session` it is looked for in all of the
        org's. Raises NotFound when nobody ever asked for such a turn, Malformed when several sessions have one.

        within_s   with a `session`, wait so long for somebody to ask for it: a bridge does so for what follows from another turn
        """
        where = session if session is not None else await self._session_with(org, turn)
        subjects = self.subjects(org, where)
        first = await first_of(self.bus, subjects.stream, subjects.event("turn", turn))
        if first is None and within_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    first = await begin_of(self.bus, subjects.stream, subjects.event("turn", turn))
        if first is None:
            raise NotFound(f"session {where} has no turn {turn}")
        requested = data_of(first)
        agent = requested.agent if isinstance(requested, t.TurnRequested) else ""
        return self._handle(org, where, turn, agent, await self._reels.cursor(subjects.partition, first.sequence))

    async def turns(self, org: str, session: str | None = None, *, limit: int = 20) -> list[TurnInfo]:
        """The newest turns of an org's sessions, or of one, by when they were last heard of, oldest first.

        limit   1 to 10,000. Raises Malformed, also for an org of more turns than that: name the session.
        """
        if not 1 <= limit <= MAX_TURNS:
            raise Malformed(f"limit {limit} is not 1 to {MAX_TURNS}")
        subjects = await self._turn_subjects(org, session or "*", "*")
        if len(subjects) > MAX_TURNS:
            raise Malformed(f"org {org} has {len(subjects)} turns; at most {MAX_TURNS} are looked at: name a session")
        limited = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._last(subject, limited)) for subject in subjects]
        found = [last for task in asked if (last := task.result()) is not None]
        lasts = sorted(found, key=lambda stored: stored.time_ns)[-limit:]
        async with asyncio.TaskGroup() as group:
            told = [group.create_task(self._info(last, limited)) for last in lasts]
        return [task.result() for task in told]

    async def costs(self, found: Sequence[TurnInfo]) -> dict[tuple[str, str], int | None]:
        """What the gateway has counted of each by now, in micro-USD, by (session, turn); None: the price of a call is not known. One without
        a call is not in it. Reads each session's log of usage from its first of these turns on."""
        told: dict[tuple[str, str], int | None] = {}
        for org, session in dict.fromkeys((info.org, info.session) for info in found):
            own = [info for info in found if (info.org, info.session) == (org, session)]
            after = min(info.began.sequence for info in own)
            each = await costs(self.bus, self.subjects(org, session), [info.turn for info in own], after=after)
            told |= {(session, turn): cost for turn, cost in each.items()}
        return told

    async def attach(
        self,
        org: str,
        session: str | None,
        name: str,
        data: bytes | AsyncIterable[bytes],
        *,
        owner: Owner | None = None,
        profile: Profile = "agent",
    ) -> t.Attachment:
        """Put a file into the session's `uploads/`, for a turn to come, and make or resume the session if that needs it.

        name   one or more path segments below `uploads/`
        data   up to `MAX_ATTACHMENT_BYTES`
        Raises what `create_session`, `resume` and `Files.write` do; Malformed for another name and for more, of which nothing is
        stored then.
        """
        if name.startswith("/") or {"", ".", ".."} & set(name.split("/")) or "\0" in name:
            raise Malformed(f"attachment {name[:200]!r} is not one or more names with a / between them")
        where = session if session is not None else _own_session(org, owner)
        await self._make_ready(org, where, owner, profile)
        path = f"uploads/{name}"
        recorder = Recorder(self.bus, self._sessions, self.subjects(org, where))
        files = Files(recorder, actor=self.actor, answer_timeout_s=self.answer_timeout_s)
        return t.Attachment(path=path, sha256=(await files.write(path, _bounded(name, data))).sha256)

    async def _make_ready(self, org: str, session: str, owner: Owner | None, profile: Profile) -> None:
        try:
            phase = (await self.session(org, session)).phase
        except NotFound:
            phase = "none"
        if phase in RUNNING:
            return
        if phase in ("stopped", "failed"):
            await self.resume(org, session)
            return
        try:
            await self.create_session(org, session, owner=owner, profile=profile)
        except Refused as refused:
            if refused.code != "SESSION_EXISTS":
                raise
            # Somebody else is making it.
            since = (await self.session(org, session)).cursor
            await self._sessions.until(
                self.subjects(org, session), RUNNING, since=since, timeout_s=self.answer_timeout_s
            )

    def _handle(self, org: str, session: str, turn: str, agent: str, cursor: Cursor) -> TurnHandle:
        place = Place(self.subjects(org, session), turn, agent, cursor.sequence)
        return TurnHandle(self.bus, self._commands, self._reels, place, cursor, answer_timeout_s=self.answer_timeout_s)

    async def _session_with(self, org: str, turn: str) -> str:
        subjects = await self._turn_subjects(org, "*", turn)
        # A start that was refused leaves a subject without a turn.
        firsts = [await first_of(self.bus, stream_of(each), each) for each in subjects]
        found = [parse_event_subject(first.subject).session for first in firsts if first is not None]
        if not found:
            raise NotFound(f"there is no turn {turn} in org {org}")
        if len(found) > 1:
            raise Malformed(f"turn {turn} is in several sessions: name one of {', '.join(sorted(found)[:5])}")
        return found[0]

    async def _turn_subjects(self, org: str, session: str, turn: str) -> list[str]:
        check_org(org)
        for field, value in (("session", session), ("turn", turn)):
            if value != "*":
                check_id(field, value)
        found: list[str] = []
        for partition in range(self.partitions):
            found += await self.bus.subjects(reel(partition), f"evt.{partition}.{org}.{session}.turn.{turn}")
        return found

    async def _last(self, subject: str, limited: asyncio.Semaphore) -> Stored | None:
        async with limited:
            return await newest_of(self.bus, stream_of(subject), subject)

    async def _info(self, last: Stored, limited: asyncio.Semaphore) -> TurnInfo:
        where = parse_event_subject(last.subject)
        stream = stream_of(last.subject)
        async with limited:
            first = await first_of(self.bus, stream, last.subject) or last
            requested = data_of(first)
            began = await self._reels.cursor(where.partition, first.sequence)
            stands = await standing(self.bus, first, last)
            cursor = await self._reels.cursor(where.partition, last.sequence)
        return TurnInfo(
            org=where.org,
            session=where.session,
            turn=where.key,
            requested=requested if isinstance(requested, t.TurnRequested) else None,
            state=stands.state,
            ended=stands.ended,
            decided=stands.decided,
            asked_ns=first.time_ns,
            ended_ns=stands.ended_ns,
            heard_ns=last.time_ns,
            began=began,
            cursor=cursor,
        )


async def _bounded(name: str, data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for piece in _pieces_of(data):
        size += len(piece)
        if size > t.MAX_ATTACHMENT_BYTES:
            raise Malformed(f"attachment {name[:200]!r} is over the limit of {t.MAX_ATTACHMENT_BYTES} bytes")
        yield piece


async def _pieces_of(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    async for piece in data:
        yield piece


def _own_session(org: str, owner: Owner | None) -> str:
    if owner is None:
        raise Malformed("a turn needs a session, or the owner whose session it is")
    return session_of(org, owner)
