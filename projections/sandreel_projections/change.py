"""One event of the log as the folds take it: decoded, with its place. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sandreel_core.bus.port import Stored
from sandreel_core.contract.catalog import EVENTS
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Envelope, Unknown
from sandreel_core.contract.subjects import EventSubject, parse_event_subject

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_BIGINT = 2**63 - 1
_MAX_INTEGER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Change:
    """`at` is the stream server's time. `epoch` is that of the stream. `body` is the message as it is stored."""

    where: EventSubject
    envelope: Envelope
    sequence: int
    at: datetime
    epoch: str
    body: bytes

    @property
    def data(self) -> Any:
        return self.envelope.data

    @property
    def cursor(self) -> str:
        return str(Cursor(self.epoch, self.where.partition, self.sequence))

    @property
    def problem(self) -> str:
        """Why the event's data is of no use, where its type is one that this version knows; else empty."""
        data = self.envelope.data
        return data.problem if isinstance(data, Unknown) and data.raw_type in EVENTS else ""


def instant(time_ns: int) -> datetime:
    """Nanoseconds since 1970 as a time in UTC, exact to the microsecond below."""
    return _EPOCH + timedelta(microseconds=time_ns // 1000)


def change(stored: Stored, epoch: str) -> Change:
    """Raises Malformed for what is no event."""
    where = parse_event_subject(stored.subject)
    envelope = decode_event(stored.subject, stored.body)
    return Change(where, envelope, stored.sequence, instant(stored.time_ns), epoch, stored.body)


def aware(time: datetime) -> datetime:
    """A time without a zone, which only a message that breaks the contract has, is taken for one in UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def text(value: str | None) -> str | None:
    """As Postgres can keep it: NUL becomes U+FFFD."""
    return value.replace("\0", "\ufffd") if value is not None and "\0" in value else value


def texts(values: list[str] | None) -> list[str] | None:
    return None if values is None else [text(value) or "" for value in values]


def bigint(value: int | None) -> int | None:
    """Clipped to what eight bytes hold: the contract sets no upper limit to counts."""
    return None if value is None else max(-_MAX_BIGINT, min(value, _MAX_BIGINT))


def integer(value: int | None) -> int | None:
    """Clipped to what four bytes hold."""
    return None if value is None else max(-_MAX_INTEGER, min(value, _MAX_INTEGER))
