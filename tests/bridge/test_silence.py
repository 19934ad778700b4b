"""An agent that says nothing for hours, on a virtual clock: nobody ends it, nothing is said to it, and that it is driven is seen."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from sandreel_bridge.control import LINGER_S
from sandreel_bridge.drive import Driver
from sandreel_bridge.index import Index
from sandreel_bridge.index import streams as bridge_streams
from sandreel_bridge.journal import Journal, Name
from sandreel_bridge.keys import Keys
from sandreel_bridge.line import Line
from sandreel_bridge.measures import BridgeMeasures
from sandreel_bridge.prompts import Prompts
from sandreel_bridge.reading import MAX_STATE_BYTES
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
from sandreel_core.contract.codec import decode_command, decode_event, encode, seal
from sandreel_core.contract.message import Event
from sandreel_core.contract.subjects import CMD, SessionSubjects
from sandreel_core.metrics import Metrics
from tests.support.memory_gateway import MemoryGateway
from tests.support.turns import AT, preparing, requested, started
from tests.support.virtual_time import VirtualLoop, run

HOUR_S = 3600.0
NAME = Name("acme", "s1", "t1")
SUBJECTS = SessionSubjects(NAME.org, NAME.session)
SUBJECT, EXEC = SUBJECTS.event("turn", NAME.turn), SUBJECTS.exec("t1-1")
ME = "/bridge/me"
INIT = b'{"type":"system","subtype":"init","session_id":"a1","model":"m","tools":[]}\n'
SAID = b'{"type":"assistant","message":{"id":"m1","model":"m","content":[{"type":"text","text":"here I am"}]},"session_id":"a1"}\n'
DONE = b'{"type":"result","subtype":"success","is_error":false,"terminal_reason":"completed","result":"here I am","session_id":"a1"}\n'


async def append(
    bus: Bus, subject: str, event: Event, *, source: str, n: int | None = None, cause: str | None = None
) -> None:
    sealed = seal(event, id=new_id(), source=source, subject=subject, time=AT, n=n, causationid=cause)
    await bus.append(subject, encode(sealed))


async def printed(bus: Bus, n: int, data: bytes, stream: Literal["stdout", "stderr"] = "stdout") -> None:
    output = x.Output(stream=stream, line=n, count=1, text=data.decode(), eol=True)
    await append(bus, EXEC, output, source="/runnerd/1", n=n)


async def driven(agent: str) -> tuple[MemoryBus, Journal, Driver]:
    """A turn whose program runs and has said nothing yet."""
    bus = MemoryBus()
    await bus.ensure([*streams(), *bridge_streams()])
    for event in (requested(agent=agent), preparing(), started()):
        await append(bus, SUBJECT, event, source=ME, cause="c1" if isinstance(event, c.TurnRequested) else None)
    await append(bus, EXEC, x.Accepted(boot_id="1-1"), source="/runnerd/1", n=1)
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
    return bus, journal, Driver(tools, journal)


async def silent(hours: int, begun: bytes) -> list[Event]:
    """What stands of the turn, of which nothing came for so long in the middle, or behind the beginning of a line."""
    bus, journal, drive = await driven("claude-code")
    await printed(bus, 2, INIT + begun)
    driver = asyncio.create_task(drive.run())
    await asyncio.sleep(hours * HOUR_S)
    assert not driver.done()
    assert await bus.last(CMD, "cmd.>") is None, "something was said to the program"
    await printed(bus, 3, (b"\n" if begun else b"") + SAID + DONE)
    await asyncio.sleep(1)
    assert await bus.last(CMD, "cmd.>") is not None, "now its input ends"
    await append(bus, EXEC, x.Exited(exit_code=0, reason="exited", duration_ms=1), source="/runnerd/1", n=4)
    async with asyncio.timeout(60):
        while journal.turn.phase != "finished":
            await asyncio.sleep(1)
    driver.cancel()
    assert journal.turn.finished is not None
    assert journal.turn.finished.status == "success"
    return await said(bus, SUBJECT)


async def said(bus: Bus, subject: str) -> list[Event]:
    after, found = 0, list[Event]()
    while (stored := await bus.next(SUBJECTS.stream, subject, after=after)) is not None:
        after = stored.sequence
        found.append(decode_event(subject, stored.body).data)
    return found


@pytest.mark.parametrize(("hours", "begun_bytes"), [(1, 0), (24, 0), (1, 2 * MAX_STATE_BYTES)])
def test_an_agent_may_be_silent_for_as_long_as_it_likes(
    hours: int, begun_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(loop: VirtualLoop) -> list[Event]:
        monkeypatch.setattr("sandreel_bridge.running.monotonic", loop.time)
        return await silent(hours, b"{" * begun_bytes)

    found = run(work)
    kinds = [event.type for event in found]
    marks = kinds.count("turn.checkpoint")
    assert abs(marks - hours * HOUR_S / IDLE_MARK_S) <= 2, "once a minute it is seen that it is driven"
    assert [kind for kind in kinds if kind != "turn.checkpoint"] == [
        *("turn.requested", "turn.preparing", "turn.started", "agent.run_started"),
        *("agent.text", "agent.result", "turn.finished"),
    ]


ANSWERED = b"""{"type":"thread.started","thread_id":"a1"}
{"type":"item.completed","item":{"id":"i1","type":"agent_message","text":"done"}}
{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":0,"output_tokens":1}}
"""


def test_a_program_that_hangs_behind_its_answer_is_ended_once_it_is_quiet_and_its_turn_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Codex: its input has ended at the start, so that nothing else would end it."""

    async def work(loop: VirtualLoop) -> None:
        monkeypatch.setattr("sandreel_bridge.running.monotonic", loop.time)
        bus, journal, drive = await driven("codex")
        driver = asyncio.create_task(drive.run())
        await asyncio.sleep(HOUR_S)
        await printed(bus, 2, ANSWERED)
        for n in range(3, 13):
            await asyncio.sleep(LINGER_S - 5)
            await printed(bus, n, b"still closing\n", "stderr")
        assert await bus.last(CMD, "cmd.>") is None, "something was said to a program at work"
        await asyncio.sleep(LINGER_S - 5)
        assert await bus.last(CMD, "cmd.>") is None
        await asyncio.sleep(15)  # it is looked at every 5 s
        sent = await bus.last(CMD, "cmd.>")
        assert sent is not None
        assert decode_command(sent.subject, sent.body).data == x.Cancel(exec="t1-1")
        gone = x.Exited(exit_code=None, signal="SIGTERM", reason="cancelled", duration_ms=1)
        await append(bus, EXEC, gone, source="/runnerd/1", n=13)
        await driver
        assert journal.turn.finished is not None
        assert journal.turn.finished.status == "success"

    run(work)
