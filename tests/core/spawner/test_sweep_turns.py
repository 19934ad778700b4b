"""A session with an unfinished turn is never swept, whatever stands behind its events, and one whose turns are over is."""

from __future__ import annotations

import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.clock import new_id, now
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.message import Event
from sandreel_core.contract.session import CommandRefused
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.spawner.heads import Heads
from sandreel_core.spawner.journal import Journal
from sandreel_core.spawner.sweep import Sweeper

SUBJECTS = SessionSubjects("acme", "one")
ASKED = c.TurnRequested(agent="claude-code", prompt="hi")
OVER = c.TurnFinished(status="plan")
REFUSED = CommandRefused(command_id="c", code="TURN_FINISHED", message="it is finished")
SAID = a.AgentText(source_n=1, text="hello")


@pytest.mark.parametrize(
    ("events", "unfinished"),
    [
        ([], False),
        ([ASKED], True),
        ([ASKED, SAID], True),
        ([ASKED, c.TurnInterrupting()], True),
        ([ASKED, REFUSED], True),
        ([ASKED, OVER], False),
        ([ASKED, OVER, REFUSED], False),
        ([ASKED, OVER, c.PlanApproved(next_turn="t1-go")], False),
        ([REFUSED], False),
    ],
)
async def test_whether_a_turn_is_unfinished(events: list[Event], unfinished: bool) -> None:
    bus = MemoryBus()
    await ensure_installation(bus)
    subject = SUBJECTS.event("turn", "t1")
    for event in events:
        sealed = seal(event, id=new_id(), source="/bridge/test", subject=subject, time=now())
        await bus.append(subject, encode(sealed))
    sweeper = Sweeper(bus, Journal(bus, source="/spawner/test", partitions=1), Heads(bus), stop_within_s=60)
    assert await sweeper._unfinished_turn(SUBJECTS) is unfinished
