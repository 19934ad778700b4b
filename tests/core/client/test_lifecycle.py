"""Sessions: made, stopped, resumed, destroyed, listed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sandreel_core.client import Client
from sandreel_core.contract.message import Owner
from sandreel_core.errors import Malformed, NotFound, Refused
from tests.core.client.conftest import ORG, SESSION
from tests.support.fake_roles import Roles


async def test_a_session_is_ready_when_create_returns(client: Client) -> None:
    info = await client.session(ORG, SESSION)

    assert (info.phase, info.ready) == ("ready", True)
    assert info.state.owner == Owner(type="user", id="ada")


async def test_create_makes_up_an_id_and_may_return_at_the_request(client: Client) -> None:
    info = await client.create_session(ORG, wait="requested")

    assert info.session.startswith("s-")
    assert info.state.incarnation == 1


async def test_a_session_that_exists_is_refused_with_its_code(client: Client) -> None:
    with pytest.raises(Refused) as refused:
        await client.create_session(ORG, SESSION)

    assert refused.value.code == "SESSION_EXISTS"


async def test_waiting_for_ready_ends_when_the_boot_fails(client: Client, roles: Roles) -> None:
    roles.fail = True

    with pytest.raises(Refused) as refused:
        await client.create_session(ORG, "s2", timeout_s=5)

    assert refused.value.code == "BOOT_FAILED"


async def test_stop_resume_pin_unpin_extend_destroy(client: Client) -> None:
    assert (await client.stop(ORG, SESSION)).phase == "stopped"
    assert (await client.stop(ORG, SESSION)).phase == "stopped"
    assert (await client.resume(ORG, SESSION)).phase == "ready"
    assert (await client.pin(ORG, SESSION)).state.pinned
    assert not (await client.unpin(ORG, SESSION)).state.pinned
    extended = await client.extend(ORG, SESSION, 60)
    assert extended.state.expires_at == datetime(2026, 1, 31, 0, 1, tzinfo=UTC)
    assert (await client.destroy(ORG, SESSION)).phase == "destroyed"
    assert (await client.create_session(ORG, SESSION)).state.incarnation == 2


async def test_sessions_are_those_of_the_org(client: Client) -> None:
    await client.create_session(ORG, "s0")
    await client.create_session("other", "s9")

    assert [info.session for info in await client.sessions(ORG)] == ["s0", "s1"]
    assert await client.sessions("nobody") == []


async def test_an_unknown_session_is_not_found_and_takes_no_exec(client: Client) -> None:
    with pytest.raises(NotFound):
        await client.session(ORG, "nope")
    with pytest.raises(Refused) as refused:
        await client.exec(ORG, "nope", ["print", "x"])
    assert refused.value.code == "SESSION_NOT_FOUND"


async def test_names_out_of_range_are_malformed(client: Client) -> None:
    with pytest.raises(Malformed):
        await client.exec(ORG, "a.b", ["print"])
    with pytest.raises(Malformed):
        await client.sessions("a b")
