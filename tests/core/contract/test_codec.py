"""Bad input is refused with the field and the problem; what cannot be digested keeps its ordinal."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_core.contract import codec
from sandreel_core.contract import exec as x
from sandreel_core.contract.message import Unknown
from sandreel_core.errors import Malformed, Refused
from tests.support import samples

START = samples.ALL["exec.start"]
OUTPUT = samples.ALL["exec.output"]


def changed(envelope_name: str, **changes: object) -> bytes:
    body = msgspec.json.decode(codec.encode(samples.ALL[envelope_name]))
    for path, value in changes.items():
        target = body
        *parents, leaf = path.split("__")
        for parent in parents:
            target = target[parent]
        if value is None:
            target.pop(leaf, None)
        else:
            target[leaf] = value
    return msgspec.json.encode(body)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data__argv": 7}, "$.data.argv"),
        ({"data__argv": []}, "length >= 1"),
        ({"data__exec": None}, "missing required field `exec`"),
        ({"data__exec": "a b"}, "$.data.exec"),
        ({"data__exec": "x" * 65}, "$.data.exec"),
        ({"data__exec": "e1\n"}, "$.data.exec"),
        ({"data__surprise": 1}, "unknown field `surprise`"),
        ({"data__timeout_s": -1}, "$.data.timeout_s"),
        ({"data__stdin": "maybe"}, "$.data.stdin"),
        ({"data__stdin_text": "x" * 65_537}, "$.data.stdin_text"),
        ({"data__tty": {"cols": 0, "rows": 1}}, "$.data.tty.cols"),
        ({"data__env": {"A=B": "1"}}, "$.data.env"),
        ({"type": "exec.begin"}, "exec.begin"),
        ({"type": "session.stop", "data": {}}, "for the role spawner"),
        ({"specversion": "0.3"}, "$.specversion"),
        ({"time": "yesterday"}, "$.time"),
        ({"time": "2026-11-24T03:00:00"}, "$.time"),
        ({"deadline": 5}, "$.deadline"),
        ({"subject": "cmd.runnerd.acme.other.x"}, "is not"),
        ({"id": "01938f2e-7c00-7abc-8def-0123456789ac"}, "last token"),
        ({"data": None}, "missing required field `data`"),
    ],
)
def test_a_command_that_is_not_in_order_is_refused_with_the_field(changes: dict[str, object], says: str) -> None:
    with pytest.raises(Refused) as refusal:
        codec.decode_command(START.subject, changed("exec.start", **changes))
    assert refusal.value.code == "BAD_REQUEST"
    assert says in refusal.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"x" * 900_001])
def test_a_body_that_is_no_command_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        codec.decode_command(START.subject, body)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_raise_anything_else(body: bytes) -> None:
    with pytest.raises(Refused):
        codec.decode_command(START.subject, body)
    with pytest.raises(Malformed):
        codec.decode_event(OUTPUT.subject, body)


def test_what_is_nested_too_deeply_is_refused_like_any_other_nonsense() -> None:
    deep = b"[" * 20_000 + b"]" * 20_000
    event, command = OUTPUT.subject, START.subject
    with pytest.raises(Malformed):
        codec.decode_event(event, b'{"type":"exec.dreamt","data":%s}' % deep)
    with pytest.raises(Refused):
        codec.decode_command(command, b'{"type":"exec.start","data":%s}' % deep)


def test_an_unknown_type_keeps_its_ordinal() -> None:
    event = codec.decode_event(OUTPUT.subject, changed("exec.output", type="exec.teleported"))
    assert event.n == OUTPUT.n
    assert isinstance(event.data, Unknown)
    assert event.type == "exec.teleported"


def test_undigestible_data_keeps_its_ordinal() -> None:
    event = codec.decode_event(OUTPUT.subject, changed("exec.output", data__line=0))
    assert (event.n, event.type) == (OUTPUT.n, "exec.output")
    assert isinstance(event.data, Unknown)
    assert "$.data.line" in event.data.problem


def test_an_event_on_another_subject_or_aggregate_is_malformed() -> None:
    body = codec.encode(OUTPUT)
    with pytest.raises(Malformed, match="where it is stored"):
        codec.decode_event(samples.SUBJECTS.exec("e2"), body)
    session = samples.ALL["session.pinned"]
    moved = msgspec.structs.replace(session, subject=OUTPUT.subject)
    with pytest.raises(Malformed, match="does not belong"):
        codec.decode_event(OUTPUT.subject, codec.encode(moved))


def test_answers_may_stand_on_any_aggregate() -> None:
    for aggregate, key in (("session", ""), ("exec", "e1"), ("command", "")):
        subject = samples.SUBJECTS.event(aggregate, key)
        moved = msgspec.structs.replace(samples.ALL["command.refused"], subject=subject)
        assert codec.decode_event(subject, codec.encode(moved)) == moved


@given(st.text(max_size=200), st.integers(1, 10), st.booleans())
def test_output_text_round_trips(text: str, line: int, eol: bool) -> None:
    payload = x.Output(stream="stderr", line=line, count=text.count("\n"), text=text, eol=eol)
    envelope = msgspec.structs.replace(OUTPUT, data=payload)
    assert codec.decode_event(OUTPUT.subject, codec.encode(envelope)).data == payload
