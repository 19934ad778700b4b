"""What is kept beside the log: which turns are open, where conversations stand."""

from __future__ import annotations

from msgspec.structs import replace

from sandreel_bridge.index import CONVERSATIONS, Conversation, Index, streams
from sandreel_bridge.journal import Name
from sandreel_bridge.restored import reopen
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import encode
from sandreel_core.contract.message import Event
from sandreel_core.contract.session import CommandRefused
from tests.support.turns import RUNNING, SUBJECTS, requested, said

NAME = Name("acme", "s1", "t1")
TALK = Conversation(turn="t1", agent="claude-code", incarnation=1, agent_session_id="a1")


async def test_a_turn_that_a_restored_log_has_and_the_index_has_not_is_taken_up() -> None:
    """It was asked for while the backup was being made. Nobody would ever drive it, nor sweep its session."""
    bus, finished = MemoryBus(), c.TurnFinished(status="success")
    await ensure_installation(bus)
    await bus.ensure(streams())
    index = Index(bus)

    async def has(turn: str, *events: Event) -> None:
        for event in events:
            await bus.append(
                SUBJECTS.event("turn", turn),
                encode(replace(said(event, command="c1"), subject=SUBJECTS.event("turn", turn))),
            )

    async def carried_out(turn: str) -> None:
        await has(turn, requested(), c.PlanProposed(plan="x"), finished, c.PlanApproved(next_turn=f"{turn}-go"))

    await has("over", requested(), finished)
    await reopen(bus, index, 1)
    await has("asked", requested())
    await has("runs", *RUNNING)
    await carried_out("carried")
    await has("carried-go", requested(), finished)
    await carried_out("approved")
    await has("refused", CommandRefused(command_id="c1", code="NO", message="no"))
    await reopen(bus, index, 1)
    assert await index.unsettled() == [], "this log was looked at before"
    await bus.renew_epoch(SUBJECTS.stream, "another")
    await reopen(bus, index, 1)
    assert {name.turn for name in await index.unsettled()} == {"asked", "runs", "approved"}


async def test_conversations_without_number_keep_no_turn_from_starting_or_ending() -> None:
    bus = MemoryBus()
    await bus.ensure([replace(each, max_bytes=4096) if each.name == CONVERSATIONS else each for each in streams()])
    index = Index(bus)
    for number in range(100):
        await index.remember("acme", "s1", f"talk-{number}", TALK)
    assert await index.conversation("acme", "s1", "talk-0") == TALK
    assert await index.conversation("acme", "s1", "talk-99") is None, "which begins anew"
    await index.open(NAME, "talk-99")
    assert await index.unsettled() == [NAME]
    await index.settled(NAME)
    assert await index.unsettled() == []
