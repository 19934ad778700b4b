"""Bad input is refused with the field and the problem; what cannot be digested keeps its ordinal."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_core.contract import catalog, codec
from sandreel_core.contract import exec as x
from sandreel_core.contract.message import MAX_DEPTH, Envelope, Unknown
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
        ({"data__stdout_max_bytes": 2**63}, "$.data.stdout_max_bytes"),
        ({"correlationid": "x" * 257}, "$.correlationid"),
        ({"causationid": "x" * 257}, "$.causationid"),
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


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


# More than any interpreter decodes: 3.11 stops at 990, 3.12 at some 1,500 or 10,000 by its patch.
TOO_DEEP = deep(200_000)


@pytest.mark.parametrize("name", ["exec.start", "session.create"])
@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 2_000, 200_000])
def test_values_that_are_nested_too_deeply_are_refused(name: str, levels: int) -> None:
    """msgspec raises RecursionError for them, also where it only skips them."""
    body = codec.encode(samples.ALL[name])
    with pytest.raises(Refused, match=r"nested too deeply|unknown field `foo`"):
        codec.decode_command(
            samples.ALL[name].subject, body.replace(b'"data":{', b'"data":{"foo":' + deep(levels) + b",")
        )
    with pytest.raises(Refused, match="nested too deeply"):
        codec.decode_command(samples.ALL[name].subject, body[:-1] + b',"foo":' + TOO_DEEP + b"}")


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1, 900])
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("agent.raw", "payload"),
        ("agent.tool_use", "input"),
        ("agent.tool_result", "output"),
        ("turn.checkpoint", "parser"),
    ],
)
def test_what_an_agent_nests_too_deeply_is_an_event_that_cannot_be_digested(name: str, field: str, levels: int) -> None:
    raw = samples.ALL[name]
    body = msgspec.json.decode(codec.encode(raw))
    body["data"][field] = msgspec.Raw(deep(levels))
    data = codec.decode_event(raw.subject, msgspec.json.encode(body)).data
    if levels <= MAX_DEPTH:
        assert getattr(data, field), "the depth that is allowed"
    else:
        assert isinstance(data, Unknown)
        assert f"`{field}` is nested too deeply: more than 100 levels" in data.problem
        with pytest.raises(ValueError, match="nested too deeply"):
            msgspec.structs.replace(raw.data, **{field: msgspec.json.decode(deep(levels))})


def test_an_event_that_no_interpreter_can_read_is_malformed() -> None:
    raw = samples.ALL["agent.raw"]
    with pytest.raises(Malformed, match="nested too deeply"):
        codec.decode_event(raw.subject, codec.encode(raw).replace(b'"new"', TOO_DEEP))


@pytest.mark.parametrize("changes", [{"data__" + "k" * 100_000: 1}, {"type": "k" * 100_000}])
def test_what_is_said_of_a_bad_body_has_a_bound(changes: dict[str, object]) -> None:
    with pytest.raises(Refused) as refusal:
        codec.decode_command(START.subject, changed("exec.start", **changes))
    assert len(refusal.value.message) < 1000
    assert "$" in refusal.value.message, "where it was is said"


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_raise_anything_else(body: bytes) -> None:
    with pytest.raises(Refused):
        codec.decode_command(START.subject, body)
    with pytest.raises(Malformed):
        codec.decode_event(OUTPUT.subject, body)


def with_an_addition(envelope: Envelope) -> Iterator[tuple[str, bytes]]:
    """The body with one more field in each struct that its data holds; and where that is."""

    def places(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if isinstance(value, msgspec.Struct):
            yield path
            fields = {name: getattr(value, name) for name in value.__struct_fields__}
        else:
            fields = value if isinstance(value, dict) else {}
        for name, within in fields.items():
            yield from places(within, (*path, name))

    for path in places(envelope.data, ("data",)):
        body = target = msgspec.json.decode(codec.encode(envelope))
        for name in path:
            target = target[name]
        target["added_later"] = {"a": 1}
        yield ".".join(path), msgspec.json.encode(body)


@pytest.mark.parametrize("name", sorted(catalog.EVENTS))
def test_an_event_ignores_what_a_later_version_adds_at_any_depth(name: str) -> None:
    envelope = samples.ALL[name]
    for where, body in with_an_addition(envelope):
        assert codec.decode_event(envelope.subject, body) == envelope, where


@pytest.mark.parametrize("name", sorted(catalog.COMMANDS))
def test_a_command_with_an_unknown_field_at_any_depth_is_refused(name: str) -> None:
    envelope = samples.ALL[name]
    for where, body in with_an_addition(envelope):
        with pytest.raises(Refused, match="unknown field `added_later`"):
            codec.decode_command(envelope.subject, body)
        assert where.startswith("data")


def test_the_samples_have_structs_within_structs() -> None:
    """Else the two tests above see one depth."""
    nested = {
        where
        for name in ("exec.start", "session.create", "exec.started")
        for where, _ in with_an_addition(samples.ALL[name])
    }
    assert nested == {"data", "data.tty", "data.secret_env.TOKEN", "data.owner", "data.limits"}


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
