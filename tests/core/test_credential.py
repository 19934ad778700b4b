"""A session's credentials: transcripts of grants and leases, and totality."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_core import credential as m
from sandreel_core.contract import credential as c
from sandreel_core.contract.message import Command, Envelope, Event, Unknown
from sandreel_core.contract.session import CommandRefused
from sandreel_core.errors import Refused
from tests.support import samples

TERMS = m.Terms(now=samples.AT)
COMMANDS = [p for p in samples.COMMANDS if isinstance(p, c.CredentialCommand)]
EVENTS = [p for p in samples.EVENTS if isinstance(p, c.CredentialEvent | CommandRefused)]
LATER = samples.AT + timedelta(hours=1)


def happened(payload: Event) -> Envelope:
    return msgspec.structs.replace(samples.event(payload), subject=samples.SUBJECTS.event("credential"))


def fold(*payloads: Event) -> m.Credentials:
    state = m.Credentials()
    for payload in payloads:
        state = m.evolve(state, happened(payload))
    return state


def leased(id: str, *, slug: str = "github", turn: str | None = None) -> c.Leased:
    return c.Leased(slug=slug, lease_id=id, fingerprint="f", purpose="", expires_at=LATER, turn=turn)


def test_a_grant_is_made_once_and_leases_end_with_a_revocation() -> None:
    granted = m.decide(m.Credentials(), c.Grant(slug="github"), TERMS)
    assert granted == c.Granted(slug="github")
    assert isinstance(granted, c.Granted)
    state = fold(granted, leased("l-2"), leased("l-1"))
    assert m.decide(state, c.Grant(slug="github"), TERMS) is None
    assert m.decide(state, c.Grant(slug="github", expires_at=LATER), TERMS) == c.Granted(
        slug="github", expires_at=LATER
    )
    revoked = m.decide(state, c.Revoke(slug="github"), TERMS)
    assert revoked == c.Revoked(slug="github", reason="asked", lease_ids=["l-1", "l-2"])
    assert isinstance(revoked, c.Revoked)
    assert fold(granted, leased("l-1"), leased("l-2"), revoked).held == {}
    assert m.decide(m.Credentials(), c.Revoke(slug="github"), TERMS) is None


def test_what_is_taken_of_a_grant_leaves_its_leases_and_the_other_grants() -> None:
    state = fold(c.Granted(slug="github"), c.Granted(slug="github", turn="t1"), leased("l-1", turn="t1"))
    taken = m.decide(state, c.Ungrant(slug="github", turn="t1"), TERMS)
    assert taken == c.Revoked(slug="github", reason="ungranted", ends="one", turn="t1")
    assert isinstance(taken, c.Revoked)
    after = m.evolve(state, happened(taken)).of("github")
    assert (set(after.grants), set(after.leases)) == ({m.SESSION}, {"l-1"})
    assert m.decide(state, c.Ungrant(slug="github", turn="t2"), TERMS) is None


def test_a_grant_has_bounds() -> None:
    past = m.decide(m.Credentials(), c.Grant(slug="github", expires_at=samples.AT), TERMS)
    assert isinstance(past, Refused)
    assert past.code == "BAD_REQUEST"
    full = fold(*(c.Granted(slug="github", turn=f"t{n}") for n in range(m.MAX_GRANTS)))
    refused = m.decide(full, c.Grant(slug="npm"), TERMS)
    assert isinstance(refused, Refused)
    assert refused.code == "GRANT_LIMIT"
    assert m.decide(full, c.Grant(slug="github", turn="t1", purpose="again"), TERMS) is not None


@pytest.mark.parametrize(("reason", "withdrawn"), [("asked", True), ("ungranted", True), ("stopped", False)])
def test_what_a_session_was_created_with_is_withdrawn_by_people_and_not_by_a_stop(reason: str, withdrawn: bool) -> None:
    born = c.Granted(slug="github", incarnation=2)
    state = fold(born, c.Revoked(slug="github", reason=reason, ends="all"))  # type: ignore[arg-type]
    assert state.withdrawn == ({"github": 2} if withdrawn else {})


def test_an_event_of_a_newer_contract_is_acted_on_by_nobody() -> None:
    unknown = msgspec.structs.replace(happened(EVENTS[0]), data=Unknown(raw_type="credential.lent", problem="new"))
    state = m.evolve(fold(c.Granted(slug="github")), unknown)
    for command in COMMANDS:
        refused = m.decide(state, command, TERMS)
        assert isinstance(refused, Refused)
        assert refused.code == "NEWER_CONTRACT"


@given(st.lists(st.sampled_from(EVENTS), max_size=12), st.sampled_from(samples.COMMANDS))
def test_any_log_is_folded_and_any_command_is_answered(events: list[Event], command: Command) -> None:
    state = fold(*events)
    decision = m.decide(state, command, TERMS)
    if isinstance(decision, Event):
        after = m.evolve(state, happened(decision))
        assert after != state
        assert m.decide(after, command, TERMS) is None
    assert all(held.grants or held.leases for held in state.held.values())
