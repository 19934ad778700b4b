"""An exec's output as events of its turn: each once, whoever reads it, and wherever he was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sandreel_bridge import reading as module
from sandreel_bridge.adapters.table import adapter
from sandreel_bridge.backlog import Backlog
from sandreel_bridge.journal import Journal, Name
from sandreel_bridge.reading import Reading
from sandreel_bridge.running import claim
from sandreel_core.bus.crew import Crew
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.contract import agent as a
from sandreel_core.contract import exec as x
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import decode_event, encode
from sandreel_core.contract.message import Envelope
from tests.support.execlog import END, Writer
from tests.support.recordings import Recording
from tests.support.turns import EXEC, ME, OTHER, RUNNING, SUBJECTS, said

NAME = Name("acme", "s1", "t1")
SUBJECT = SUBJECTS.event("turn", "t1")
pytestmark = pytest.mark.timeout(60)


class Killed(Exception):
    """Whoever drove the turn is."""


class Mortal(MemoryBus):
    """Takes so many events of the turn (None: any number), and then none any more."""

    left: int | None = None

    async def append_all(self, subject: str, bodies: Sequence[bytes], *, expected: int) -> int:
        if self.left is None or len(bodies) <= self.left:
            self.left = None if self.left is None else self.left - len(bodies)
            return await super().append_all(subject, bodies, expected=expected)
        if self.left:
            await super().append_all(subject, bodies[: self.left], expected=expected)
        raise Killed


async def opened(output: list[bytes], end: x.Exited = END) -> Mortal:
    """A turn whose exec has printed these blocks, and has ended."""
    bus = Mortal()
    await ensure_installation(bus)
    for event in RUNNING:
        command = "c1" if isinstance(event, c.TurnRequested) else None
        await bus.append(SUBJECT, encode(said(event, command=command)))
    writer = Writer(EXEC)
    blocks = [
        x.Output(stream="stdout", line=1, count=0, text=block.decode(), eol=block.endswith(b"\n")) for block in output
    ]
    for n, printed in enumerate((x.Accepted(boot_id="b1"), *blocks, end), 1):
        await bus.append(writer.subject, writer.body(printed, n))
    return bus


async def journal_of(bus: MemoryBus, source: str) -> Journal:
    journal = Journal(bus, NAME, 1, source=source)
    await journal.catch_up()
    return journal


async def read(bus: MemoryBus, journal: Journal) -> Reading:
    """To the end."""
    backlog = Backlog(journal)
    reading = Reading(bus, journal, EXEC, adapter("claude-code").reader, backlog)
    async with Crew() as crew:
        crew.start(backlog.run())
        await reading.run()
        await reading.mark()  # the heartbeat of a silent program may be due at that very moment
        await backlog.emptied()
    return reading


async def told(bus: MemoryBus) -> list[Envelope]:
    found: list[Envelope] = []
    async for item in bus.follow("REEL-0", [SUBJECT], live=False):
        found += [decode_event(SUBJECT, stored.body) for stored in (item if isinstance(item, list) else ())]
    return found


def agents(events: list[Envelope]) -> list[Any]:
    return [event.data for event in events if isinstance(event.data, a.AgentEvent)]


async def test_behind_the_end_of_its_program_no_checkpoint_stands() -> None:
    """Whoever went on from there would wait for an end that he has passed."""
    bus = await opened([b'{"type":"other"}\n'])
    reading = await read(bus, await journal_of(bus, ME))
    assert reading.end == END
    assert c.Checkpoint not in [type(event.data) for event in await told(bus)]


async def test_whoever_goes_on_says_what_is_missing_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at each point of a real agent's turn, between any two events, also within a batch (a server that was killed)."""
    monkeypatch.setattr(module, "EVERY_EVENTS", 5)  # checkpoints, too, at many places
    data = Recording("claude-code", "agent").stdout
    blocks = [data[at : at + 700] for at in range(0, len(data), 700)]
    whole = await opened(blocks)
    await read(whole, await journal_of(whole, ME))
    events = await told(whole)
    expected, points = agents(events), len(events) - len(RUNNING)
    assert points > len(expected) >= 20, "checkpoints are among them"
    for point in range(points):
        bus = await opened(blocks)
        bus.left = point
        with pytest.raises(ExceptionGroup) as raised:
            await read(bus, await journal_of(bus, ME))
        assert raised.value.subgroup(Killed) is not None
        bus.left = None
        successor = await journal_of(bus, OTHER)
        await claim(successor)
        await read(bus, successor)
        assert agents(await told(bus)) == expected, f"killed behind {point} events"
