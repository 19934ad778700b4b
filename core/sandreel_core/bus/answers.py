"""The one answer that a command gets: judged, decided, appended with the expected sequence; on conflict all of it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from sandreel_core import clock
from sandreel_core.bus.aggregate import Admit, Aggregate, Decided, Decision, Elsewhere
from sandreel_core.bus.dead import bury
from sandreel_core.bus.known import Known
from sandreel_core.bus.loading import Loaded, load
from sandreel_core.bus.measures import CommandMeasures
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.contract.codec import decode_command, encode, payload_of, seal
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Command, Envelope, Event
from sandreel_core.contract.session import CommandRefused
from sandreel_core.contract.subjects import CommandSubject, parse_command_subject, stream_of
from sandreel_core.decider import answer
from sandreel_core.errors import Conflict, Malformed, Refused, Unavailable
from sandreel_core.ids import uuid7_unix_ms
from sandreel_core.log import Log

State = TypeVar("State")
Context = TypeVar("Context")

_MAX_CONFLICTS = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """A command as CMD holds it. `command` is None and `problem` says why when its body cannot be read; `subject` is the one
    on which its answer stands."""

    stored: Stored
    where: CommandSubject
    command: Envelope | None
    problem: Refused | None
    subject: str


class Answers(Generic[State, Context]):
    """Made by the reactor; `begin` before the first command is answered."""

    def __init__(
        self,
        bus: Bus,
        aggregate: Aggregate[State, Context],
        known: Known[State],
        *,
        source: str,
        admit: Admit[State] | None,
        decided: Decided[State] | None,
        elsewhere: Elsewhere | None,
        stale_after_s: float,
        now: Callable[[], datetime],
        measures: CommandMeasures,
        log: Log,
    ) -> None:
        self._bus = bus
        self._aggregate = aggregate
        self._known = known
        self._source = source
        self._admit = admit
        self._decided = decided
        self._elsewhere = elsewhere
        self._stale_after_s = stale_after_s
        self._now = now
        self._measures = measures
        self._log = log
        self._older = 0
        self._epochs: dict[str, str] = {}

    async def begin(self, stream: str) -> None:
        """What stands in the stream of commands now is older than the process. Raises NotFound, Unavailable."""
        self._older = (await self._bus.state(stream)).last_sequence if self._elsewhere is not None else 0

    def asked(self, stored: Stored) -> Asked:
        """Raises Malformed for a command that names nobody."""
        where = parse_command_subject(stored.subject)
        try:
            command, problem = decode_command(stored.subject, stored.body), None
        except Refused as why:
            command, problem = None, why
        if command is not None and self._aggregate.keyed is not None and isinstance(command.data, Command):
            subject = self._aggregate.keyed(where, command.data)
        else:
            subject = self._aggregate.subject(where)
        return Asked(stored, where, command, problem, subject)

    async def answer(self, asked: Asked) -> None:
        """Until one event names the command as its cause. Raises Unavailable, and whatever a bug raises."""
        where, subject, stored = asked.where, asked.subject, asked.stored
        if self._elsewhere is not None and stored.sequence <= self._older and await self._elsewhere(where):
            return
        for _ in range(_MAX_CONFLICTS):
            loaded = await self._known.load(subject)
            if not self._aggregate.mine(loaded.state, stored):
                # No append will tell that what is known was old: so read it again.
                self._known.forget(subject)
                if not self._aggregate.mine((loaded := await self._known.load(subject)).state, stored):
                    return
            if where.command_id not in loaded.answers:
                decision = await self._decide(asked, loaded)
                try:
                    await self._append(asked, loaded, decision)
                except Conflict:
                    await self._known.catch_up(subject, loaded)
                    continue
            if asked.problem is not None:
                await self.bury(stored)
            return
        raise Unavailable(f"{subject} changes too often")

    async def give_up(self, asked: Asked) -> None:
        """Bury it, and refuse it without asking any code of the role's own. Raises Unavailable."""
        refusal = CommandRefused(
            command_id=asked.where.command_id,
            code="INTERNAL",
            message="the command could not be handled; it is kept as a dead letter",
        )
        event = self._seal(asked.where, None, asked.subject, refusal)
        for _ in range(_MAX_CONFLICTS):
            loaded = await load(self._bus, asked.subject, None, _untouched)
            if asked.where.command_id not in loaded.answers:
                try:
                    await self._bus.append(asked.subject, encode(event), expected=loaded.revision)
                except Conflict:
                    continue
                self._measure(asked.stored, refusal)
            await self.bury(asked.stored)
            return
        raise Unavailable(f"{asked.subject} changes too often")

    async def bury(self, stored: Stored) -> None:
        """Keep it as a dead letter. Raises Unavailable."""
        if await bury(self._bus, stored, self._log):
            self._measures.buried()

    async def _decide(self, asked: Asked, loaded: Loaded[State]) -> Decision[State]:
        said = asked.problem or await self._judge(asked, loaded)
        decision = self._decision(asked, loaded, said)
        if self._admit is not None and not isinstance(said, Refused | None):
            refusal = await self._admit(decision)
            if refusal is not None:
                return self._decision(asked, loaded, refusal)
        return decision

    def _decision(self, asked: Asked, loaded: Loaded[State], said: Event | Refused | None) -> Decision[State]:
        payload = answer(asked.where.command_id, said)
        event = self._seal(asked.where, asked.command, asked.subject, payload)
        return Decision(asked.where, asked.command, loaded.state, event)

    async def _judge(self, asked: Asked, loaded: Loaded[State]) -> Event | Refused | None:
        command = asked.command
        if command is None:
            return Refused("BAD_REQUEST", "the command cannot be read")
        now = self._now()
        age_s = now.timestamp() - uuid7_unix_ms(asked.where.command_id) / 1000
        if age_s > self._stale_after_s:
            return Refused("STALE", f"the command's id is {age_s:.0f} s old; the limit is {self._stale_after_s:.0f} s")
        if command.deadline is not None and now > command.deadline:
            return Refused("EXPIRED", f"the command's deadline was {command.deadline.isoformat()}")
        if command.expectedrevision is not None:
            refusal = await self._check_revision(command.expectedrevision, asked.subject, loaded.revision)
            if refusal is not None:
                return refusal
        payload = payload_of(command)
        if not isinstance(payload, Command):
            return Refused("BAD_REQUEST", f"{command.type} is not a command")
        return self._aggregate.decide(loaded.state, payload, await self._aggregate.context(asked.stored))

    async def _check_revision(self, expected: str, subject: str, revision: int) -> Refused | None:
        stream = stream_of(subject)
        if stream not in self._epochs:
            self._epochs[stream] = (await self._bus.state(stream)).epoch
        try:
            cursor = Cursor.parse(expected)
        except Malformed as error:
            return Refused("BAD_REQUEST", f"expectedrevision: {error}")
        try:
            seen = cursor.check(self._epochs[stream])
        except Malformed as error:
            return Refused("WRONG_REVISION", str(error))
        if seen != revision or stream != f"REEL-{cursor.partition}":
            return Refused("WRONG_REVISION", f"the last event is at sequence {revision}, not {seen}")
        return None

    async def _append(self, asked: Asked, loaded: Loaded[State], decision: Decision[State]) -> None:
        event = decision.event
        sequence = await self._bus.append(asked.subject, encode(event), expected=loaded.revision)
        self._measure(asked.stored, event.data)
        self._known.add(asked.subject, loaded, event, sequence)
        if self._decided is not None:
            await self._decided(Decision(decision.where, decision.command, decision.state, event, sequence))

    def _measure(self, command: Stored, outcome: object) -> None:
        code = outcome.code if isinstance(outcome, CommandRefused) else None
        self._measures.answered(command, self._now().timestamp(), code)

    def _seal(self, where: CommandSubject, command: Envelope | None, subject: str, payload: Event) -> Envelope:
        return seal(
            payload,
            id=clock.new_id(),
            source=self._source,
            subject=subject,
            time=self._now(),
            causationid=where.command_id,
            correlationid=(command.correlationid if command else None) or where.command_id,
            actor=command.actor if command else None,
            traceparent=command.traceparent if command else None,
        )


def _untouched(state: None, event: Envelope) -> None:
    return state
