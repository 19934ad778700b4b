"""The envelope (a CloudEvents 1.0 structured JSON object) and what every payload shares."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct

from sandreel_core.ids import ID_PATTERN, ORG_PATTERN

Org = Annotated[str, Meta(pattern=ORG_PATTERN)]
Id = Annotated[str, Meta(pattern=ID_PATTERN)]
Instant = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0)]
Ordinal = Annotated[int, Meta(ge=1)]
MAX_INTEGER = 2**63 - 1  # what Postgres' bigint and most programs hold
Seconds = Annotated[float, Meta(gt=0, le=366 * 86_400)]
EnvName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$(?!\n)")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Sentence = Annotated[str, Meta(max_length=4096)]

MAX_ENV_NAMES = 128  # behaviour §1, constants
MAX_ENV_VALUE_BYTES = 32 * 1024  # behaviour §1, constants; UTF-8 bytes


class Payload(Struct, frozen=True, kw_only=True):
    """The `data` of one message. `type` is the CloudEvents type, `aggregate` who is told about."""

    type: ClassVar[str] = ""
    aggregate: ClassVar[str] = ""


class Event(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened. Readers ignore fields that they do not know."""


class Command(Payload, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Something that is asked for. An unknown field is refused: it would be silently without effect."""

    role: ClassVar[str] = ""


class Unknown(Event, frozen=True, kw_only=True):
    """An event of a type, or with data, that this version cannot digest; `raw_type` is what it said."""

    type: ClassVar[str] = "unknown"
    raw_type: str
    problem: str


class Part(Struct, frozen=True, kw_only=True):
    """A struct within payloads. One type serves commands and events: the codec refuses unknown fields in a command, and
    a later version's additions are ignored in an event."""


class Owner(Part, frozen=True, kw_only=True):
    """Who a session belongs to: an open type (`user`, `thread`, `workflow`, …) and an id within the org."""

    type: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$(?!\n)")]
    id: Annotated[str, Meta(min_length=1, max_length=256)]


MAX_DEPTH = 100  # far below what any supported interpreter can decode (990 on 3.11), so that all refuse the same


_CONTAINERS = (dict, list, tuple)


def not_too_deep(value: Any, field: str) -> None:
    """Values within values of a free-form field. Raises ValueError with the field and the limit, which a decoder passes on."""
    level = [value]
    for _ in range(MAX_DEPTH):
        within: list[Any] = []
        for one in level:
            if isinstance(one, _CONTAINERS):
                within += one.values() if isinstance(one, dict) else one
        if not within:
            return
        level = within
    raise ValueError(f"`{field}` is nested too deeply: more than {MAX_DEPTH} levels")


class Envelope(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message body.

    id            unique within `source`; a command's is a UUIDv7 and the last token of its subject
    source        who says it: `/<role>/<org>/<session>/<boot>` and the like
    subject       the NATS subject it is stored on (a reader skips a body that stands elsewhere)
    time          when it was said, by the sayer's clock: for people, never for order
    n             contiguous ordinal from 1 of an exec's events; None on every other subject
    causationid   id of the command that this event answers
    correlationid id of the turn or root command that it belongs to
    actor         who asked
    traceparent   W3C trace context
    deadline      commands only: past it the command is refused as EXPIRED
    expectedrevision  commands only: cursor of the last event of the aggregate that the sender has seen

    Any other attribute is an extension (CloudEvents 1.0 §3.2) and is ignored, a misspelt one too.
    """

    specversion: Literal["1.0"]
    id: Annotated[str, Meta(min_length=1, max_length=256)]
    source: Annotated[str, Meta(min_length=1, max_length=1024)]
    subject: Annotated[str, Meta(min_length=1, max_length=1024)]
    time: Instant
    data: Any
    n: Ordinal | None = None
    causationid: str | None = None
    correlationid: str | None = None
    actor: Annotated[str, Meta(max_length=256)] | None = None
    traceparent: Annotated[str, Meta(max_length=128)] | None = None
    deadline: Instant | None = None
    expectedrevision: Annotated[str, Meta(max_length=128)] | None = None

    @property
    def type(self) -> str:
        """The CloudEvents type of the payload."""
        payload = self.data
        if isinstance(payload, Unknown):
            return payload.raw_type
        return payload.type if isinstance(payload, Payload) else ""


class CommandEnvelope(Envelope, frozen=True, kw_only=True, omit_defaults=True):
    """A command's. What it carries over into the events that it causes has a bound."""

    causationid: Annotated[str, Meta(max_length=256)] | None = None
    correlationid: Annotated[str, Meta(max_length=256)] | None = None
