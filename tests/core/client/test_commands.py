"""Commands of the client: one outcome each, however often they are sent."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from socket import gethostname

import msgspec
import pytest

from sandreel_core import clock
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.memory_parts import Fate
from sandreel_core.client import Client, ExecHandle, Output
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract.subjects import CMD
from sandreel_core.contract.workspace import EnvPatched
from sandreel_core.errors import Refused, Unavailable
from tests.core.client.conftest import ORG, SESSION, printed, seen
from tests.support.fake_roles import Roles


async def test_a_command_that_the_contract_refuses_is_never_sent(client: Client, roles: Roles) -> None:
    handled = list(roles.handled)

    with pytest.raises(Refused) as refused:
        await client.exec(ORG, SESSION, [], exec="x1")

    assert refused.value.code == "BAD_REQUEST"
    assert roles.handled == handled


async def test_law_7_two_clients_that_send_one_command_get_one_outcome(
    client: Client, bus: MemoryBus, roles: Roles
) -> None:
    other, command_id = Client(MemoryBus(bus.server), answer_timeout_s=5), clock.new_id()

    first, second = await asyncio.gather(
        client.exec(ORG, SESSION, ["print", "once"], exec="x1", command_id=command_id),
        other.exec(ORG, SESSION, ["print", "once"], exec="x1", command_id=command_id),
    )
    third = await other.exec(ORG, SESSION, ["print", "once"], exec="x1", command_id=command_id)

    assert first.cursor == second.cursor == third.cursor
    assert roles.handled.count(command_id) == 1
    assert printed(await seen(client, "x1")) == b"once"


async def test_law_7_a_refusal_is_the_same_for_everybody_who_repeats_the_command(client: Client) -> None:
    command_id = clock.new_id()
    codes = []

    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await client.exec(ORG, SESSION, ["refuse", "EXEC_LIMIT"], exec="x1", command_id=command_id)
        codes.append(refused.value.code)

    assert codes == ["EXEC_LIMIT", "EXEC_LIMIT"]


async def test_an_append_without_acknowledgement_is_tried_again_and_carried_out_once(
    client: Client, bus: MemoryBus, roles: Roles
) -> None:
    lost = 0

    def fate(subject: str, body: bytes) -> Fate:
        nonlocal lost
        lost += 1
        return "lose_ack" if lost == 1 else None

    bus.fate = fate
    before = len(roles.handled)

    await client.exec(ORG, SESSION, ["print", "x"], exec="x1")

    assert lost == 2
    assert len(roles.handled) == before + 1


async def test_no_answer_ends_in_unavailable_with_the_id_to_ask_again_with(client: Client, roles: Roles) -> None:
    roles.mute = True
    command_id = clock.new_id()

    with pytest.raises(Unavailable, match=command_id):
        await client.exec(ORG, SESSION, ["print"], exec="x1", command_id=command_id, answer_timeout_s=0.1)


async def chatty(bus: MemoryBus, client: Client) -> tuple[ExecHandle, int]:
    """An exec that has printed since this client heard of it, and where the log ends."""
    handle = await client.exec(ORG, SESSION, ["cat"], hold_stdin=True)
    await Client(MemoryBus(bus.server)).write_stdin(ORG, SESSION, handle.id, "much\n")
    async with asyncio.timeout(5), aclosing(handle.follow()) as items:
        async for item in items:
            if isinstance(item, Output):
                break
    return handle, (await bus.state("REEL-0")).last_sequence


async def test_an_answer_is_not_looked_for_in_what_was_printed_before(
    client: Client, bus: MemoryBus, begun: list[int]
) -> None:
    handle, end = await chatty(bus, client)
    begun.clear()

    await handle.cancel()

    assert begun == [end]


async def test_a_command_sent_again_is_looked_for_where_it_was_sent_first(
    client: Client, bus: MemoryBus, roles: Roles, begun: list[int]
) -> None:
    handle, end = await chatty(bus, client)
    begun.clear()
    roles.mute = True
    command_id = clock.new_id()

    for _ in range(2):
        with pytest.raises(Unavailable):
            await client.send(ORG, SESSION, x.Cancel(exec=handle.id), command_id=command_id, answer_timeout_s=0.1)

    assert begun == [end, end]


async def test_the_outcome_names_its_cause_and_who_asked(client: Client) -> None:
    handle = await client.exec(ORG, SESSION, ["print"], deadline=clock.now() + timedelta(minutes=1))

    assert handle.accepted is not None
    assert isinstance(handle.accepted.data, x.Accepted)
    assert handle.accepted.event.causationid == handle.accepted.command_id
    assert handle.accepted.event.actor == "tests"
    command = client.subjects(ORG, SESSION).command("runnerd", handle.accepted.command_id)
    stored = await client.bus.last(CMD, command)
    assert stored is not None
    assert msgspec.json.decode(stored.body)["source"] == f"/client/tests@{gethostname()}"


async def test_the_outcome_of_an_environment_change_names_what_was_denied(client: Client) -> None:
    outcome = await client.env(ORG, SESSION).patch({"A": "1", "HOME": "/"})

    assert isinstance(outcome.data, EnvPatched)
    assert outcome.data.denied == ["HOME"]


async def test_a_settled_command_says_so(client: Client) -> None:
    outcome = await client.send(ORG, SESSION, s.Unpin())

    assert outcome.settled
