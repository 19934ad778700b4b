"""A spawner and a runnerd for tests of clients: they answer commands over any bus, and jobs are made up.

["print", text…]      each text to stdout, one block each, then exit 0
["err", text]         to stderr
["exit", code]        exit with that code
["kill", signal]      ended by that signal
["lines", count]      so many numbered lines, in blocks of 100
["cat"]               what comes in goes out, until it ends (also: SIGINT or cancel end it)
["stubborn"]          says "ready", and "still here" to every SIGINT
["lost"]              accepted, then exec.lost
["refuse", code]      command.refused
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from sandreel_core import session as sessions
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.clock import new_id
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract.codec import decode_command, encode, seal
from sandreel_core.contract.message import Envelope, Event
from sandreel_core.contract.subjects import CMD, SessionSubjects, parse_command_subject
from sandreel_core.contract.workspace import EnvPatched, PatchEnv
from sandreel_core.decider import answer
from sandreel_core.errors import Unavailable

EPOCH = datetime(2026, 1, 31, tzinfo=UTC)


class Roles:
    """Both roles. `mute` makes them read commands without answering; `fail` makes boots fail; `contract_version` is that of boots to come."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._states: dict[str, sessions.Session] = {}
        self._jobs: dict[str, Job] = {}
        self.handled: list[str] = []
        self.mute = False
        self.fail = False
        self.contract_version = 1

    async def run(self) -> None:
        async with aclosing(self._bus.follow(CMD, ["cmd.>"])) as items:
            async for batch in items:
                for stored in batch if isinstance(batch, list) else ():
                    await self._handle(stored)

    async def _handle(self, stored: Stored) -> None:
        if self.mute:
            return
        where = parse_command_subject(stored.subject)
        if where.role == "bridge":
            return  # `fake_bridge` answers those
        command = decode_command(stored.subject, stored.body)
        self.handled.append(command.id)
        subjects = SessionSubjects(where.org, where.session)
        if where.role == "spawner":
            await self._session(subjects, command)
        elif self._states.get(where.session, sessions.Session()).phase != "ready":
            refusal = s.CommandRefused(command_id=command.id, code="SESSION_NOT_FOUND", message="no such session")
            await self._say(subjects.event("session"), refusal, command)
        else:
            await self._runnerd(subjects, command)

    async def _session(self, subjects: SessionSubjects, command: Envelope) -> None:
        state = self._states.get(subjects.session, sessions.Session())
        decision = sessions.decide(state, command.data, sessions.Terms(now=EPOCH))
        await self._evolve(subjects, answer(command.id, decision), command)
        if isinstance(decision, s.Requested | s.Resuming):
            boot_id = f"1-{decision.incarnation if isinstance(decision, s.Requested) else decision.boot}"
            if self.fail:
                failed = s.Failed(stage="boot", code="BOOT_FAILED", message="it would not", commands_until=0)
                await self._evolve(subjects, failed)
                return
            provisioned = s.Provisioned(
                boot=1, boot_id=boot_id, backend="process", ref="1", node="here", commands_after=0
            )
            await self._evolve(subjects, provisioned)
            await self._evolve(
                subjects, s.Ready(boot_id=boot_id, runnerd_version="0", contract_version=self.contract_version)
            )
        elif isinstance(decision, s.Stopping):
            await self._evolve(subjects, s.Stopped(reason="asked", commands_until=0))
        elif isinstance(decision, s.Destroying):
            await self._evolve(subjects, s.Destroyed(commands_until=0))

    async def _evolve(self, subjects: SessionSubjects, event: Event, cause: Envelope | None = None) -> None:
        envelope = await self._say(subjects.event("session"), event, cause)
        state = self._states.get(subjects.session, sessions.Session())
        self._states[subjects.session] = sessions.evolve(state, envelope)

    async def _runnerd(self, subjects: SessionSubjects, command: Envelope) -> None:
        data = command.data
        if isinstance(data, PatchEnv):
            await self._say(subjects.event("workspace"), EnvPatched(set=data.set, denied=["HOME"]), command)
            return
        job = self._jobs.get(data.exec)
        refusal = ""
        if isinstance(data, x.Start):
            refusal = "DUPLICATE_EXEC" if job else data.argv[1] if data.argv and data.argv[0] == "refuse" else ""
        elif job is None or job.ended:
            refusal = "EXEC_NOT_FOUND"
        if refusal:
            event = s.CommandRefused(command_id=command.id, code=refusal, message="as the test asked")
            await self._say(subjects.event("command"), event, command)
        elif isinstance(data, x.Start):
            self._jobs[data.exec] = job = Job(self, subjects.exec(data.exec))
            await job.start(data, command)
        elif job is not None:
            await job.take(data, command)

    async def _say(self, subject: str, event: Event, cause: Envelope | None = None, **more: Any) -> Envelope:
        attributes = {"causationid": cause.id, "actor": cause.actor} if cause else {}
        envelope = seal(
            event, id=new_id(), source="/test", subject=subject, time=datetime.now(UTC), **attributes, **more
        )
        while True:
            try:
                await self._bus.append(subject, encode(envelope), message_id=envelope.id)
            except Unavailable:
                await self._bus.wait_connected()
            else:
                return envelope

    async def say(self, subject: str, event: Event, cause: Envelope | None, n: int) -> None:
        await self._say(subject, event, cause, n=n)


