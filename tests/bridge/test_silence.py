"""An agent that says nothing for hours, on a virtual clock: nobody ends it, nothing is said to it, and that it is driven is seen."""

from __future__ import annotations

import asyncio

import pytest

from sandreel_bridge.drive import Driver
from sandreel_bridge.index import Index
from sandreel_bridge.index import streams as bridge_streams
from sandreel_bridge.journal import Journal, Name
from sandreel_bridge.keys import Keys
from sandreel_bridge.line import Line
from sandreel_bridge.measures import BridgeMeasures
from sandreel_bridge.prompts import Prompts
from sandreel_bridge.running import IDLE_MARK_S
from sandreel_bridge.settings import Settings
from sandreel_bridge.tools import Tools
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import Bus
from sandreel_core.bus.streams import streams
from sandreel_core.client import Client
from sandreel_core.clock import new_id
from sandreel_core.contract import exec as x
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import decode_event, encode, seal
from sandreel_core.contract.message import Event
from sandreel_core.contract.subjects import CMD, SessionSubjects
from sandreel_core.metrics import Metrics
from tests.support.memory_gateway import MemoryGateway
from tests.support.turns import AT, preparing, requested, started
from tests.support.virtual_time import VirtualLoop, run

HOUR_S = 3600.0
NAME = Name("acme", "s1", "t1")
SUBJECTS = SessionSubjects(NAME.org, NAME.session)
ME = "/bridge/me"
INIT = b'{"type":"system","subtype":"init","session_id":"a1","model":"m","tools":[]}\n'
SAID = b'{"type":"assistant","message":{"id":"m1","model":"m","content":[{"type":"text","text":"here I am"}]},"session_id":"a1"}\n'
DONE = b'{"type":"result","subtype":"success","is_error":false,"terminal_reason":"completed","result":"here I am","session_id":"a1"}\n'


async def append(
    bus: Bus, subject: str, event: Event, *, source: str, n: int | None = None, cause: str | None = None
) -> None:
    sealed = seal(event, id=new_id(), source=source, subject=subject, time=AT, n=n, causationid=cause)
    await bus.append(subject, encode(sealed))


async def printed(bus: Bus, n: int, data: bytes) -> None:
    output = x.Output(stream="stdout", line=n, count=1, text=data.decode(), eol=True)
    await append(bus, SUBJECTS.exec("t1-1"), output, source="/runnerd/1", n=n)


async def silent(loop: VirtualLoop, hours: int) -> list[Event]:
    """What stands of the turn, of which nothing came for so long in the middle."""
    bus = MemoryBus()
    await bus.ensure([*streams(), *bridge_streams()])
    subject, exec = SUBJECTS.event("turn", NAME.turn), SUBJECTS.exec("t1-1")
    for event in (requested(), preparing(), started()):
        await append(bus, subject, event, source=ME, cause="c1" if isinstance(event, c.TurnRequested) else None)
    await append(bus, exec, x.Accepted(boot_id="1-1"), source="/runnerd/1", n=1)
    await printed(bus, 2, INIT)
    known = Index(bus)
    tools = Tools(
        bus=bus,
        client=Client(bus, actor="bridge"),
        index=known,
        line=Line(bus, known, 1),
        keys=Keys(bus),
        prompts=Prompts(bus),
        gateway=MemoryGateway(),
        settings=Settings(gateway_url="http://127.0.0.1:9"),
        measures=BridgeMeasures(Metrics()),
    )
    journal = Journal(bus, NAME, 1, source=ME)
    await journal.catch_up()
    driver = asyncio.create_task(Driver(tools, journal).run())
    await asyncio.sleep(hours * HOUR_S)
    assert not driver.done()
    assert await bus.last(CMD, "cmd.>") is None, "something was said to the program"
    await printed(bus, 3, SAID + DONE)
    await asyncio.sleep(1)
    assert await bus.last(CMD, "cmd.>") is not None, "now its input ends"
    await append(bus, exec, x.Exited(exit_code=0, reason="exited", duration_ms=1), source="/runnerd/1", n=4)
    async with asyncio.timeout(60):
        while journal.turn.phase != "finished":
            await asyncio.sleep(1)
    driver.cancel()
    assert journal.turn.finished is not None
    assert journal.turn.finished.status == "success"
    return await said(bus, subject)


async def said(bus: Bus, subject: str) -> list[Event]:
    after, found = 0, list[Event]()
    while (stored := await bus.next(SUBJECTS.stream, subject, after=after)) is not None:
        after = stored.sequence
        found.append(decode_event(subject, stored.body).data)
    return found


@pytest.mark.parametrize("hours", [1, 24])
def test_an_agent_may_be_silent_for_as_long_as_it_likes(hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(loop: VirtualLoop) -> list[Event]:
        monkeypatch.setattr("sandreel_bridge.running.monotonic", loop.time)
        return await silent(loop, hours)

    found = run(work)
    kinds = [event.type for event in found]
    marks = kinds.count("turn.checkpoint")
    assert abs(marks - hours * HOUR_S / IDLE_MARK_S) <= 2, "once a minute it is seen that it is driven"
    assert [kind for kind in kinds if kind != "turn.checkpoint"] == [
        *("turn.requested", "turn.preparing", "turn.started", "agent.run_started"),
        *("agent.text", "agent.result", "turn.finished"),
    ]
