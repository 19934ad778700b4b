"""A stack whose sessions have a stand-in of Claude Code, and bridges in this process or in others, for tests of turns."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandreel_bridge.service import Bridge
from sandreel_bridge.settings import Settings
from sandreel_core.clock import new_token
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.message import Envelope, Owner
from sandreel_core.embedded.authority import Authority
from sandreel_core.turn import Turn, exec_of, fold
from tests.support import claude
from tests.support.memory_gateway import MemoryGateway
from tests.support.system import ORG, Site, open_site
from tests.support.system_users import bus_of

WITHIN_S = 100.0


@dataclass(frozen=True)
class Child:
    """A bridge in another process. `source`: what it signs with."""

    process: asyncio.subprocess.Process
    source: str

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


class Turns:
    """Turns of a site, and bridges that drive them with one gateway."""

    def __init__(self, site: Site, gateway: MemoryGateway, program: Path) -> None:
        self.site = site
        self.program = program
        self.client = site.client
        self.gateway = gateway

    def settings(self) -> dict[str, Any]:
        """Of its bridges."""
        return {"gateway_url": "http://127.0.0.1:9", "scan_s": 3600, "programs": (f"claude={self.program}",)}

    @asynccontextmanager
    async def bridge(self, **settings: Any) -> AsyncGenerator[Bridge, None]:
        """One bridge, in this process, with a connection of its own."""
        async with bus_of(self.site.stack, "bridge") as bus:
            terms = Settings(**self.settings() | settings)
            bridge = Bridge(bus, terms, self.gateway)
            ready = asyncio.Event()
            task = asyncio.create_task(bridge.run(ready.set))
            waiting = asyncio.create_task(ready.wait())
            await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            try:
                if task.done():
                    task.result()
                yield bridge
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def process(self) -> AsyncGenerator[Child, None]:
        """One bridge in a process of its own; what is left of it is killed at the end."""
        place = self.site.stack.place
        settings = self.settings()
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "SANDREEL_CONFIG": str(place.roles),
            "SANDREEL_BUS_CREDS_FILE": str(Authority(place.identity).creds_file("bridge")),
            "SANDREEL_BRIDGE_GATEWAY_URL": settings["gateway_url"],
            "SANDREEL_BRIDGE_PROGRAMS": ",".join(settings["programs"]),
        }
        with tempfile.TemporaryFile() as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.bridge_process"),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environ,
            )
            try:
                assert process.stdout is not None
                async with asyncio.timeout(WITHIN_S):
                    said = (await process.stdout.readline()).decode().split()
                log.seek(0)
                assert said[:1] == ["ready"], log.read().decode()[-3000:]
                yield Child(process, said[1])
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                await process.wait()

    def owner(self, session: str) -> Owner:
        """As sessions have that nobody has named one for."""
        return Owner(type="session", id=session)

    async def start(self, prompt: str, session: str | None = None, **fields: Any) -> tuple[str, str]:
        """(session, turn) of a turn that is asked for; a session of its own unless one is given."""
        session = session or new_token("s-")
        turn = fields.pop("turn", None) or new_token("t-")
        defaults: dict[str, Any] = {
            "turn": turn,
            "agent": "claude-code",
            "prompt": prompt,
            "owner": self.owner(session),
        }
        await self.client.send(ORG, session, c.StartTurn(**(defaults | fields)))
        return session, turn

    async def say(self, session: str, turn: str, prompt: str) -> None:
        """To the program itself, past its turn."""
        line = {"type": "user", "message": {"role": "user", "content": prompt}}
        handle = self.client.handle(ORG, session, exec_of(turn, 1))
        await handle.write_stdin(json.dumps(line) + "\n")

    async def events(self, session: str, turn: str) -> list[Envelope]:
        """What stands on its subject now."""
        subjects = self.client.subjects(ORG, session)
        subject = subjects.event("turn", turn)
        found: list[Envelope] = []
        async with aclosing(self.client.bus.follow(subjects.stream, [subject], live=False)) as items:
            async for item in items:
                found += [decode_event(subject, stored.body) for stored in (item if isinstance(item, list) else ())]
        return found

    async def until(
        self, session: str, turn: str, what: Callable[[Turn], bool] = lambda turn: turn.phase == "finished"
    ) -> Turn:
        """The turn, as soon as it is so."""
        subjects = self.client.subjects(ORG, session)
        subject = subjects.event("turn", turn)
        state = Turn()
        async with asyncio.timeout(WITHIN_S):
            async with aclosing(self.client.bus.follow(subjects.stream, [subject])) as items:
                async for item in items:
                    for stored in item if isinstance(item, list) else ():
                        state = fold(state, decode_event(subject, stored.body))
                        if what(state):
                            return state
        raise AssertionError("the log ended")

    async def run(self, prompt: str, session: str | None = None, **fields: Any) -> tuple[str, Turn]:
        """(session, turn) when it is finished."""
        session, turn = await self.start(prompt, session, **fields)
        return session, await self.until(session, turn)


def texts(events: list[Envelope]) -> list[str]:
    return [event.data.text for event in events if isinstance(event.data, a.AgentText)]


def tools(events: list[Envelope]) -> list[str]:
    return [event.data.tool_use_id for event in events if isinstance(event.data, a.ToolUse)]


@asynccontextmanager
async def open_turns(python: str = sys.executable, **settings: str) -> AsyncGenerator[Turns, None]:
    """A stack whose own bridge is held down, so that a test's bridges are the only ones. `python` runs the stand-in."""
    async with AsyncExitStack() as stack:
        # Not below /tmp, of which sessions in bubblewrap have one of their own.
        directory = tempfile.TemporaryDirectory(prefix="sandreel-agents-", dir="/var/tmp")
        programs = Path(stack.enter_context(directory))
        programs.chmod(0o755)
        program = programs / "claude"
        program.write_text(f"#!{python} -I\n{Path(claude.SOURCE).read_text()}")
        program.chmod(0o755)
        site = await stack.enter_async_context(open_site(stop_sessions=True, **settings))
        await site.stack.parts["bridge"].hold()
        yield Turns(site, MemoryGateway(), program)
