"""A turn whose program runs, as long as it is ours."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from sandreel_bridge.adapters.adapter import Launch
from sandreel_bridge.adapters.table import adapter
from sandreel_bridge.backlog import Backlog
from sandreel_bridge.journal import Journal, Name
from sandreel_bridge.mailbox import Mailbox
from sandreel_bridge.reading import Reading
from sandreel_bridge.running import Running
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.client import Client
from sandreel_core.contract.codec import encode
from sandreel_core.contract.exec import MAX_STDIN_BYTES, Signal, WriteStdin
from sandreel_core.contract.turn import TurnInterrupting
from sandreel_core.errors import Conflict
from tests.support.turns import ME, RUNNING, SUBJECTS, said

NAME = Name("acme", "s1", "t1")
SUBJECT = SUBJECTS.event("turn", "t1")


class Silent:
    """A program that says nothing."""

    read_n = 1

    async def run(self) -> None:
        await asyncio.Event().wait()


class Overtaken:
    """A mailbox that finds that somebody else has said something."""

    async def attend(self) -> float | None:
        raise Conflict("another bridge has said something")


class Idle:
    """A mailbox without messages."""

    async def attend(self) -> float | None:
        return None


async def running(mailbox: object, *, stdin: bytes = b"", stopped: bool = False) -> tuple[MemoryBus, Running]:
    bus = MemoryBus()
    await ensure_installation(bus)
    for event in RUNNING:
        await bus.append(SUBJECT, encode(said(event)))
    if stopped:
        await bus.append(SUBJECT, encode(said(TurnInterrupting(), command="c1")))
    journal = Journal(bus, NAME, 1, source=ME)
    await journal.catch_up()
    found: Any = adapter("claude-code")
    launch = Launch(argv=["x"], cwd="/workspace", env={}, secret_env={}, stdin=stdin, hold_stdin=True, files={})
    reading, backlog = cast("Reading", Silent()), Backlog(journal)
    return bus, Running(Client(bus), journal, found, launch, reading, backlog, cast("Mailbox", mailbox))


@pytest.mark.timeout(20)
async def test_whoever_meets_it_that_the_turn_is_not_ours_any_more_it_is_left() -> None:
    """Also beside the reading: as a group of errors it would pass for a bug, and the turn would be taken back."""
    _, ours = await running(Overtaken())
    with pytest.raises(Conflict):
        await ours.run()


@pytest.mark.timeout(20)
async def test_a_program_that_does_not_read_its_long_input_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    told: asyncio.Queue[object] = asyncio.Queue()

    async def send(self: Client, org: str, session: str, command: object, **_: Any) -> None:
        told.put_nowait(command)
        if isinstance(command, WriteStdin):
            await asyncio.Event().wait()

    monkeypatch.setattr(Client, "send", send)
    _, ours = await running(Idle(), stdin=b"x" * (MAX_STDIN_BYTES + 1), stopped=True)
    task = asyncio.create_task(ours.run())
    assert {type(await told.get()), type(await told.get())} == {WriteStdin, Signal}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
