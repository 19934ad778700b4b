"""The start of a turn's program: one key that is its own, and none that is replaced while it may be in use."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from msgspec.structs import replace

from sandreel_bridge import keys as keys_module
from sandreel_bridge import launching, sandbox
from sandreel_bridge.attempt import Attempt
from sandreel_bridge.drive import Driver
from sandreel_bridge.gateway.port import key_name
from sandreel_bridge.index import Conversation, Index, streams
from sandreel_bridge.journal import Journal, Name
from sandreel_bridge.keys import Keys
from sandreel_bridge.line import Line
from sandreel_bridge.measures import BridgeMeasures
from sandreel_bridge.process import Home
from sandreel_bridge.prompts import Prompts
from sandreel_bridge.settings import Settings
from sandreel_bridge.starting import Starting
from sandreel_bridge.tools import Tools
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.client import Client
from sandreel_core.contract import exec as x
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import decode_event, encode
from sandreel_core.contract.message import Event
from sandreel_core.contract.secret import AskSecret, Secret
from sandreel_core.errors import Denied, NotFound, Refused, Unavailable
from sandreel_core.keys import SealingKey
from sandreel_core.metrics import Metrics
from sandreel_core.session import Session
from tests.support.execlog import END, Writer
from tests.support.memory_gateway import MemoryGateway
from tests.support.recordings import Recording
from tests.support.turns import EXEC, ME, OTHER, OWNER, SUBJECTS, preparing, requested, said

NAME = Name("acme", "s1", "t1")
SUBJECT = SUBJECTS.event("turn", "t1")
pytestmark = pytest.mark.timeout(60)


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
        ask = AskSecret(lease=EXEC, exec=EXEC)
        answer = await self.bus.request("req.bridge.acme.s1.secret", msgspec.json.encode(ask))
        return self.sealing.open(msgspec.json.decode(answer, type=Secret).sealed).decode()


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> Place:
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
    for name in ("prepare_files", "place", "start"):
        monkeypatch.setattr(launching, name, nothing)
    monkeypatch.setattr(keys_module, "_PATIENCE_S", 0.01)
    return Place(bus, MemoryGateway(), sealing)


async def test_a_bridge_that_lost_the_turn_as_it_started_it_spoils_no_key_and_gives_none_out(place: Place) -> None:
    """Halted before it made its key, it goes on when its successor's program runs."""
    await place.say(requested(), preparing())
    home = await sandbox.look(Client(place.bus), NAME)
    halted = place.tools()
    lost = Starting(halted, await place.journal())
    await place.say(preparing(), source=OTHER)
    successor = place.tools()
    ours = Starting(successor, await place.journal(OTHER))
    await ours.start(home, pending=False)
    in_use = ours.attempt.key
    async with successor.keys.open():
        value = await place.key()
        assert value == place.gateway.values[in_use]
    await lost.start(home, pending=False)
    assert place.gateway.values[in_use] == value
    assert place.gateway.keys[in_use].live
    async with halted.keys.open():
        with pytest.raises(NotFound):
            await place.key()


async def test_a_key_that_is_needed_no_more_is_ended_before_the_next_is_made_since_each_holds_a_budget(
    place: Place,
) -> None:
    await place.say(requested(budget_micro_usd=1000), preparing(budget_micro_usd=1000))
    journal = await place.journal()
    starting, home = Starting(place.tools(), journal), await sandbox.look(Client(place.bus), NAME)
    await starting.start(home, pending=False)
    first = starting.attempt.key
    standing = place.gateway.keys[first]
    place.gateway.keys[first] = replace(standing, usage=c.Usage(cost_micro_usd=400))
    await journal.say(preparing(2, budget_micro_usd=1000))
    await starting.start(home, pending=True)
    assert place.gateway.keys[first].live, "an exec that begins at this moment may have it"
    await starting.start(home, pending=False)
    second = starting.attempt.key
    assert (first, second) == (key_name("acme", "s1", 1, "t1", 1), key_name("acme", "s1", 1, "t1", 2))
    assert [place.gateway.keys[each].live for each in (first, second)] == [False, True]
    assert Attempt.of(NAME, journal.turn).keys == (first, second)


async def test_an_interrupt_closes_the_gate(place: Place) -> None:
    await place.say(requested(), preparing())
    tools, journal = place.tools(), await place.journal()
    await Starting(tools, journal).start(await sandbox.look(tools.client, NAME), pending=False)
    async with tools.keys.open():
        assert await place.key()
        await place.say(c.TurnInterrupting())
        with pytest.raises(Denied):
            await place.key()


