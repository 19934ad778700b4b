"""What a turn costs beside what it runs: to start it, to pass on what its agent says, to take it over, to keep it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import psutil

from bench import agent_program, bare
from bench.figure import Figure, median, percentile
from bench.rig import ORG, Rig
from sandreel_core import clock
from sandreel_core.client import Client, ClientSettings, TurnEntry, TurnHandle
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.exec import Start, Started
from sandreel_core.contract.message import Owner
from sandreel_core.contract.subjects import CMD
from sandreel_core.embedded.stack import Stack
from sandreel_core.settings import load

AGENT = "claude-code"
_STARTS = 40
_TICKS, _RATE = 400, 40.0
_LINES = (100, 100_000)
# Events of a program that prints at once, and how many the references store: all together, one at a time.
_FLOOD, _REFERENCE, _ALONE = 100_000, 10_000, 500
# Turns at a time in a session, which may run so many execs at once (behaviour §1), and sessions.
_TURNS, _SESSIONS = 4, 6
_WITHIN_S = 180.0


class Turns:
    """A stack of its own, with a bridge and a gateway that nobody calls."""

    def __init__(self, stack: Stack, client: Client, program: Path) -> None:
        self.stack = stack
        self.client = client
        self.program = program

    async def start(self, session: str, prompt: str, command_id: str | None = None) -> TurnHandle:
        owner = Owner(type="bench", id=session)
        return await self.client.turn(ORG, session, owner=owner, agent=AGENT, prompt=prompt, command_id=command_id)

    async def texts(self, turn: TurnHandle) -> AsyncGenerator[str, None]:
        async with aclosing(turn.follow()) as items:
            async for item in items:
                if isinstance(item, TurnEntry) and isinstance(item.data, a.AgentText):
                    yield item.data.text
                elif isinstance(item, TurnEntry) and isinstance(item.data, t.TurnFinished):
                    assert item.data.status == "success", item.data

    async def process_started_s(self, session: str, exec_id: str, role: str, command_id: str) -> float:
        """From the command to the process, by the server's clock."""
        subjects = self.client.subjects(ORG, session)
        asked = await self.client.bus.last(CMD, subjects.command(role, command_id))
        assert asked is not None
        async with (
            asyncio.timeout(_WITHIN_S),
            aclosing(self.client.bus.follow(subjects.stream, [subjects.exec(exec_id)])) as items,
        ):
            async for batch in items:
                for stored in batch if isinstance(batch, list) else ():
                    if isinstance(decode_event(stored.subject, stored.body).data, Started):
                        return (stored.time_ns - asked.time_ns) / 1e9
        raise AssertionError("the log ended")

    def bridge(self) -> psutil.Process:
        pid = self.stack.parts["bridge"].pid
        assert pid is not None
        return psutil.Process(pid)


@asynccontextmanager
async def turns_of_its_own() -> AsyncIterator[Turns]:
    # Not below /tmp, of which sessions in bubblewrap have one of their own.
    with tempfile.TemporaryDirectory(prefix="sandreel-bench-turn-", dir="/var/tmp") as folder:
        data = Path(folder)
        data.chmod(0o711)
        program = data / "claude"
        program.write_text(f"#!{sys.executable} -I\n{Path(agent_program.__file__).read_text()}")
        program.chmod(0o755)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SANDREEL_")} | {
            "SANDREEL_STACK_BACKEND": "process",
            "ANTHROPIC_API_KEY": "bench",
            "SANDREEL_GATEWAY_MODELS": "bench",
            "SANDREEL_GATEWAY_UNPRICED": "allow",
            "SANDREEL_BRIDGE_PROGRAMS": f"claude={program}",
            "SANDREEL_SPAWNER_MAX_SESSIONS": "100",
            "SANDREEL_SPAWNER_MAX_SESSIONS_PER_ORG": "100",
        }
        async with Stack(data / "data", environ=environ) as stack:
            settings = load(ClientSettings, environ={}, path=stack.client)
            async with Client.connect(settings, actor="bench") as client:
                yield Turns(stack, client, program)


async def turns(rig: Rig) -> list[Figure]:
    """A turn: started (beside its exec alone), its agent's lines passed on, taken over, and a bridge's memory for it."""
    async with turns_of_its_own() as here:
        return [
            await _starting(here),
            await _passing_on(here),
            await _settling(here, rig),
            *(await _taking_over(here, rig)),
            await _keeping(here),
        ]


async def _starting(here: Turns) -> Figure:
    """In turns, in one warm session."""
    session = "starting"
    await (await here.start(session, "say")).finished()
    ours, reference = [], []
    for _ in range(_STARTS):
        command_id = clock.new_id()
        turn = await here.start(session, "say", command_id)
        exec_id = await _exec_of(turn)
        ours.append(await here.process_started_s(session, exec_id, "bridge", command_id))
        await turn.finished()
        command_id, exec_id = clock.new_id(), clock.new_token("x-")
        start = Start(exec=exec_id, argv=[str(here.program)], stdin_text='{"message": {"content": "say"}}\n')
        await here.client.send(ORG, session, start, command_id=command_id)
        reference.append(await here.process_started_s(session, exec_id, "runnerd", command_id))
        await here.client.handle(ORG, session, exec_id).wait()
    more_ms = (median(ours) - median(reference)) * 1e3
    detail: dict[str, float | str] = {
        "turn.start, p50 ms": median(ours) * 1e3,
        "turn.start, p99 ms": percentile(ours, 0.99) * 1e3,
        "exec.start, p50 ms": median(reference) * 1e3,
    }
    return Figure("turn.start → process started, more than exec.start, p50", "ms", more_ms, 60, detail=detail)


