"""What is kept beside the log: which turns are open, where conversations stand."""

from __future__ import annotations

from msgspec.structs import replace

from sandreel_bridge.index import CONVERSATIONS, Conversation, Index, streams
from sandreel_bridge.journal import Name
from sandreel_core.bus.memory import MemoryBus

NAME = Name("acme", "s1", "t1")
TALK = Conversation(turn="t1", agent="claude-code", incarnation=1, agent_session_id="a1")


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