class Job:
    """One made-up exec."""

    def __init__(self, roles: Roles, subject: str) -> None:
        self._roles = roles
        self._subject = subject
        self._n = 0
        self._lines = {"stdout": 1, "stderr": 1}
        self._stubborn = False
        self.ended = False

    async def _say(self, event: Event, cause: Envelope | None = None) -> None:
        self._n += 1
        await self._roles.say(self._subject, event, cause, self._n)

    async def _print(self, data: bytes, stream: x.Stream = "stdout") -> None:
        line, count = self._lines[stream], data.count(b"\n")
        self._lines[stream] += count
        try:
            text, encoded = data.decode(), None
        except UnicodeDecodeError:
            text, encoded = None, base64.b64encode(data).decode()
        eol = data.endswith(b"\n")
        await self._say(x.Output(stream=stream, line=line, count=count, text=text, base64=encoded, eol=eol))

    async def _exit(self, code: int | None, signal: str | None = None, reason: x.ExitReason = "exited") -> None:
        self.ended = True
        await self._say(x.Exited(exit_code=code, signal=signal, reason=reason, duration_ms=1))

    async def start(self, start: x.Start, command: Envelope) -> None:
        await self._say(x.Accepted(boot_id="1-1"), command)
        verb, *words = start.argv or ["shell"]
        if verb == "lost":
            self.ended = True
            await self._say(x.Lost(boot_id="1-1", last_n=1, cause="runnerd_died"))
            return
        await self._say(x.Started(argv=start.argv, shell=start.shell, cwd="/workspace", pid=1))
        match verb:
            case "print":
                for word in words:
                    await self._print(word.encode())
                await self._exit(0)
            case "err":
                await self._print(words[0].encode(), "stderr")
                await self._exit(0)
            case "exit":
                await self._exit(int(words[0]))
            case "kill":
                await self._exit(None, words[0])
            case "lines":
                for first in range(1, int(words[0]) + 1, 100):
                    last = min(first + 99, int(words[0]))
                    await self._print(b"".join(b"line %d\n" % line for line in range(first, last + 1)))
                await self._exit(0)
            case "cat" | "stubborn":
                self._stubborn = verb == "stubborn"
                if self._stubborn:
                    await self._print(b"ready\n")
                if start.stdin_text or start.stdin_base64:
                    await self._print((start.stdin_text or "").encode() or base64.b64decode(start.stdin_base64 or ""))
                if start.stdin == "close" and not self._stubborn:
                    await self._exit(0)
            case _:
                await self._exit(0)

    async def take(self, data: Any, command: Envelope) -> None:
        match data:
            case x.WriteStdin():
                raw = (data.text or "").encode() or base64.b64decode(data.base64 or "")
                await self._say(x.StdinWritten(bytes=len(raw), eof=data.eof), command)
                if raw:
                    await self._print(raw)
                if data.eof:
                    await self._exit(0)
            case x.Signal():
                await self._say(x.Signalled(signal=data.signal, why="asked"), command)
                if self._stubborn:
                    await self._print(b"still here\n")
                elif data.signal == "SIGINT":
                    await self._exit(None, "SIGINT")
            case x.Cancel():
                await self._say(x.Signalled(signal="SIGTERM", why="cancelled"), command)
                await self._exit(None, "SIGTERM", "cancelled")
            case x.Resize():
                await self._say(x.Resized(cols=data.cols, rows=data.rows), command)


@asynccontextmanager
async def fake_roles(bus: Bus) -> AsyncIterator[Roles]:
    """Both roles at work while the block is open. The streams of one partition must exist."""
    roles = Roles(bus)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(roles.run())
        yield roles
        task.cancel()
