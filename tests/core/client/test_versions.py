"""Runnerds of other contract versions: who is refused execs, and how doctor says so. Over the memory twin."""

from __future__ import annotations

import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.cli.session_checks import checks
from sandreel_core.cli.version_checks import judge
from sandreel_core.client import Client
from sandreel_core.clock import new_id
from sandreel_core.contract.versions import mismatch, understands
from sandreel_core.errors import Refused
from tests.core.client.conftest import ORG
from tests.support.fake_roles import Roles

pytestmark = pytest.mark.timeout(30)


def test_one_version_back_is_understood_and_no_other() -> None:
    assert [version for version in range(8) if understands(version, 5)] == [4, 5]
    assert "version 3, which is too much older than the 5 spoken here: stop and resume" in str(mismatch("s", 3, 5))
    assert "newer" in str(mismatch("s", 6, 5))


async def test_an_exec_is_refused_before_it_is_sent_until_the_session_was_resumed(bus: MemoryBus, roles: Roles) -> None:
    roles.contract_version = 3
    client = Client(bus, answer_timeout_s=5, contract_version=5)
    await client.create_session(ORG, "s", timeout_s=5)
    sent = len(roles.handled)

    with pytest.raises(Refused, match=r"CONTRACT_VERSION: .*session s .*: stop and resume the session"):
        await client.exec(ORG, "s", ["print", "no"])
    assert len(roles.handled) == sent
    await client.env(ORG, "s").patch({"A": "b"})  # what is no new exec goes through

    await client.stop(ORG, "s")
    roles.contract_version = 4
    await client.resume(ORG, "s")
    assert (await client.run(ORG, "s", ["print", "yes"])).stdout == b"yes"


async def test_one_that_was_accepted_before_the_upgrade_keeps_its_outcome(bus: MemoryBus, roles: Roles) -> None:
    before, after = (Client(bus, answer_timeout_s=5, contract_version=version) for version in (1, 9))
    await before.create_session(ORG, "s", timeout_s=5)
    command_id = new_id()
    first = await before.exec(ORG, "s", ["cat"], exec="x1", hold_stdin=True, command_id=command_id)
    again = await after.exec(ORG, "s", ["cat"], exec="x1", hold_stdin=True, command_id=command_id)

    assert first.cursor == again.cursor
    assert (await after.cancel(ORG, "s", "x1")).data.signal == "SIGTERM"


async def test_a_runnerd_that_is_newer_is_refused_too(bus: MemoryBus, roles: Roles) -> None:
    roles.contract_version = 2
    client = Client(bus, answer_timeout_s=5, contract_version=1)
    await client.create_session(ORG, "s", timeout_s=5)

    with pytest.raises(Refused, match="CONTRACT_VERSION"):
        await client.exec(ORG, "s", ["print", "no"])


async def test_doctor_names_the_sessions_of_every_org(bus: MemoryBus, roles: Roles) -> None:
    client = Client(bus, answer_timeout_s=5)
    assert next((each.level, each.found) for each in await checks(client)) == (
        "ok",
        "1, as all 0 running sessions speak",
    )
    for org, name, version in ((ORG, "now", 1), (ORG, "new", 2), ("other", "newest", 3)):
        roles.contract_version = version
        await client.create_session(org, name, timeout_s=5)
    running = await client.sessions(None)

    found = await checks(client)
    assert [(each.name, each.level) for each in found] == [
        ("contract version of acme/new", "fail"),
        ("contract version of other/newest", "fail"),
        ("overdue sessions", "ok"),
    ]
    assert found[1].mend == "sandreel session stop --org other newest && sandreel session resume --org other newest"
    assert [each.level for each in judge(running, 3)] == ["fail", "warn"]
    many = judge([running[0]] * 30, 3)
    assert (len(many), many[-1].found) == (21, "and 10 more sessions")
