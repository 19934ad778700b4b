"""A small installation's log, commands and events, for tests of what analysts ask: two organisations, one story each.

In each, `demo` is created, runs `x-1`, which prints `LINES` lines, the turn `t-1` of an agent (see `turn_story`), which has
credentials (see `credential_story`), and is
destroyed; `bad` fails to boot. Commands go
through the contract's own codec, events through `script`.
"""

from __future__ import annotations

from typing import Any

from sandreel_core.bus.memory import MemoryBus, MemoryServer
from sandreel_core.bus.port import Stream
from sandreel_core.clock import new_id
from sandreel_core.contract import credential as c
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.message import Command, Event, Owner
from sandreel_core.contract.subjects import CMD, SessionSubjects
from tests.support import credential_story
from tests.support.script import AT, blocks, life, message
from tests.support.turn_story import EVENTS, START

LINES = 1200
EPOCH = "e1"
STREAMS = [
    Stream(name="REEL-0", subjects=("evt.0.>",), max_bytes=1 << 30, metadata={"epoch": EPOCH}),
    Stream(name=CMD, subjects=("cmd.>",), max_bytes=1 << 30, per_subject=1, discard_new_per_subject=True),
]


class Story:
    """What was sent, by a name of its own, and where the streams end."""

    def __init__(self, org: str, bus: MemoryBus) -> None:
        self.org = org
        self.bus = bus
        self.commands: dict[str, str] = {}
        self.last: dict[str, int] = {"REEL-0": 0, CMD: 0}

    async def send(self, name: str, session: str, command: Command, *, actor: str = "ann") -> str:
        subjects = SessionSubjects(self.org, session)
        self.commands[name] = command_id = new_id()
        subject = subjects.command(command.role, command_id)
        source = f"/client/{actor}@laptop"
        sealed = seal(command, id=command_id, source=source, subject=subject, time=AT, actor=actor)
        self.last[CMD] = await self.bus.append(subject, encode(sealed))
        return command_id

    async def say(self, session: str, event: Event, *, cause: str = "", key: str = "", **attributes: Any) -> None:
        if cause:
            attributes |= {"causationid": self.commands[cause], "actor": "ann"}
        subject, body = message(SessionSubjects(self.org, session), event, key=key, **attributes)
        self.last["REEL-0"] = await self.bus.append(subject, body)

    async def tell(self) -> None:
        owner = Owner(type="user", id="u1")
        await self.send("create", "demo", s.Create(owner=owner, env={"TOKEN": "value-of-a-variable"}))
        await self._boot("demo", "create")
        await self.send("start", "demo", x.Start(exec="x-1", argv=["print"], stdin="hold", stdin_text="typed-text"))
        await self._job()
        await self._turn()
        await self.send("pin", "demo", s.Pin())
        await self.say("demo", s.Pinned(), cause="pin")
        await self.send("again", "demo", s.Pin())
        await self.say(
            "demo", s.CommandSettled(command_id=self.commands["again"], message="it is pinned"), cause="again"
        )
        await self.send("resume", "demo", s.Resume())
        refused = s.CommandRefused(command_id=self.commands["resume"], code="SESSION_NOT_STOPPED", message="it runs")
        await self.say("demo", refused, cause="resume")
        await self.send("destroy", "demo", s.Destroy(), actor="eve")
        await self.say("demo", s.Destroying(until=AT), cause="destroy")
        await self.say("demo", s.Destroyed(commands_until=9))
        await self.send("bad", "bad", s.Create(owner=owner))
        await self._boot("bad", "bad", fails=True)
        await self.send("pending", "bad", s.Destroy())

    async def _boot(self, session: str, cause: str, *, fails: bool = False) -> None:
        subjects = SessionSubjects(self.org, session)
        requested, provisioned, ready = life(subjects)
        subject, _ = requested
        owner = Owner(type="user", id="u1")
        event = s.Requested(
            incarnation=1, profile="default", owner=owner, ttl_s=60, idle_timeout_s=60, expires_at=AT,
            env={"TOKEN": "value-of-a-variable"},
        )  # fmt: skip
        await self.say(session, event, cause=cause)
        await self.bus.append(*provisioned)
        if fails:
            failed = s.Failed(stage="boot", code="BOOT_TIMEOUT", message="it did not come up", commands_until=0)
            await self.say(session, failed)
        else:
            await self.bus.append(subject, ready[1])

    async def _turn(self) -> None:
        await self.send("turn", "demo", START)
        for i, event in enumerate(EVENTS):
            key = "t-1" if event.aggregate == "turn" else ""
            await self.say("demo", event, key=key, cause="" if i else "turn")
        await self.send("grant", "demo", credential_story.GRANT)
        for event in credential_story.EVENTS:
            cause = "grant" if isinstance(event, c.Granted) and event.turn == "t-1" else ""
            await self.say("demo", event, cause=cause)

    async def _job(self) -> None:
        secret = f"{self.org}-only"
        chunks: list[tuple[x.Stream, bytes]] = [
            ("stdout", b"".join(b"line %d of %s\n" % (i, secret.encode()) for i in range(j, j + 100)))
            for j in range(1, LINES, 100)
        ]
        events: list[Event] = [
            x.Accepted(boot_id="1-1"),
            x.Started(argv=["print"], cwd="/workspace", pid=7, env_names=["TOKEN"]),
            *blocks(chunks),
            x.Exited(exit_code=1, reason="exited", duration_ms=12),
        ]
        for n, event in enumerate(events, 1):
            cause = "start" if n == 1 else ""
            await self.say("demo", event, key="x-1", n=n, cause=cause)


async def tell(*orgs: str) -> tuple[MemoryBus, list[Story]]:
    """A bus on which every organisation's story has happened."""
    bus = MemoryBus(MemoryServer())
    await bus.ensure(STREAMS)
    stories = [Story(org, bus) for org in orgs]
    for story in stories:
        await story.tell()
    return bus, stories
