"""Commands and their one outcome, from the streams alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sandreel_core import clock
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import Stream
from sandreel_core.client import Client
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Command
from sandreel_core.contract.subjects import CMD, SessionSubjects
from sandreel_core.contract.workspace import EnvPatched, PatchEnv
from sandreel_core.errors import Malformed
from tests.support.script import job, life, message

ORG = "acme"
S1, S2 = SessionSubjects(ORG, "s1"), SessionSubjects(ORG, "s2")
STREAMS = [
    Stream("REEL-0", ("evt.0.>",), 1 << 30, metadata={"epoch": "e1"}),
    Stream(CMD, ("cmd.>",), 1 << 28, per_subject=1, discard_new_per_subject=True),
]


async def world() -> tuple[MemoryBus, Client]:
    bus = MemoryBus()
    await bus.ensure(STREAMS)
    return bus, Client(bus)


async def sent(bus: MemoryBus, subjects: SessionSubjects, command: Command, body: bytes | None = None) -> str:
    id = clock.new_id()
    subject = subjects.command(command.role, id)
    sealed = seal(command, id=id, source="/t", subject=subject, time=datetime.now(UTC), actor="ada")
    await bus.append(subject, body if body is not None else encode(sealed))
    return id


async def test_each_command_has_the_first_event_that_names_it() -> None:
    bus, client = await world()
    for each in life(S1):
        await bus.append(*each)
    started = await sent(bus, S1, x.Start(exec="x1", argv=["print"]))
    patched = await sent(bus, S1, PatchEnv(set={"A": "1"}))
    refused = await sent(bus, S1, s.Pin())
    settled = await sent(bus, S1, s.Pin())
    pending = await sent(bus, S2, s.Stop())
    accepted = message(S1, x.Accepted(boot_id="b"), key="x1", n=1, causationid=started)
    await bus.append(*accepted)
    await bus.append(*accepted)  # a repeat that a lost connection left
    await bus.append(*message(S1, EnvPatched(set={"A": "1"}), causationid=patched))
    no = s.CommandRefused(command_id=refused, code="NEWER_CONTRACT", message="no")
    await bus.append(*message(S1, no, causationid=refused))
    await bus.append(*message(S1, s.CommandSettled(command_id=settled), causationid=settled))

    found = await client.commands(ORG)

    assert [(each.where.command_id, each.state) for each in found] == [
        *((started, "done"), (patched, "done"), (refused, "refused"), (settled, "done"), (pending, "pending"))
    ]
    assert found[0].outcome is not None
    assert found[0].outcome.cursor == Cursor("e1", 0, 4)
    assert all(each.answered_ns is None or each.answered_ns >= each.asked_ns for each in found)
    assert [each.where.command_id for each in await client.commands(ORG, "s2")] == [pending]
    assert [each.where.command_id for each in await client.commands(ORG, limit=2)] == [settled, pending]
    assert [each.state for each in await client.commands(ORG, command_id=refused)] == ["refused"]


async def test_a_command_that_nobody_can_read_is_told_with_its_problem() -> None:
    bus, client = await world()
    await sent(bus, S1, s.Pin(), b'{"type": "session.pin", "actor": "ada", "data": 7}')
    await sent(bus, S1, s.Pin(), b"\xff")

    first, second = await client.commands(ORG)

    assert (first.type, first.actor, first.command, first.state) == ("session.pin", "ada", None, "pending")
    assert "BAD_REQUEST" in first.problem
    assert (second.type, second.command) == ("", None)


async def test_one_whose_exec_was_archived_is_unknown_and_not_pending() -> None:
    bus, client = await world()
    await sent(bus, S1, x.Start(exec="x1", argv=["print"]))
    await sent(bus, S1, x.Cancel(exec="x2"))
    for each in job(S1, "x1", [("stdout", b"1\n")]):
        await bus.append(*each)
    await bus.purge("REEL-0", S1.exec("x1"), keep=1)

    assert [each.state for each in await client.commands(ORG)] == ["unknown", "pending"]


async def test_names_and_limits_are_checked() -> None:
    _, client = await world()
    for org, session, options in (
        ("a*", None, {}),
        (ORG, ">", {}),
        (ORG, None, {"command_id": "*"}),
        (ORG, None, {"limit": 10_001}),
    ):
        with pytest.raises(Malformed):
            await client.commands(org, session, **options)
