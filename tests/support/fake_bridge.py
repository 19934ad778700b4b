"""A bridge for tests of clients: it answers commands over any bus, and turns are made up. The prompt says how one goes.

say TEXT            the agent says so, and the turn succeeds
run AGENT NAME      the agent's recording of that name: its exec prints it, block by block, and the turn tells its events
hold                nothing happens until the turn is interrupted; a message is delivered and read at once
stubborn            the same, and only the second time it is interrupted it ends
plan TEXT           ends with that plan
fail SENTENCE       ends as failed
refuse CODE         command.refused
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

import msgspec

from sandreel_core.agent import Typed
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.clock import new_id
from sandreel_core.contract import agent as a
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract import turn as t
from sandreel_core.contract.codec import decode_command, encode, seal
from sandreel_core.contract.message import Envelope, Event
from sandreel_core.contract.subjects import CMD, SessionSubjects, parse_command_subject
from sandreel_core.contract.usage import UsageReconciled, UsageRecorded
from tests.support.recordings import Recording

MODEL = "claude-opus-5-5"
USAGE = t.Usage(input_tokens=840, output_tokens=40, cache_read_input_tokens=600, cost_micro_usd=1900)
_BLOCK_BYTES = 700


class Bridge:
    """`pace_s`: between what a turn says. `paused` keeps a recording from being told: a bridge that is behind."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.turns: dict[tuple[str, str], Turn] = {}
        self.handled: list[str] = []
        self.pace_s = 0.0
        self.unpaused = asyncio.Event()
        self.unpaused.set()
        self.mute = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group, aclosing(self._bus.follow(CMD, ["cmd.bridge.>"])) as items:
            async for batch in items:
                for stored in batch if isinstance(batch, list) else ():
                    if not self.mute:
                        await self._handle(stored, group)

    async def _handle(self, stored: Stored, group: asyncio.TaskGroup) -> None:
        where = parse_command_subject(stored.subject)
        command = decode_command(stored.subject, stored.body)
        self.handled.append(command.id)
        data = command.data
        subjects = SessionSubjects(where.org, where.session)
        key = (where.session, data.turn)
        turn = self.turns.get(key)
        code = ""
        if isinstance(data, t.StartTurn):
            verb, _, rest = data.prompt.partition(" ")
            code = "DUPLICATE_TURN" if turn is not None else rest if verb == "refuse" else ""
        elif turn is None:
            code = "TURN_NOT_FOUND"
        elif turn.ended and not (turn.plan and isinstance(data, t.Approve | t.Reject)):
            code = "TURN_FINISHED"
        if code:
            refused = s.CommandRefused(command_id=command.id, code=code, message="as the test asked")
            await self.append(subjects.event("turn", data.turn), refused, command)
        elif isinstance(data, t.StartTurn):
            turn = self.turns[key] = Turn(self, subjects, data)
            await turn.request(command)
            group.create_task(turn.run())
        elif turn is not None:
            await turn.take(data, command)
            if isinstance(data, t.Approve) and (where.session, f"{data.turn}-go") not in self.turns:
                start = msgspec.structs.replace(turn.start, turn=f"{data.turn}-go", prompt="say done")
                going_on = self.turns[(where.session, start.turn)] = Turn(self, subjects, start)
                await going_on.request(None)
                group.create_task(going_on.run())

    async def append(self, subject: str, event: Event, cause: Envelope | None = None, n: int | None = None) -> None:
        attributes = {"causationid": cause.id, "actor": cause.actor} if cause else {}
        sealed = seal(event, id=new_id(), source="/test", subject=subject, time=datetime.now(UTC), n=n, **attributes)
        await self._bus.append(subject, encode(sealed), message_id=sealed.id)