async def test_a_start_whose_answer_did_not_come_is_looked_for_before_the_turn_may_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is interrupted just then, and runnerd has accepted it: to finish would leave a program that nobody drives."""
    await place.say(requested(), preparing())
    tools, journal = place.tools(), await place.journal()
    writer = Writer(EXEC)

    async def unanswered(*_: object) -> None:
        for n, event in enumerate((x.Accepted(boot_id="b1"), END), 1):
            await place.bus.append(writer.subject, writer.body(event, n))
        await place.say(c.TurnInterrupting())
        await journal.catch_up()
        raise Unavailable("no answer within 30 s")

    monkeypatch.setattr(launching, "start", unanswered)
    await Driver(tools, journal).run()
    later = [type for type in await place.types() if type.startswith("turn.")][2:]
    assert later == ["turn.interrupting", "turn.started", "turn.finished"]
    assert not tools.keys.holds("acme", "s1", EXEC)


@pytest.mark.parametrize("where", ["make", "place"])
async def test_whoever_presses_stop_does_not_wait_for_a_boot_or_a_download(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    await place.say(requested())
    begun = asyncio.Event()

    async def endless(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    if where == "make":
        monkeypatch.setattr(sandbox, "look", asleep)
        monkeypatch.setattr(sandbox, "make", endless)
    else:
        monkeypatch.setattr(launching, "place", endless)
    tools, journal = place.tools(), await place.journal()
    driving = asyncio.create_task(Driver(tools, journal).run())
    await begun.wait()
    await place.say(c.TurnInterrupting())
    await journal.catch_up()
    await asyncio.wait_for(driving, 20)
    assert journal.turn.finished == c.TurnFinished(status="cancelled", usage=c.Usage(cost_micro_usd=0))
    assert not any(key.live for key in place.gateway.keys.values())


async def asleep(*_: object) -> Home:
    return Home(session=Session(phase="stopped", incarnation=1, owner=OWNER), sequence=0)


async def test_a_gateway_that_is_away_now_and_then_is_waited_for_each_time(place: Place) -> None:
    await place.say(requested())
    at_s = [0.0]
    starting = Starting(place.tools(), await place.journal(), monotonic=lambda: at_s[0])
    home = await sandbox.look(Client(place.bus), NAME)
    for at_s[0] in (0.0, 1000.0):
        place.gateway.trouble = Unavailable("no gateway")
        with pytest.raises(Unavailable):
            await starting.prepare(1, home)
        place.gateway.trouble = None
        await starting.prepare(1, home)


async def test_whoever_takes_a_turn_up_as_it_starts_knows_what_its_conversation_has_used_before(place: Place) -> None:
    """Codex counts by conversation: without that nobody can say what this turn has used."""
    await place.say(requested(agent="codex", conversation_id="talk"), preparing(), source=OTHER)
    tools, writer = place.tools(), Writer(EXEC)
    before = c.Usage(input_tokens=100, output_tokens=10)
    await tools.index.remember(
        "acme",
        "s1",
        "talk",
        Conversation(turn="t0", agent="codex", incarnation=1, agent_session_id="a1", thread_usage=before),
    )
    lines = (
        {"type": "thread.started", "thread_id": "a1"},
        {"type": "item.completed", "item": {"id": "i", "type": "agent_message", "text": "hello"}},
        {"type": "turn.completed", "usage": {"input_tokens": 150, "cached_input_tokens": 0, "output_tokens": 15}},
    )
    output = "".join(f"{msgspec.json.encode(line).decode()}\n" for line in lines)
    block = x.Output(stream="stdout", line=1, count=3, text=output, eol=True)
    for n, event in enumerate((x.Accepted(boot_id="b1"), block, END), 1):
        await place.bus.append(writer.subject, writer.body(event, n))
    journal = await place.journal()
    await Driver(tools, journal).run()
    assert journal.turn.finished is not None
    assert journal.turn.finished.usage == c.Usage(input_tokens=50, output_tokens=5)


@pytest.mark.parametrize(("name", "kept"), [("resume_missing", False), ("resume_2", True), ("error_401", True)])
async def test_a_conversation_that_its_program_has_lost_begins_anew_in_the_next_turn(
    place: Place, name: str, kept: bool
) -> None:
    await place.say(requested(conversation_id="talk"), preparing(agent_session_id="a1"))
    writer, output = Writer(EXEC), Recording("claude-code", name).stdout.decode()
    block = x.Output(stream="stdout", line=1, count=output.count("\n"), text=output, eol=True)
    for n, event in enumerate((x.Accepted(boot_id="b1"), block, replace(END, exit_code=1)), 1):
        await place.bus.append(writer.subject, writer.body(event, n))
    tools = place.tools()
    await Driver(tools, await place.journal()).run()
    found = await tools.index.conversation("acme", "s1", "talk")
    assert found is not None
    assert (found.agent_session_id is not None) is kept
    following = Journal(place.bus, Name("acme", "s1", "t2"), 1, source=ME)
    following.begin(said(requested(conversation_id="talk")), 1)
    goes_on = await Starting(tools, following).conversation(1)
    assert (goes_on is not None) is kept


async def test_a_program_that_began_while_a_successor_found_no_way_to_start_it_is_driven(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.say(requested(), preparing(), source=OTHER)
    journal, tools, writer = await place.journal(), place.tools(), Writer(EXEC)
    start_id = Attempt.of(NAME, journal.turn).start_id
    await place.bus.append(SUBJECTS.command("runnerd", start_id), b"{}")

    async def refuse(*_: object) -> tuple[str, ...]:
        for n, event in enumerate((x.Accepted(boot_id="b1"), END), 1):
            await place.bus.append(writer.subject, writer.body(event, n))
        raise Refused("NO_PROVIDER", "the org has none any more")

    monkeypatch.setattr(MemoryGateway, "enforce", refuse)
    await Driver(tools, journal).run()
    assert c.TurnStarted.type in await place.types()
    assert journal.turn.finished is not None
    assert journal.turn.finished.status == "interrupted"
