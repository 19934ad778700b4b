"""Bytes to messages and back, in a single pass.

Every type gets an envelope whose tag is the CloudEvents `type`, so that msgspec decodes envelope and
payload at once. What that refuses is read again leniently, only to say what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Any, Union, cast

import msgspec

from sandreel_core.contract.catalog import COMMANDS, EVENTS, belongs
from sandreel_core.contract.message import Command, CommandEnvelope, Envelope, Event, Part, Payload, Unknown
from sandreel_core.contract.subjects import parse_command_subject, parse_event_subject
from sandreel_core.errors import Malformed, Refused

# A command is small; its largest parts are a 512 KiB shell script and 128 variables of 32 KiB, which may not
# come together: the whole stays below the server's default payload of 1 MiB.
MAX_COMMAND_BYTES = 900_000
# What msgspec raises for bytes that are not in order. RecursionError: where values are within a thousand others or within
# many thousands, by the interpreter; `not_too_deep` refuses long before that what is kept.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# Of a decoder's sentence, which may quote all of an unknown name, its beginning and its end (`… - at $.data`) are kept.
_MAX_PROBLEM = 600


def _envelopes(kinds: dict[str, Any], base: type[Envelope]) -> dict[type, type[Envelope]]:
    return {kind: _envelope(name, kind, base) for name, kind in kinds.items()}


def _envelope(name: str, kind: type[Payload], base: type[Envelope]) -> type[Envelope]:
    title = "".join(map(str.capitalize, re.split("[._]", name))) + "Message"
    fields = [("data", kind)]
    made = msgspec.defstruct(title, fields, bases=(base,), tag_field="type", tag=name, frozen=True, kw_only=True)
    return cast("type[Envelope]", made)


class _Head(msgspec.Struct, frozen=True):
    """What can still be said of a body whose type or data is not understood."""

    id: str
    source: str
    subject: str
    time: datetime
    type: str
    n: int | None = None
    causationid: str | None = None
    correlationid: str | None = None
    actor: str | None = None


class _Data(msgspec.Struct, frozen=True):
    """A command's data as it was sent."""

    data: Any


_EVENT_ENVELOPES = _envelopes(EVENTS, Envelope)
_COMMAND_ENVELOPES = _envelopes(COMMANDS, CommandEnvelope)
_ENVELOPES = _EVENT_ENVELOPES | _COMMAND_ENVELOPES
_encoder = msgspec.json.Encoder()
_head_decoder = msgspec.json.Decoder(_Head)
_data_decoder = msgspec.json.Decoder(_Data)


# Made when the first is needed: together they take 60 ms, and a runnerd that boots needs neither.
@cache
def _event_decoder() -> msgspec.json.Decoder[Envelope]:
    return msgspec.json.Decoder(Union[tuple(_EVENT_ENVELOPES.values())])  # noqa: UP007


@cache
def _command_decoder() -> msgspec.json.Decoder[Envelope]:
    return msgspec.json.Decoder(Union[tuple(_COMMAND_ENVELOPES.values())])  # noqa: UP007


def prepare_for_commands() -> None:
    """Make what decodes them now, which takes 30 ms, rather than when the first has come."""
    _command_decoder()


def envelope_types() -> tuple[type[Envelope], ...]:
    """The envelope type of every message, for documents and tests."""
    return tuple(_ENVELOPES.values())


def seal(payload: Payload, *, id: str, source: str, subject: str, time: datetime, **attributes: Any) -> Envelope:
    """The envelope for a payload; `attributes` are those of `Envelope` that are not always there."""
    kind = _ENVELOPES[type(payload)]
    return kind(specversion="1.0", id=id, source=source, subject=subject, time=time, data=payload, **attributes)


def encode(envelope: Envelope) -> bytes:
    """One JSON object, the body of one message."""
    return _encoder.encode(envelope)


def decode_event(subject: str, body: bytes) -> Envelope:
    """The event stored on `subject`.

    An event of an unknown type, or whose data this version cannot read, comes back with `Unknown` as its
    data and its `n` in place, so that ordinals go on. Raises Malformed for what is no event at all, or
    belongs on another subject.
    """
    where = parse_event_subject(subject)
    try:
        envelope = _event_decoder().decode(body)
    except _UNREADABLE as error:
        envelope = _unknown(body, error)
    else:
        if not belongs(type(envelope.data), where.aggregate):
            raise Malformed(f"an event of type {envelope.type} does not belong on {subject}")
    if envelope.subject != subject:
        raise Malformed(f"the event's subject {envelope.subject[:200]!r} is not {subject}, where it is stored")
    return envelope


def _unknown(body: bytes, problem: Exception) -> Envelope:
    try:
        head = _head_decoder.decode(body)
    except _UNREADABLE as error:
        raise Malformed(f"not an event: {_problem(error)}") from error
    return Envelope(
        specversion="1.0",
        id=head.id,
        source=head.source,
        subject=head.subject,
        time=head.time,
        n=head.n,
        causationid=head.causationid,
        correlationid=head.correlationid,
        actor=head.actor,
        data=Unknown(raw_type=head.type, problem=_problem(problem)),
    )


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "values are nested too deeply"
    text = str(error)
    return text if len(text) <= _MAX_PROBLEM else f"{text[: _MAX_PROBLEM // 2]} … {text[-_MAX_PROBLEM // 2 :]}"


def _surplus(value: Any, raw: Any, path: str) -> str:
    """What the decoder would say of the first field that a part of a command does not know, "" for nothing. It cannot
    say it itself: events have the same parts, and ignore additions."""
    within: Iterator[tuple[Any, Any, str]] = iter(())
    if isinstance(value, Payload | Part):
        fields = dict(zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True))
        for name in raw:
            if name not in fields:
                return f"Object contains unknown field `{name}` - at `{path}`"
        within = ((getattr(value, fields[name]), part, f"{path}.{name}") for name, part in raw.items())
    elif isinstance(value, dict):
        within = ((value[name], part, f"{path}[...]") for name, part in raw.items())
    return next((said for one, part, where in within if (said := _surplus(one, part, where))), "")


def decode_command(subject: str, body: bytes) -> Envelope:
    """The command stored on `subject`.

    Raises Malformed when the subject is none of a command, and Refused (BAD_REQUEST, with the field and
    the problem) when the subject names who is to be answered and the body is not in order.
    """
    where = parse_command_subject(subject)
    if len(body) > MAX_COMMAND_BYTES:
        raise Refused("BAD_REQUEST", f"the command has {len(body)} bytes; the limit is {MAX_COMMAND_BYTES}")
    try:
        envelope = _command_decoder().decode(body)
        surplus = _surplus(envelope.data, _data_decoder.decode(body).data, "$.data")
        if surplus:
            raise msgspec.ValidationError(surplus)
    except _UNREADABLE as error:
        raise Refused("BAD_REQUEST", f"the command is not in order: {_problem(error)}") from error
    if envelope.subject != subject:
        raise Refused("BAD_REQUEST", f"the command's subject {envelope.subject[:200]!r} is not {subject}")
    if envelope.id != where.command_id:
        raise Refused("BAD_REQUEST", f"the command's id {envelope.id[:80]!r} is not the last token of its subject")
    if envelope.data.role != where.role:
        raise Refused("BAD_REQUEST", f"{envelope.type} is for the role {envelope.data.role}, not for {where.role}")
    return envelope


def payload_of(envelope: Envelope) -> Event | Command:
    """The payload with its type."""
    return cast("Event | Command", envelope.data)