async def _exec_of(turn: TurnHandle) -> str:
    async with asyncio.timeout(_WITHIN_S), aclosing(turn.follow()) as items:
        async for item in items:
            if isinstance(item, TurnEntry) and isinstance(item.data, t.TurnPreparing):
                return item.data.exec
    raise AssertionError("the turn ended before it began")


async def _passing_on(here: Turns) -> Figure:
    turn = await here.start("passing", f"tick {_RATE} {_TICKS}")
    async with asyncio.timeout(_WITHIN_S):
        ages = [(time.time() - float(text)) * 1e3 async for text in here.texts(turn)]
    assert len(ages) == _TICKS
    detail: dict[str, float | str] = {"p50 ms": median(ages)}
    return Figure(f"agent line → agent.* event seen, {_RATE:g}/s, p99", "ms", percentile(ages, 0.99), 15, detail=detail)


async def _settling(here: Turns, rig: Rig) -> Figure:
    """A program that prints as fast as it is read: its events stored a second, from its start to the turn's end, by the server's
    clock. The reference stores the same bodies, each a message of its own too; the other one waits for each."""
    lines = rig.lines(_FLOOD)
    turn = await here.start("settling", f"flood {lines}")
    async with asyncio.timeout(_WITHIN_S):
        assert (await turn.finished()).status == "success"
    subjects = here.client.subjects(ORG, "settling")
    stream, subject = subjects.stream, subjects.event("turn", turn.id)
    events = (await here.client.bus.subjects(stream, subject))[subject]
    started, ended, body = 0, await here.client.bus.last(stream, subject), b""
    async with aclosing(here.client.bus.follow(stream, [subject], live=False)) as items:
        async for batch in items:
            for stored in batch if isinstance(batch, list) else ():
                data = decode_event(subject, stored.body).data
                started = stored.time_ns if isinstance(data, t.TurnStarted) else started
                body = stored.body if isinstance(data, a.AgentText) else body
    assert ended is not None
    took_s = (ended.time_ns - started) / 1e9
    publisher = await bare.Publisher(rig.bare).start()
    began = time.perf_counter()
    for _ in range(_REFERENCE):
        await publisher.publish("bench.settling", body)
    await publisher.drain()
    reference = _REFERENCE / (time.perf_counter() - began)
    began = time.perf_counter()
    for _ in range(_ALONE):
        await publisher.publish("bench.settling", body)
        await publisher.drain()
    alone = _ALONE / (time.perf_counter() - began)
    name = f"a turn of {lines:,} lines, printed at once: its events stored"
    detail: dict[str, float | str] = {"in all, s": took_s, "one at a time, events/s": alone}
    return Figure(name, "events/s", events / took_s, 0.5, reference, "bare pipelined publishes", True, detail=detail)


async def _taking_over(here: Turns, rig: Rig) -> list[Figure]:
    """From the kill to the first text that was written after it."""
    figures = []
    for lines in _LINES:
        count = max(100, int(lines * min(rig.scale, 1)))
        turn = await here.start(f"over-{count}", f"fill {count}")
        killed_at = 0.0
        took_s = None
        async with asyncio.timeout(_WITHIN_S), aclosing(here.texts(turn)) as texts:
            async for text in texts:
                if text == "filled":
                    await here.stack.parts["bridge"].kill()
                    killed_at = time.time()
                elif killed_at and not text.startswith("x") and float(text) > killed_at:
                    took_s = time.time() - killed_at
                    break
        assert took_s is not None
        await turn.interrupt()
        figures.append(Figure(f"takeover after a bridge's death, a turn of {count:,} lines", "s", took_s, 5))
    return figures


async def _keeping(here: Turns) -> Figure:
    """More of its memory than with none, once it has driven some."""
    sessions = [f"keeping-{number}" for number in range(_SESSIONS)]
    for session in sessions:
        await (await here.start(session, "say")).finished()
    before = here.bridge().memory_info().rss
    running = [await here.start(session, "hold") for session in sessions for _ in range(_TURNS)]
    for turn in running:
        async with asyncio.timeout(_WITHIN_S), aclosing(here.texts(turn)) as texts:
            async for _ in texts:
                break
    each_mb = (here.bridge().memory_info().rss - before) / len(running) / 1e6
    for turn in running:
        await turn.interrupt()
    for turn in running:
        await turn.finished()
    detail: dict[str, float | str] = {"turns": float(len(running)), "with none, MB": before / 1e6}
    return Figure("memory of a bridge per running turn", "MB", each_mb, 1, detail=detail)
