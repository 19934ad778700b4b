"""A session that is ready and the bridges that start a turn in it, over a log in memory."""

from __future__ import annotations

import msgspec
import pytest

from sandreel_bridge import keys as keys_module
from sandreel_bridge import launching, sandbox
from sandreel_bridge.index import Index, streams
from sandreel_bridge.journal import Journal, Name
from sandreel_bridge.keys import Keys
from sandreel_bridge.line import Line
from sandreel_bridge.measures import BridgeMeasures
from sandreel_bridge.process import Home
from sandreel_bridge.prompts import Prompts
from sandreel_bridge.settings import Settings
from sandreel_bridge.tools import Tools
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.client import Client, Outcome
from sandreel_core.contract import exec as x
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import decode_event, encode
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Event
from sandreel_core.contract.secret import AskSecret, Secret
from sandreel_core.keys import SealingKey
from sandreel_core.metrics import Metrics
from sandreel_core.session import Session
from tests.support.execlog import Writer
from tests.support.memory_gateway import MemoryGateway
from tests.support.turns import EXEC, ME, OWNER, SUBJECTS, said

NAME = Name("acme", "s1", "t1")
SUBJECT = SUBJECTS.event("turn", "t1")


class Place:
    """A bus with the turn's log, and what the bridges work with."""

    def __init__(self, bus: MemoryBus, gateway: MemoryGateway, sealing: SealingKey) -> None:
        self.bus, self.gateway, self.sealing = bus, gateway, sealing

    def tools(self) -> Tools:
        bus, index = self.bus, Index(self.bus)
        return Tools(
            bus=bus,
            client=Client(bus),
            index=index,
            line=Line(bus, index, 1),
            prompts=Prompts(bus),
            keys=Keys(bus),
            gateway=self.gateway,
            settings=Settings(gateway_url="http://gateway"),
            measures=BridgeMeasures(Metrics()),
        )

    async def say(self, *events: Event, source: str = ME) -> None:
        for event in events:
            command = "c1" if isinstance(event, c.TurnRequested | c.TurnInterrupting) else None
            await self.bus.append(SUBJECT, encode(said(event, source=source, command=command)))

    async def journal(self, source: str = ME) -> Journal:
        journal = Journal(self.bus, NAME, 1, source=source)
        await journal.catch_up()
        return journal

    async def types(self) -> list[str]:
        found: list[str] = []
        async for item in self.bus.follow("REEL-0", [SUBJECT], live=False):
            found += [decode_event(SUBJECT, stored.body).type for stored in (item if isinstance(item, list) else ())]
        return found

    async def key(self) -> str:
        """The key that the exec's runnerd is given."""
        return self.sealing.open(msgspec.json.decode(await self.ask(EXEC), type=Secret).sealed).decode()

    async def ask(self, exec: str) -> bytes:
        body = msgspec.json.encode(AskSecret(lease=exec, exec=exec))
        return await self.bus.request("req.bridge.acme.s1.secret", body)


def outcome(event: x.ExecEvent) -> Outcome:
    """What a start is answered by."""
    writer = Writer(EXEC)
    return Outcome("c1", Cursor("e", 0, 1), decode_event(writer.subject, writer.body(event, 1)))


async def open_place(monkeypatch: pytest.MonkeyPatch) -> Place:
    """A session that is ready, whose runnerd takes every file and every start."""
    bus, sealing = MemoryBus(), SealingKey()
    await ensure_installation(bus)
    await bus.ensure(streams(), [])
    home = Home(
        session=Session(phase="ready", incarnation=1, owner=OWNER, public_keys={"seal": sealing.public}), sequence=0
    )

    async def look(*_: object) -> Home:
        return home

    async def nothing(*_: object, **__: object) -> None:
        return None

    monkeypatch.setattr(sandbox, "look", look)

    async def accepted(*_: object) -> Outcome:
        return outcome(x.Accepted(boot_id="b1"))

    for name in ("prepare_files", "place"):
        monkeypatch.setattr(launching, name, nothing)
    monkeypatch.setattr(launching, "start", accepted)
    monkeypatch.setattr(keys_module, "_PATIENCE_S", 0.01)
    return Place(bus, MemoryGateway(), sealing)
