"""The folds behind the audit views, without any server: total, first come first kept, bounded, discreet."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandreel_core.bus.port import Stored
from sandreel_core.contract import turn as t
from sandreel_core.contract.codec import encode
from sandreel_core.contract.message import Command
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_projections import command_log, event_log, outcomes
from sandreel_projections.batch import Batch, Views
from sandreel_projections.change import Change, change
from sandreel_projections.payload import MAX_DATA_BYTES, kept
from sandreel_projections.registry import COMMANDS
from tests.support import samples
from tests.support.script import message

SUBJECTS = SessionSubjects("acme", "s1")
NS = 10**18
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=3000),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner, max_size=5),
    max_leaves=40,
)


def turn(event: t.TurnEvent, sequence: int = 1, **attributes: str) -> Change:
    subject, body = message(SUBJECTS, event, key="t1", **attributes)
    return change(Stored(subject, sequence, body, NS), "e1")


def texts(value: object) -> Iterator[str]:
    """Every text in it, names of members too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in [*value, *(value.values() if isinstance(value, dict) else ())]:
            yield from texts(each)


@settings(max_examples=200, deadline=None)
@given(data=_json)
def test_what_is_kept_of_any_data_is_bounded_and_without_nul(data: object) -> None:
    text = kept("file.dreamt", msgspec.json.encode({"data": data}))
    assert text is None or len(text.encode()) <= MAX_DATA_BYTES * 1.01
    again = None if text is None else msgspec.json.decode(text)
    assert not any("\0" in each for each in texts(again))
    if len(msgspec.json.encode(data)) <= MAX_DATA_BYTES and not any("\0" in each for each in texts(data)):
        assert again == data


@pytest.mark.parametrize("body", [b"", b"{", b'{"data":1e999}', b"[]", b'{"data":%s}' % (b"[" * 9999 + b"]" * 9999)])
def test_what_cannot_be_read_is_not_kept(body: bytes) -> None:
    assert kept("x", body) is None


@pytest.mark.parametrize(
    "name", sorted(name for name, envelope in samples.ALL.items() if isinstance(envelope.data, Command))
)
def test_every_command_of_the_contract_becomes_a_row(name: str) -> None:
    envelope = samples.ALL[name]
    views, batch = Views(COMMANDS, ""), Batch(before=0)
    for sequence in (3, 4):  # the same once more, after the stream has forgotten the first
        stored = Stored(envelope.subject, sequence, encode(envelope), NS)
        made = views.decode(stored, batch)
        assert made is not None
        views.apply(stored, made, batch)
    [row] = batch.rows["command_log"].values()
    assert isinstance(row, command_log.CommandRow)
    assert (row.type, row.sequence, row.problem, row.command_id) == (name, 3, None, envelope.id)
    assert not batch.quarantined


def test_the_first_event_that_names_a_command_is_its_outcome() -> None:
    first, second = (
        turn(t.TurnStarted(exec="x"), 1, causationid="c"),
        turn(t.PlanProposed(plan="p"), 2, causationid="c"),
    )
    row, _, problem = outcomes.step(None, first)
    assert row is not None
    assert (row.outcome, row.event_type, row.cursor, problem) == ("done", "turn.started", "e1:0:1", "")
    assert outcomes.step(row, second)[0] is row
    assert outcomes.key(turn(t.PlanProposed(plan="p"))) is None
    assert outcomes.key(turn(t.PlanProposed(plan="p"), causationid="c" * 65)) is None


def test_events_of_execs_and_of_all_else_go_each_to_its_own_table() -> None:
    for envelope in samples.ALL.values():
        if isinstance(envelope.data, Command):
            continue
        made = change(Stored(envelope.subject, 1, encode(envelope), NS), "e1")
        is_exec, is_output = made.where.aggregate == "exec", envelope.type == "exec.output"
        assert (event_log.event(made) is None) is is_exec
        assert (event_log.key(made) is not None) is (is_exec and not is_output)


def test_of_data_that_does_not_fit_its_type_nothing_is_kept() -> None:
    subject, body = message(SUBJECTS, samples.ALL["session.requested"].data)
    said = {**msgspec.json.decode(body), "data": {"env": [["TOKEN", "hunter2"]]}}
    made = event_log.event(change(Stored(subject, 1, msgspec.json.encode(said), NS), "e1"))
    assert made is not None
    assert "session.requested" in made
    assert "hunter2" not in repr(made)
