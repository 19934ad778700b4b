"""Stops what is expired or idle, after asking its runnerd to drain. Whatever may still be alive is spared."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from sandreel_core.bus.loading import load
from sandreel_core.bus.port import Bus
from sandreel_core.clock import now
from sandreel_core.contract.agent import AgentEvent
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.message import Envelope, Event
from sandreel_core.contract.requests import Done
from sandreel_core.contract.runnerd import Drain, Drained
from sandreel_core.contract.session import Stopping
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.contract.turn import TurnFinished
from sandreel_core.errors import Malformed, SandreelError
from sandreel_core.log import Log
from sandreel_core.session import RUNNING
from sandreel_core.spawner.actions import Sweep
from sandreel_core.spawner.heads import Heads
from sandreel_core.spawner.journal import Journal
from sandreel_core.spawner.sessions import Record
from sandreel_core.turn import Phase, evolve

DRAIN_TIMEOUT_S = 5.0
_NONE: Phase = "none"


class Sweeper:
    def __init__(self, bus: Bus, journal: Journal, heads: Heads, *, stop_within_s: float) -> None:
        self._bus = bus
        self._journal = journal
        self._heads = heads
        self._stop_within_s = stop_within_s
        self._log = Log("spawner.sweep")

    async def sweep(self, action: Sweep) -> bool:
        """Whether `session.stopping` was appended. Spared: a live exec by the log or by runnerd, an unfinished
        turn, a living boot that does not answer, one that was pinned, extended or used meanwhile."""
        subjects = self._journal.subjects(action.key)
        record, _, _ = await self._journal.load(action.key)
        boot_id = record.session.boot_id
        if await self._heads.open(subjects) or await self._unfinished_turn(subjects):
            return False
        if not await self._drain(subjects, record.session.idle_timeout_s if action.reason == "idle" else None):
            return False
        stopping = False
        try:
            # Once more: what was accepted before the drain began is in the log by now.
            if not await self._heads.open(subjects):

                def choose(record: Record, _: frozenset[str]) -> Event | None:
                    session = record.session
                    if session.phase not in RUNNING or session.boot_id != boot_id or session.pinned:
                        return None
                    if action.reason == "ttl" and session.expires_at is not None and session.expires_at > now():
                        return None
                    return Stopping(reason=action.reason, until=now() + timedelta(seconds=self._stop_within_s))

                stopping = await self._journal.decide(action.key, choose) is not None
        finally:
            if not stopping:
                await self._lift(subjects)
        if stopping:
            self._log.info("a session is stopped", session=str(action.key), reason=action.reason)
        return stopping

    async def _drain(self, subjects: SessionSubjects, idle_over_s: float | None) -> bool:
        """Whether runnerd reads no more commands, has nothing alive and, where `idle_over_s` is given, has been
        idle for longer: the heartbeat that said so is older than a command that was carried out since."""
        try:
            body = msgspec.json.encode(Drain(commands_until=await self._journal.commands_last()))
            answer = await self._bus.request(subjects.request("runnerd", "drain"), body, timeout_s=DRAIN_TIMEOUT_S)
            drained = msgspec.json.decode(answer, type=Drained)
        except (SandreelError, msgspec.DecodeError) as error:
            self._log.info("a session is spared: it did not drain", session=subjects.session, problem=str(error))
            await self._lift(subjects)
            return False
        used = idle_over_s is not None and (drained.idle_s is None or drained.idle_s <= idle_over_s)
        if drained.live_execs or used:
            await self._lift(subjects)
            return False
        return True

    async def _lift(self, subjects: SessionSubjects) -> None:
        try:
            await self._bus.request(
                subjects.request("runnerd", "lift"), msgspec.json.encode(Done()), timeout_s=DRAIN_TIMEOUT_S
            )
        except SandreelError as error:
            # It lapses by itself after 30 s.
            self._log.info("a drain was not lifted", session=subjects.session, problem=str(error))

    async def _unfinished_turn(self, subjects: SessionSubjects) -> bool:
        prefix = subjects.event("turn", "x")[:-1]
        for subject in await self._bus.subjects(subjects.stream, f"{prefix}*"):
            last = await self._bus.last(subjects.stream, subject)
            try:
                if last is not None and await self._unfinished(subject, decode_event(subject, last.body)):
                    return True
            except Malformed:
                return True
        return False

    async def _unfinished(self, subject: str, last: Envelope) -> bool:
        """By its newest event. Behind its end stand answers to commands: what was decided about its plan, and refusals."""
        if isinstance(last.data, TurnFinished | AgentEvent):
            return not isinstance(last.data, TurnFinished)
        phase = (await load(self._bus, subject, _NONE, lambda phase, event: evolve(phase, event.type))).state
        return phase in ("requested", "running")
