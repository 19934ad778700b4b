"""Reconcile as transcripts: what the log says, what the backend has, what follows. And that it is total."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sandreel_core.contract.session import StopReason
from sandreel_core.session import Phase, Session
from sandreel_core.spawner.actions import (
    Action,
    Adopt,
    Degrade,
    Discard,
    Fail,
    Halt,
    Quell,
    Recover,
    Remove,
    Start,
    Sweep,
)
from sandreel_core.spawner.backend import Death, Key, Sandbox, Status, boot_order
from sandreel_core.spawner.reconcile import BOOT_TIMEOUT, WAITING, Beat, Rules, hasten, reconcile

KEY = Key("acme", "one")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
RULES = Rules(installation="ours", node="here")


def session(phase: Phase, *, age_s: float = 1, **fields: Any) -> Session:
    known: dict[str, Any] = {"incarnation": 1, "boot": 1, "changed_at": NOW - timedelta(seconds=age_s)}
    if phase in ("provisioning", "ready", "degraded", "stopping"):
        known |= {"boot_id": "1-1", "node": "here", "commands_after": 0}
    if phase in ("ready", "degraded", "stopping", "stopped"):
        known |= {"contract_version": 1}
    if phase in ("ready", "degraded"):
        known |= {"expires_at": NOW + timedelta(hours=1), "idle_timeout_s": 60.0}
    return Session(phase=phase, **(known | fields))


def sandbox(status: Status = "running", *, boot_id: str = "1-1", age_s: float = 1, **fields: Any) -> Sandbox:
    known: dict[str, Any] = {"key": KEY, "installation": "ours", "profile": "default", "ref": "pid:1", "node": "here"}
    known |= {"incarnation": boot_order(boot_id)[0], "death": Death("killed") if status == "dead" else None}
    return Sandbox(boot_id=boot_id, status=status, created_at=NOW - timedelta(seconds=age_s), **(known | fields))


def test_what_the_log_alone_asks_for_is_hastened() -> None:
    known: dict[str, Any] = {"boot_id": "1-1", "node": "here", "contract_version": 1}
    over = {**known, "commands_after": None, "commands_until": 7}
    for found, due in (
        (session("stopping", stop_reason="idle"), Halt(KEY, "1-1", "idle")),
        (session("destroying", **known, commands_after=0), Remove(KEY, "1-1")),
        (session("destroying", **over), Remove(KEY, "1-1", Death("exited"))),
        # Of a boot that was perhaps never made, of another node's, or where the log cannot be read, it says nothing.
        (session("destroying"), None),
        (session("stopping", boot=2), None),
        (session("stopping", node="there"), None),
        (session("stopping", unreadable="session.warped"), None),
        (session("ready"), None),
        (session("stopped", **over), None),
    ):
        assert hasten(KEY, found, RULES) == due
    elsewhere = session("stopping", backend="process")
    assert hasten(KEY, elsewhere, Rules(installation="ours", node="here", backend="docker")) is None


def beat(*, age_s: float = 1, live: int = 0, idle_s: float = 0, boot_id: str = "1-1") -> Beat:
    return Beat(boot_id=boot_id, age_s=age_s, live_execs=live, idle_s=idle_s)


def act(known: Session | None, found: Sandbox | None, heard: Beat | None = None, **given: Any) -> Action | None:
    actions = reconcile(
        {} if known is None else {KEY: known},
        [] if found is None else [found],
        {} if heard is None else {KEY: heard},
        NOW,
        RULES,
        **given,
    )
    assert len(actions) <= 1
    return actions[0] if actions else None


FAIL = {"code": "RUNNERD_EXITED", "message": "runnerd ended before it was ready"}


@pytest.mark.parametrize(
    ("known", "found", "action"),
    [
        (session("requested"), None, Start(KEY)),
        (session("requested"), sandbox("starting"), Start(KEY)),
        (session("requested"), sandbox(), Adopt(KEY, sandbox())),
        (session("requested"), sandbox("exited"), Fail(KEY, "1-1", "provision", **FAIL)),
        (session("requested"), sandbox("dead"), Fail(KEY, "1-1", "provision", **FAIL)),
        (session("resuming", boot=2), sandbox("dead"), Start(KEY)),
        (session("resuming", boot=2), sandbox(), Quell(KEY, "1-1")),
        (session("resuming", boot=2), sandbox("exited"), Quell(KEY, "1-1")),
        (session("resuming"), sandbox(boot_id="1-2"), None),
        (session("provisioning"), sandbox(), None),
        (session("provisioning"), None, Fail(KEY, None, "boot", **FAIL)),
        (session("provisioning"), sandbox("exited"), Fail(KEY, "1-1", "boot", **FAIL)),
        (session("ready"), sandbox(), None),
        (session("ready"), sandbox("exited"), Halt(KEY, "1-1", None)),
        (session("degraded"), sandbox("dead"), Halt(KEY, "1-1", None, Death("killed"))),
        (session("ready"), None, Halt(KEY, None, None)),
        (session("ready", boot=2, boot_id="1-2"), sandbox("dead"), Halt(KEY, None, None)),
        (session("stopping", stop_reason="idle"), sandbox(), Halt(KEY, "1-1", "idle")),
        (session("stopping"), None, Halt(KEY, None, "asked")),
        (session("stopping"), sandbox("exited"), Halt(KEY, "1-1", "asked")),
        (session("stopping"), sandbox("dead"), Halt(KEY, "1-1", "asked", Death("killed"))),
        (session("stopped"), sandbox("dead"), None),
        (session("stopped"), sandbox(), Quell(KEY, "1-1")),
        (session("stopped"), None, None),
        (session("failed", contract_version=1), sandbox("dead"), None),
        (session("failed"), sandbox("dead"), Discard(KEY)),
        (session("failed"), sandbox(), Quell(KEY, "1-1")),
        (session("destroying"), None, Remove(KEY, None)),
        (session("destroying"), sandbox(), Remove(KEY, "1-1")),
        (session("destroying"), sandbox("dead"), Remove(KEY, "1-1", Death("killed"))),
        (session("destroyed"), sandbox("dead", age_s=500), Discard(KEY)),
        (session("destroyed"), sandbox("dead"), None),
        (session("destroyed"), sandbox("dead", boot_id="2-1", age_s=500), None),
        (None, sandbox(age_s=500), Quell(KEY, "1-1")),
        (None, sandbox(), None),
        (None, sandbox("dead", age_s=5000), None),
    ],
)
def test_the_log_and_the_backend_are_made_to_agree(
    known: Session | None, found: Sandbox | None, action: Action | None
) -> None:
    assert act(known, found) == action


@pytest.mark.parametrize("phase", ["requested", "resuming", "provisioning"])
def test_a_boot_has_180_seconds(phase: Phase) -> None:
    found = sandbox() if phase == "provisioning" else None
    assert not isinstance(act(session(phase, age_s=179), found), Fail)
    failed = act(session(phase, age_s=181), found)
    assert isinstance(failed, Fail)
    assert failed.code == "BOOT_TIMEOUT"


def test_a_late_heartbeat_degrades_and_never_kills() -> None:
    ready = session("ready", age_s=60)
    assert act(ready, sandbox(), beat(age_s=14), heard_s=100) is None
    assert act(ready, sandbox(), beat(age_s=16), heard_s=100) == Degrade(KEY, "1-1", "no heartbeat for 15 s")
    assert isinstance(act(ready, sandbox(), beat(boot_id="1-0"), heard_s=100), Degrade)
    assert act(ready, sandbox(), None, heard_s=10) is None, "we have not listened long enough"
    assert act(session("ready", age_s=5), sandbox(), None, heard_s=100) is None, "it has only just begun"
    degraded = session("degraded", age_s=60)
    assert act(degraded, sandbox(), beat(age_s=1), heard_s=100) == Recover(KEY, "1-1")
    for age_s in (16, 10_000):
        assert act(degraded, sandbox(), beat(age_s=age_s), heard_s=10_000) is None


def test_the_sweep_stops_what_is_expired_or_idle() -> None:
    expired = session("ready", expires_at=NOW - timedelta(seconds=1))
    assert act(expired, sandbox(), beat(), sweep=True) == Sweep(KEY, "ttl")
    assert act(expired, sandbox(), beat()) is None
    assert act(session("ready"), sandbox(), beat(idle_s=61), sweep=True) == Sweep(KEY, "idle")
    assert act(session("ready"), sandbox(), beat(idle_s=59), sweep=True) is None


def test_the_sweep_spares_what_is_pinned_or_works() -> None:
    expired = session("ready", expires_at=NOW - timedelta(seconds=1))
    assert act(replace(expired, pinned=True), sandbox(), beat(idle_s=1e6), sweep=True) is None
    assert act(expired, sandbox(), beat(live=1, idle_s=1e6), sweep=True) is None
    assert act(session("ready"), sandbox(), beat(age_s=60, idle_s=1e6), sweep=True) is None, "not heard: not idle"
    assert act(replace(expired, pinned=False), sandbox(), beat(), sweep=True) == Sweep(KEY, "ttl"), "unpinned again"


def test_a_foreign_object_stands_in_the_way_and_stays() -> None:
    foreign = sandbox(installation="theirs", age_s=5000)
    failed = act(session("requested"), foreign)
    assert isinstance(failed, Fail)
    assert (failed.boot_id, failed.code) == (None, "FOREIGN")
    for phase in ("ready", "stopped", "destroyed"):
        assert act(session(phase), foreign, sweep=True) is None
    assert act(session("stopping", stop_reason="ttl"), foreign) == Halt(KEY, None, "ttl")
    assert act(session("destroying"), foreign) == Remove(KEY, None)
    assert act(None, foreign) is None


PHASES: tuple[Phase, ...] = get_args(Phase)
times = st.integers(-400, 400).map(lambda seconds: NOW + timedelta(seconds=seconds))
boots = st.sampled_from(["1-1", "1-2", "2-1", "", "nonsense"])
sessions = st.builds(
    Session,
    phase=st.sampled_from(PHASES),
    incarnation=st.integers(0, 2),
    boot=st.integers(0, 2),
    boot_id=boots,
    node=st.sampled_from(["", "here", "elsewhere"]),
    changed_at=st.none() | times,
    expires_at=st.none() | times,
    idle_timeout_s=st.sampled_from([0.0, 60.0]),
    pinned=st.booleans(),
    stop_reason=st.none() | st.sampled_from(get_args(StopReason)),
    contract_version=st.integers(0, 1),
    unreadable=st.sampled_from(["", "session.new"]),
)
sandboxes = st.builds(
    Sandbox,
    key=st.just(KEY),
    installation=st.sampled_from(["ours", "theirs"]),
    incarnation=st.integers(1, 2),
    boot_id=boots,
    profile=st.just("default"),
    status=st.sampled_from(get_args(Status)),
    ref=st.just("pid:1"),
    node=st.sampled_from(["here", "elsewhere"]),
    created_at=times,
)
beats = st.builds(
    Beat,
    boot_id=boots,
    age_s=st.floats(0, 1000),
    live_execs=st.integers(0, 2),
    idle_s=st.floats(0, 1000),
)
TOUCHES = (Start, Adopt, Halt, Remove, Quell, Discard, Sweep)


@given(st.none() | sessions, st.none() | sandboxes, st.none() | beats, st.floats(0, 1000), st.booleans())
def test_nothing_is_done_to_what_is_foreign_or_unknown(
    known: Session | None, found: Sandbox | None, heard: Beat | None, heard_s: float, sweep: bool
) -> None:
    action = act(known, found, heard, heard_s=heard_s, sweep=sweep)
    if found is not None and (found.installation != "ours" or found.status == "unknown" or found.node != "here"):
        if found.installation != "ours" and isinstance(action, Halt | Remove | Fail):
            assert action.boot_id is None, "the session's own life ends beside it"
        else:
            assert not isinstance(action, (*TOUCHES, Fail))
    if known is not None and (known.node == "elsewhere" or known.unreadable):
        assert not isinstance(action, (*TOUCHES, Fail))
    if isinstance(action, Discard):
        assert known is not None
        assert found is not None
        assert found.status == "dead"
        assert known.phase == "destroyed" or known.contract_version == 0, "files that somebody used are never discarded"


@given(st.none() | sessions, st.none() | beats, st.floats(0, 1000), st.booleans())
def test_nothing_is_reaped_when_the_backend_cannot_be_asked(
    known: Session | None, heard: Beat | None, heard_s: float, sweep: bool
) -> None:
    table = {} if known is None else {KEY: known}
    actions = reconcile(table, None, {} if heard is None else {KEY: heard}, NOW, RULES, heard_s=heard_s, sweep=sweep)
    for action in actions:
        if isinstance(
            action, Fail
        ):  # who waits for a boot that nobody has given to a backend is told, and nothing is touched
            assert known is not None
            assert (known.phase in WAITING, action.boot_id, action.code) == (True, None, BOOT_TIMEOUT)
        else:
            assert isinstance(action, Degrade | Recover)


@pytest.mark.parametrize(
    "phase", ["requested", "resuming", "provisioning", "ready", "stopping", "destroying", "stopped", "failed"]
)
def test_nothing_is_concluded_of_what_is_with_another_backend(phase: Phase) -> None:
    known = session(phase, backend="process", boot=2 if phase == "resuming" else 1)
    actions = reconcile({KEY: known}, [], {}, NOW, dataclasses.replace(RULES, backend="docker"), sweep=True)
    if phase == "resuming":
        assert [(type(action), getattr(action, "code", "")) for action in actions] == [(Fail, "OTHER_BACKEND")]
    else:
        assert actions == []
