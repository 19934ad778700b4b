"""What a person says to a program that runs: what stands in the log about it, and in which order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sandreel_bridge.adapters.table import adapter
from sandreel_bridge.backlog import Backlog
from sandreel_bridge.journal import Journal, Name
from sandreel_bridge.mailbox import Mailbox
from sandreel_bridge.steering import message_uuid
from sandreel_core.bus.crew import Crew
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.client import Client
from sandreel_core.client.commands import Outcome
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import decode_event, encode
from sandreel_core.contract.message import Event
from sandreel_core.errors import Refused, Unavailable
from tests.support.turns import ME, RUNNING, SUBJECTS, result, said

SUBJECT = SUBJECTS.event("turn", "t1")
pytestmark = pytest.mark.timeout(30)
SENT = (
    c.SteerQueued(message_id="m1", text="and this"),
    c.SteerDelivered(message_ids=["m1"], channel="stdin"),
)


def shown(state: str) -> a.AgentRaw:
    """The program's own line about the message."""
    line = {"type": "command_lifecycle", "command_uuid": message_uuid("t1", ["m1"]), "state": state}
    return a.AgentRaw(source_n=4, payload=line)


@asynccontextmanager
async def opened(*events: Event) -> AsyncIterator[tuple[MemoryBus, Journal, Mailbox, Backlog]]:
    """A turn with this log, driven by us."""
    bus = MemoryBus()
    await ensure_installation(bus)
    for event in events:
        command = "c1" if isinstance(event, c.TurnRequested | c.SteerQueued) else None
        await bus.append(SUBJECT, encode(said(event, command=command)))
    journal = Journal(bus, Name("acme", "s1", "t1"), 1, source=ME)
    await journal.catch_up()
    mailbox = Mailbox(Client(bus), journal, adapter("claude-code"))
    backlog = Backlog(journal, heard=mailbox.heard)
    async with Crew() as crew:
        crew.start(backlog.run())
        yield bus, journal, mailbox, backlog


async def types(bus: MemoryBus) -> list[str]:
    found: list[str] = []
    async for item in bus.follow("REEL-0", [SUBJECT], live=False):
        found += [decode_event(SUBJECT, stored.body).type for stored in (item if isinstance(item, list) else ())]
    return found


@pytest.mark.parametrize(
    ("state", "event", "place"),
    [("started", c.SteerConsumed.type, "consumed"), ("cancelled", c.SteerRequeued.type, "requeued")],
)
async def test_what_became_of_a_message_stands_in_front_of_the_line_that_shows_it(
    state: str, event: str, place: str
) -> None:
    """A bridge that is killed between the two would pass over the line, and the message would open the next turn as well."""
    async with opened(*RUNNING, *SENT) as (bus, journal, _, backlog):
        batches: list[int] = []
        append_all = bus.append_all

        async def counting(subject: str, bodies: list[bytes], *, expected: int) -> int:
            batches.append(len(bodies))
            return await append_all(subject, bodies, expected=expected)

        bus.append_all = counting  # type: ignore[assignment, method-assign]
        await backlog.put(shown(state))
        await backlog.put(shown(state))
        await backlog.emptied()
        assert (await types(bus))[len(RUNNING) + len(SENT) :] == [event, "agent.raw", "agent.raw"]
        assert batches[0] >= 2
        assert journal.turn.messages["m1"].place == place


@pytest.mark.parametrize("code", ["STALE", "OUTCOME_UNKNOWN"])
async def test_what_a_driver_before_us_delivered_long_ago_keeps_nothing_back(
    monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    sent: list[Any] = []

    async def send(self: Client, org: str, session: str, command: Any, **_: Any) -> Outcome:
        sent.append(command)
        raise Refused(code, "the command's id is too old")

    monkeypatch.setattr(Client, "send", send)
    async with opened(*RUNNING, *SENT) as (_, journal, mailbox, _backlog):
        assert await mailbox.attend() is None
        assert len(sent) == 1
        assert await mailbox.attend() is None
        assert len(sent) == 1, "once is enough"
        assert (journal.turn.waiting, list(journal.turn.requeued)) == ([], ["m1"]), "it opens the next turn"


async def test_a_message_that_found_no_server_is_written_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written down as delivered by then: without a second try the agent would wait for it, and we for the agent."""
    sent: list[str | None] = []

    async def send(self: Client, org: str, session: str, command: Any, *, command_id: str, **_: Any) -> None:
        sent.append(command_id)
        if len(sent) == 1:
            raise Unavailable("no answer within 5 s")

    monkeypatch.setattr(Client, "send", send)
    async with opened(*RUNNING, result(), SENT[0]) as (bus, journal, mailbox, _backlog):
        with pytest.raises(Unavailable):
            await mailbox.attend()
        assert journal.turn.messages["m1"].channel == "stdin"
        assert await mailbox.attend() is None
        assert await mailbox.attend() is None
        assert len(sent) == 2
        assert len(set(sent)) == 1, "under one id, for the first may have come"
        assert (await types(bus)).count(c.SteerDelivered.type) == 1
