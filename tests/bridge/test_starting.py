"""The start of a turn's program, whatever becomes of its bridge, its session and its gateway meanwhile."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from msgspec.structs import replace

from sandreel_bridge import launching, sandbox
from sandreel_bridge.attempt import Attempt
from sandreel_bridge.drive import Driver
from sandreel_bridge.index import Conversation
from sandreel_bridge.journal import Journal, Name
from sandreel_bridge.process import Home
from sandreel_bridge.starting import Starting
from sandreel_core.client import Client, Outcome
from sandreel_core.contract import exec as x
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.session import Destroying
from sandreel_core.errors import Refused, Unavailable
from sandreel_core.session import Session
from tests.support.execlog import END, Writer
from tests.support.memory_gateway import MemoryGateway
from tests.support.recordings import Recording
from tests.support.starts import NAME, Place, outcome
from tests.support.turns import AT, EXEC, ME, OTHER, OWNER, SUBJECTS, preparing, requested, said

pytestmark = pytest.mark.timeout(60)


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


async def test_a_start_that_its_boot_did_not_live_to_take_up_ran_nowhere_and_is_made_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spawner closes it with `exec.lost` as its exec's first event: to take that for a run would end the turn, and no exec of that
    id ever starts."""
    await place.say(requested())
    tools, journal = place.tools(), await place.journal()
    started: list[str] = []

    async def start(client: Client, attempt: Attempt, launch: object) -> Outcome:
        started.append(attempt.exec)
        lost = x.Lost(boot_id="b1", last_n=0, cause="container_exit")
        events = [lost] if len(started) < 3 else [x.Accepted(boot_id="b2"), END]
        writer = Writer(attempt.exec)
        bodies = [writer.body(event, n) for n, event in enumerate(events, 1)]
        for body in bodies:
            await place.bus.append(writer.subject, body)
        if len(started) == 2:
            raise Unavailable("its answer did not come")
        return outcome(events[0])

    monkeypatch.setattr(launching, "start", start)
    await Driver(tools, journal).run()
    assert started == ["t1-1", "t1-2", "t1-3"]
    types = [type for type in await place.types() if type.startswith("turn.")]
    assert types == ["turn.requested", *["turn.preparing"] * 3, "turn.started", "turn.finished"]
    assert not any(key.live for key in place.gateway.keys.values())


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


@pytest.mark.parametrize("before", [False, True])
async def test_a_turn_does_not_run_in_the_next_life_of_a_session_that_was_destroyed_while_it_waited(
    place: Place, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """Whoever has made it again meanwhile did not do so for that turn. One that was asked for behind the destroy may have it."""

    async def destroyed() -> None:
        subject = SUBJECTS.event("session")
        said = seal(Destroying(until=AT), id="d", source="/spawner", subject=subject, time=AT)
        await place.bus.append(subject, encode(said))

    async def again(*_: object) -> Home:
        return Home(session=Session(phase="ready", incarnation=2, owner=OWNER), sequence=99)

    monkeypatch.setattr(sandbox, "look", again)
    if before:
        await destroyed()
    await place.say(requested())
    if not before:
        await destroyed()
    tools, journal = place.tools(), await place.journal()
    place.gateway.trouble = Refused("NO_PROVIDER", "it would have begun")
    await Driver(tools, journal).run()
    assert journal.turn.finished is not None
    assert (journal.turn.finished.status, journal.turn.finished.error) == (
        ("failed", "NO_PROVIDER: it would have begun") if before else ("cancelled", "the session was destroyed")
    )


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
