"""The session's states: transcripts of whole lives, and totality."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_core import session as m
from sandreel_core.contract import session as c
from sandreel_core.contract.message import Command, Envelope, Event, Owner, Unknown
from sandreel_core.errors import Refused
from tests.support import samples

TERMS = m.Terms(now=samples.AT)
COMMANDS = [p for p in samples.COMMANDS if isinstance(p, c.SessionCommand)]
EVENTS = [p for p in samples.EVENTS if isinstance(p, c.SessionEvent | c.CommandRefused)]
CREATE = c.Create(owner=Owner(type="user", id="u1"))


def happened(payload: Event) -> Envelope:
    return msgspec.structs.replace(samples.event(payload), subject=samples.SUBJECTS.event("session"))


def fold(*payloads: Event) -> m.Session:
    state = m.Session()
    for payload in payloads:
        state = m.evolve(state, happened(payload))
    return state


def life(phase: str) -> list[Event]:
    """The shortest way to a phase."""
    until = samples.LATER
    requested = m.decide(m.Session(), CREATE, TERMS)
    assert isinstance(requested, c.Requested)
    provisioned = c.Provisioned(boot=1, boot_id="1-1", backend="b", ref="r", node="n", commands_after=5)
    ready = c.Ready(boot_id="1-1", runnerd_version="0", contract_version=1)
    stopping = c.Stopping(reason="asked", until=until)
    stopped = c.Stopped(reason="asked", commands_until=9)
    resuming = c.Resuming(boot=2, expires_at=until, until=until)
    ways: dict[str, list[Event]] = {
        "none": [],
        "requested": [requested],
        "provisioning": [requested, provisioned],
        "ready": [requested, provisioned, ready],
        "degraded": [requested, provisioned, ready, c.Degraded(reason="late")],
        "stopping": [requested, provisioned, ready, stopping],
        "stopped": [requested, provisioned, ready, stopping, stopped],
        "resuming": [requested, provisioned, ready, stopping, stopped, resuming],
        "destroying": [requested, c.Destroying(until=until)],
        "destroyed": [requested, c.Destroying(until=until), c.Destroyed(commands_until=0)],
        "failed": [requested, c.Failed(stage="boot", code="TIMEOUT", message="late", commands_until=0)],
    }
    return ways[phase]


PHASES = sorted({p for table in m.TRANSITIONS.values() for p in [*table, *table.values()]})


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_is_reached(phase: str) -> None:
    assert fold(*life(phase)).phase == phase


REFUSED = Refused
ANSWERS: dict[str, dict[type[Command], Any]] = {
    # phase: {command: event type | None (already so) | refusal code}
    "none": {c.Create: c.Requested, c.Stop: "SESSION_NOT_FOUND", c.Destroy: "SESSION_NOT_FOUND"},
    "requested": {c.Create: "SESSION_EXISTS", c.Stop: c.Stopping, c.Resume: None, c.Destroy: c.Destroying},
    "provisioning": {c.Create: "SESSION_EXISTS", c.Stop: c.Stopping, c.Resume: None, c.Destroy: c.Destroying},
    "ready": {c.Create: "SESSION_EXISTS", c.Stop: c.Stopping, c.Resume: None, c.Pin: c.Pinned, c.Unpin: None},
    "degraded": {c.Stop: c.Stopping, c.Resume: None, c.Destroy: c.Destroying},
    "stopping": {c.Stop: None, c.Resume: "SESSION_STOPPING", c.Destroy: c.Destroying},
    "stopped": {c.Create: "SESSION_EXISTS", c.Stop: None, c.Resume: c.Resuming, c.Destroy: c.Destroying},
    "resuming": {c.Stop: c.Stopping, c.Resume: None, c.Destroy: c.Destroying},
    "destroying": {
        c.Create: "SESSION_EXISTS",
        c.Stop: "SESSION_NOT_FOUND",
        c.Destroy: None,
        c.Pin: "SESSION_NOT_FOUND",
    },
    "destroyed": {c.Create: c.Requested, c.Stop: "SESSION_NOT_FOUND", c.Destroy: None},
    "failed": {c.Stop: None, c.Resume: c.Resuming, c.Destroy: c.Destroying, c.Create: "SESSION_EXISTS"},
}


@pytest.mark.parametrize("phase", PHASES)
def test_answers_by_phase(phase: str) -> None:
    state = fold(*life(phase))
    asked = {c.Create: CREATE, c.Stop: c.Stop(), c.Resume: c.Resume(), c.Destroy: c.Destroy()}
    asked |= {c.Pin: c.Pin(), c.Unpin: c.Unpin()}
    for kind, expected in ANSWERS[phase].items():
        answer = m.decide(state, asked[kind], TERMS)
        if isinstance(expected, str):
            assert isinstance(answer, Refused), (phase, kind)
            assert answer.code == expected
        else:
            assert (None if answer is None else type(answer)) is expected, (phase, kind)


def test_resume_keeps_created_at_and_counts_boots() -> None:
    state = fold(*life("resuming"))
    assert state.created_at == samples.AT
    assert (state.boot, state.incarnation) == (2, 1)


def test_an_id_can_be_created_again_after_destroy_as_the_next_incarnation() -> None:
    again = m.decide(fold(*life("destroyed")), CREATE, TERMS)
    assert isinstance(again, c.Requested)
    assert again.incarnation == 2
    assert fold(*life("destroyed"), again).boot == 1


@pytest.mark.parametrize(("asked", "given_s"), [(None, 86_400), (0, 86_400), (-5, 86_400), (60, 60), (1e9, 86_400)])
def test_times_are_clamped_to_the_maximum(asked: float | None, given_s: float) -> None:
    requested = m.decide(m.Session(), c.Create(owner=CREATE.owner, ttl_s=asked, idle_timeout_s=asked), TERMS)
    assert isinstance(requested, c.Requested)
    assert requested.ttl_s == given_s
    assert requested.idle_timeout_s == min(given_s, 1800)
    assert requested.expires_at == samples.AT + timedelta(seconds=given_s)


def test_denied_variables_are_named_and_not_set() -> None:
    requested = m.decide(m.Session(), c.Create(owner=CREATE.owner, env={"path": "x", "LANG": "C"}), TERMS)
    assert isinstance(requested, c.Requested)
    assert (requested.env, requested.env_denied) == ({"LANG": "C"}, ["path"])


def test_unpin_gives_a_fresh_expiry_and_pin_is_idempotent() -> None:
    state = fold(*life("ready"), c.Pinned())
    assert state.pinned
    assert m.decide(state, c.Pin(), TERMS) is None
    unpinned = m.decide(state, c.Unpin(), TERMS)
    assert unpinned == c.Unpinned(expires_at=samples.AT + timedelta(days=1))


def test_a_boot_owns_exactly_the_commands_behind_it() -> None:
    assert not fold(*life("requested")).owns(6)
    ready = fold(*life("ready"))
    assert (ready.owns(5), ready.owns(6)) == (False, True)
    assert fold(*life("stopping")).owns(6), "still this boot's until it is confirmed over"
    assert not fold(*life("stopped")).owns(6)


def test_a_log_with_an_unknown_event_is_not_decided_on() -> None:
    stranger = msgspec.structs.replace(happened(c.Pinned()), data=Unknown(raw_type="session.cloned", problem="?"))
    state = m.evolve(fold(*life("ready")), stranger)
    answer = m.decide(state, c.Stop(), TERMS)
    assert isinstance(answer, Refused)
    assert answer.code == "NEWER_CONTRACT"


@given(st.lists(st.sampled_from(EVENTS), max_size=30), st.sampled_from(COMMANDS))
def test_fold_and_decide_are_total(events: list[Event], command: Command) -> None:
    state = fold(*events)
    answer = m.decide(state, command, TERMS)
    assert answer is None or isinstance(answer, Event | Refused)


@given(st.lists(st.sampled_from(COMMANDS), max_size=20))
def test_what_is_decided_always_moves_the_state(commands: list[Command]) -> None:
    """An event that a decision makes is never one that the fold ignores."""
    state = m.Session()
    for command in commands:
        answer = m.decide(state, command, TERMS)
        if isinstance(answer, Event):
            after = m.evolve(state, happened(answer))
            assert after != state or isinstance(answer, c.Extended)
            state = after


@pytest.mark.parametrize("name", ["command.refused", "command.settled"])
def test_an_answer_that_cannot_be_read_does_not_make_the_session_unreadable(name: str) -> None:
    """An over-long sentence, say: whatever it is about, it changed nothing."""
    said = msgspec.structs.replace(samples.ALL[name], data=Unknown(raw_type=name, problem="too long"))
    state = fold(*life("ready"))
    assert m.evolve(state, said) == state