class Turn:
    """One made-up turn."""

    def __init__(self, bridge: Bridge, subjects: SessionSubjects, start: t.StartTurn) -> None:
        self._bridge = bridge
        self._subjects = subjects
        self.start = start
        self._subject = subjects.event("turn", start.turn)
        self._n = 0
        self._interrupted = asyncio.Semaphore(0)
        self.plan = False
        self.ended = False
        self._approved = False

    async def say(self, event: t.TurnEvent | s.CommandSettled, cause: Envelope | None = None) -> None:
        await self._bridge.append(self._subject, event, cause)

    async def request(self, command: Envelope | None) -> None:
        asked = self.start
        await self.say(
            t.TurnRequested(
                agent=asked.agent,
                model=asked.model,
                conversation_id=asked.conversation_id,
                prompt=asked.prompt,
                permission_mode=asked.permission_mode,
                max_turns=asked.max_turns,
                owner=asked.owner,
                attachments=asked.attachments,
                budget_micro_usd=asked.budget_micro_usd,
                grants=asked.grants,
            ),
            command,
        )

    async def run(self) -> None:
        verb, _, rest = self.start.prompt.partition(" ")
        exec_id = f"{self.start.turn}-1"
        await self.say(t.TurnPreparing(attempt=1, exec=exec_id, incarnation=1))
        await self.say(t.TurnStarted(exec=exec_id))
        match verb:
            case "say":
                await self.say(a.AgentText(source_n=3, text=rest))
                result = a.AgentResult(source_n=3, status="completed", final_text=rest, usage=USAGE)
                await self.say(result)
            case "run":
                await self._recorded(Recording(*rest.split()), exec_id)
            case "hold" | "stubborn":
                for _ in range(1 + (verb == "stubborn")):
                    await self._interrupted.acquire()
                await self._finish("cancelled")
                return
            case "plan":
                self.plan = True
                await self.say(t.PlanProposed(plan=rest))
                await self._finish("plan")
                return
            case "fail":
                await self._finish("failed", rest)
                return
        await self._finish("success")

    async def _finish(self, status: t.TurnStatus, error: str | None = None) -> None:
        if self.ended:
            return
        self.ended = True
        call = UsageRecorded(
            call_id=f"{self.start.turn}-1",
            provider="anthropic",
            model=MODEL,
            usage=USAGE,
            meter="test",
            turn=self.start.turn,
        )
        usage, end = self._subjects.event("usage"), t.TurnFinished(status=status, error=error, usage=USAGE)
        await self.say(end)
        for _ in range(2):  # a gateway that is behind, and did not hear that the first one was stored
            await self._bridge.append(usage, call)
        await self._bridge.append(usage, UsageReconciled(turn=self.start.turn, gateway=USAGE, agent=USAGE))

    async def _recorded(self, recording: Recording, exec_id: str) -> None:
        """Each block of output is told before the bridge has read it."""
        reader = recording.reader()
        await self._exec(exec_id, x.Accepted(boot_id="1-1"))
        await self._exec(exec_id, x.Started(argv=[recording.agent], cwd="/workspace", pid=1))
        for piece in recording.pieces(range(0, len(recording.stdout), _BLOCK_BYTES)):
            lines = piece.count(b"\n")
            await self._exec(exec_id, x.Output(stream="stdout", line=1, count=lines, text=piece.decode(), eol=False))
            await asyncio.sleep(self._bridge.pace_s)
            await self._bridge.unpaused.wait()
            for item in reader.feed(piece, self._n):
                if not isinstance(item, Typed):
                    await self.say(item)
        await self._exec(exec_id, x.Exited(exit_code=0, reason="exited", duration_ms=1))
        for item in reader.end(self._n, recording.exit_code):
            if not isinstance(item, Typed):
                await self.say(item)

    async def _exec(self, exec_id: str, event: x.ExecEvent) -> None:
        self._n += 1
        await self._bridge.append(self._subjects.exec(exec_id), event, n=self._n)

    async def take(self, data: t.TurnCommand, command: Envelope) -> None:
        match data:
            case t.Steer():
                await self.say(t.SteerQueued(message_id=data.message_id, text=data.text), command)
                await self.say(t.SteerDelivered(message_ids=[data.message_id], channel="stdin"))
                await self.say(t.SteerConsumed(message_ids=[data.message_id]))
            case t.Interrupt():
                await self.say(t.TurnInterrupting(), command)
                self._interrupted.release()
            case t.Approve() if self._approved:
                await self.say(s.CommandSettled(command_id=command.id), command)
            case t.Approve():
                self._approved = True
                await self.say(t.PlanApproved(next_turn=f"{self.start.turn}-go"), command)
            case t.Reject():
                await self.say(t.PlanRejected(reason=data.reason), command)


@asynccontextmanager
async def fake_bridge(bus: Bus) -> AsyncIterator[Bridge]:
    """At work while the block is open. The streams of one partition must exist."""
    bridge = Bridge(bus)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bridge.run())
        yield bridge
        task.cancel()
