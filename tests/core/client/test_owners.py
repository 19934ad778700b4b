"""The id of an owner's session."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandreel_core.client.owners import fnv1a_64, parse_owner, session_of
from sandreel_core.contract.message import Owner
from sandreel_core.errors import Malformed
from sandreel_core.ids import check_id

ORGS = st.text("abcXYZ019_-", min_size=1, max_size=128)
OWNERS = st.builds(
    Owner,
    type=st.one_of(st.sampled_from(["user", "thread"]), st.text("az_9", max_size=63).map(lambda rest: f"w{rest}")),
    id=st.text(min_size=1, max_size=256),
)


def test_the_hash_is_fnv_1a() -> None:
    # The vectors of draft-eastlake-fnv, appendix C.
    assert fnv1a_64(b"") == 0xCBF29CE484222325
    assert fnv1a_64(b"a") == 0xAF63DC4C8601EC8C
    assert fnv1a_64(b"foobar") == 0x85944171F73967E8


def test_a_user_a_thread_and_another() -> None:
    assert session_of("acme", Owner(type="user", id="alice")) == f"usr-alice-{fnv1a_64(b'acme:alice'):016x}"
    assert session_of("acme", Owner(type="thread", id="T1")) == "thr-T1"
    assert session_of("acme", Owner(type="workflow", id="7")) == f"workflow-7-{fnv1a_64(b'acme:workflow:7'):016x}"


def test_what_an_id_may_not_hold_is_replaced_and_counts() -> None:
    mail = session_of("acme", Owner(type="user", id="ada@example.com"))
    assert mail.startswith("usr-ada_example_com-")
    assert mail != session_of("acme", Owner(type="user", id="ada_example.com"))
    assert mail != session_of("other", Owner(type="user", id="ada@example.com"))
    assert session_of("acme", Owner(type="thread", id="a:b")).startswith("thr-a_b-")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ORGS, OWNERS)
def test_any_owner_has_an_id_and_always_the_same(org: str, owner: Owner) -> None:
    found = session_of(org, owner)
    assert check_id("session", found) == found == session_of(org, owner)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ORGS, st.text(min_size=25, max_size=256), st.text(min_size=25, max_size=256))
def test_two_users_have_two_sessions(org: str, one: str, other: str) -> None:
    same = session_of(org, Owner(type="user", id=one)) == session_of(org, Owner(type="user", id=other))
    assert same == (one == other)


@pytest.mark.parametrize("text", ["", "ada", "user:", ":ada", "User:ada", "user:" + "x" * 257])
def test_what_is_no_owner_is_said_in_a_line(text: str) -> None:
    with pytest.raises(Malformed, match="TYPE:ID"):
        parse_owner(text)
