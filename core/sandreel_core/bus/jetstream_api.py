"""JetStream's own requests: JSON over `$JS.API.>`, and its error codes as ours."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec

from sandreel_core.bus.jetstream_link import Link
from sandreel_core.bus.port import Stored, Stream, StreamState, Work, ancestors_of, partitions_of, restored_at_of
from sandreel_core.clock import new_token
from sandreel_core.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    Full,
    Misconfigured,
    NotFound,
    SandreelError,
    TooLarge,
    Unavailable,
)

# nats-server/server/errors.json
NO_MESSAGE = 10037
_NOT_FOUND = (10014, 10037, 10059)
_WRONG_LAST = (10071, 10164)
_LAST = re.compile(r"wrong last sequence: ([0-9]+)$")
_STORE_FAILED = 10077
_EXCEEDS = (10054, 10097)
# A batch of which the server has not all: it was away in between, or had too many others under way.
_INCOMPLETE = 10176

# The door to a log of one organisation (bus/jetstream_door.py) says this; JetStream itself never does.
FORBIDDEN = 403

NS = 1_000_000_000


def to_error(code: int, err_code: int, description: str, about: str) -> SandreelError:
    """What an error of JetStream means to the caller."""
    text = f"{about}: {description}"
    if err_code in _WRONG_LAST:
        said = _LAST.search(description)
        return Conflict(text, int(said[1]) if said else None)
    if err_code == _STORE_FAILED and "per subject" in description:
        return AlreadyExists(text)
    if err_code == _STORE_FAILED and "maximum" in description:
        return Full(text)
    if err_code in _EXCEEDS or "exceeds maximum allowed" in description:
        return TooLarge(text)
    if err_code in _NOT_FOUND:
        return NotFound(text)
    if code == FORBIDDEN:
        return Denied(text)
    if err_code == _INCOMPLETE:
        return Unavailable(text)
    if code in (400, 500) and err_code > 10000:
        return Misconfigured(text) if code == 400 else _by_description(text)
    return Unavailable(text)


def _by_description(text: str) -> SandreelError:
    lowered = text.lower()
    fixed = ("can not", "cannot", "does not match", "must be", "not supported", "overlap", "requires")
    return Misconfigured(text) if any(word in lowered for word in fixed) else Unavailable(text)


async def ask(link: Link, verb: str, payload: Any = None, *, timeout_s: float) -> dict[str, Any]:
    """One request. Raises what its error means, Unavailable on time-out."""
    body = msgspec.json.encode(payload) if payload is not None else b""
    try:
        message = await link.request(f"{link.login.api}.{verb}", body, timeout_s=timeout_s)
    except NotFound as error:
        raise Unavailable(f"JetStream does not answer {verb.partition('.')[0]}") from error
    answer: dict[str, Any] = msgspec.json.decode(message.data)
    if "error" in answer:
        raise_error(answer["error"], verb)
    return answer


def raise_error(error: dict[str, Any], about: str) -> NoReturn:
    raise to_error(error.get("code", 0), error.get("err_code", 0), error.get("description", "no reason"), about)


def stream_config(stream: Stream, metadata: dict[str, str]) -> dict[str, Any]:
    """A stream as the server wants it. Old messages go for age only: when it is full, new ones are refused."""
    return {
        "name": stream.name,
        "subjects": list(stream.subjects),
        "retention": "limits",
        "discard": "new",
        "discard_new_per_subject": stream.discard_new_per_subject,
        "storage": "memory" if stream.memory else "file",
        "max_bytes": stream.max_bytes or -1,
        "max_age": int(stream.max_age_s * NS),
        "max_msgs": -1,
        "max_msgs_per_subject": stream.per_subject or -1,
        "max_consumers": stream.max_consumers,
        "num_replicas": stream.replicas,
        "duplicate_window": int(_window_s(stream) * NS),
        "allow_direct": True,
        "allow_atomic": stream.batches,
        "metadata": metadata,
    }


def _window_s(stream: Stream) -> float:
    # The server refuses a window that is longer than the age.
    return min(stream.duplicate_window_s, stream.max_age_s) if stream.max_age_s else stream.duplicate_window_s


def consumer_config(work: Work) -> dict[str, Any]:
    return {
        "durable_name": work.name,
        "name": work.name,
        "ack_policy": "explicit",
        "ack_wait": int(work.ack_wait_s * NS),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "max_deliver": -1,
        "max_ack_pending": work.max_ack_pending,
        **filters_config(work.filters),
    }


def reader_config(name: str, filters: tuple[str, ...], after: int, inactive_s: float) -> dict[str, Any]:
    """A consumer in memory that begins behind `after` and asks for no acknowledgements; without a reader it is forgotten after
    `inactive_s`."""
    return {
        "name": name,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": after + 1,
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(inactive_s * NS),
        **filters_config(filters),
    }


def filters_config(filters: tuple[str, ...]) -> dict[str, Any]:
    if not filters:
        return {}
    return {"filter_subject": filters[0]} if len(filters) == 1 else {"filter_subjects": list(filters)}


def stream_state(answer: dict[str, Any]) -> StreamState:
    config, state = answer["config"], answer["state"]
    metadata = config.get("metadata") or {}
    return StreamState(
        name=config["name"],
        epoch=metadata.get("epoch", ""),
        first_sequence=state["first_seq"] or 1,
        last_sequence=state["last_seq"],
        messages=state["messages"],
        bytes=state["bytes"],
        max_bytes=config["max_bytes"],
        partitions=partitions_of(metadata),
        restored_at=restored_at_of(metadata),
        ancestors=ancestors_of(metadata),
    )


async def ensure_stream(link: Link, stream: Stream, timeout_s: float) -> None:
    """Make or update it. The metadata that it has stays."""
    for _ in range(5):
        try:
            found = (await ask(link, f"STREAM.INFO.{stream.name}", timeout_s=timeout_s))["config"]
        except NotFound:
            try:
                config = stream_config(stream, dict(stream.metadata))
                _check_batches(stream, await ask(link, f"STREAM.CREATE.{stream.name}", config, timeout_s=timeout_s))
            except Misconfigured as error:
                if "already in use" not in str(error):
                    raise
                continue  # somebody was faster
            return
        metadata = dict(found.get("metadata") or {})
        config = stream_config(stream, stream.metadata | metadata)
        if all(found.get(key, _DEFAULTS.get(key)) == value for key, value in config.items()):
            return
        if found["storage"] != config["storage"]:
            raise Misconfigured(f"stream {stream.name} cannot change its storage: delete it or keep its settings")
        _check_batches(stream, await ask(link, f"STREAM.UPDATE.{stream.name}", found | config, timeout_s=timeout_s))
        return
    raise Unavailable(f"stream {stream.name} comes and goes")


def _check_batches(stream: Stream, answer: dict[str, Any]) -> None:
    """An older server ignores what it does not know, and would store the messages of a batch without looking."""
    if stream.batches and not answer["config"].get("allow_atomic", False):
        raise Misconfigured(
            "the NATS server is too old: it has to be 2.12 or later, which stores several messages at once"
        )


# What the server leaves out of its answers when it has these values.
_DEFAULTS: dict[str, Any] = {
    "discard_new_per_subject": False,
    "allow_direct": False,
    "allow_atomic": False,
    "metadata": {},
}


async def ensure_work(link: Link, work: Work, timeout_s: float) -> None:
    """Make or update a durable consumer; several may do so at once."""
    payload = {"stream_name": work.stream, "config": consumer_config(work), "action": ""}
    await ask(link, f"CONSUMER.DURABLE.CREATE.{work.stream}.{work.name}", payload, timeout_s=timeout_s)


async def message(link: Link, stream: str, request: dict[str, Any], timeout_s: float) -> Stored | None:
    """STREAM.MSG.GET: by sequence, or the last or next one of a subject (wildcards allowed)."""
    try:
        found = (await ask(link, f"STREAM.MSG.GET.{stream}", request, timeout_s=timeout_s))["message"]
    except NotFound as error:
        if str(NO_MESSAGE) in str(error) or "no message found" in str(error):
            return None
        raise
    body = base64.b64decode(found.get("data") or "")
    return Stored(found["subject"], found["seq"], body, _nanoseconds(found["time"]))


async def sequence_at(link: Link, stream: str, time_ns: int, timeout_s: float) -> int:
    """A consumer that begins behind that time says where it begins; it is never read, and forgotten at once."""
    name = new_token("t")
    config = {
        "name": name,
        "deliver_policy": "by_start_time",
        "opt_start_time": _rfc3339(time_ns + 1),
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": NS,
    }
    payload = {"stream_name": stream, "config": config, "action": "create"}
    made = await ask(link, f"CONSUMER.CREATE.{stream}.{name}", payload, timeout_s=timeout_s)
    await link.publish(f"{link.login.api}.CONSUMER.DELETE.{stream}.{name}", b"")
    return int(made["delivered"]["stream_seq"])


def _rfc3339(time_ns: int) -> str:
    """RFC 3339 with nine decimals, which datetime cannot hold."""
    seconds, rest = divmod(time_ns, NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _nanoseconds(text: str) -> int:
    """RFC 3339 with up to nine decimals, which datetime cannot hold."""
    whole, _, rest = text.partition(".")
    fraction = "".join(c for c in rest if c.isdigit())[:9] if rest.endswith("Z") else ""
    whole = whole.removesuffix("Z") + "+00:00"
    return int(datetime.fromisoformat(whole).timestamp()) * NS + int(fraction.ljust(9, "0") or 0)


async def subjects(link: Link, stream: str, filter: str, timeout_s: float) -> dict[str, int]:
    """Every subject with its number of messages; the server gives 100,000 at a time."""
    found: dict[str, int] = {}
    while True:
        request = {"subjects_filter": filter, "offset": len(found)}
        answer = await ask(link, f"STREAM.INFO.{stream}", request, timeout_s=timeout_s)
        page = answer["state"].get("subjects") or {}
        found |= page
        if not page or len(found) >= answer.get("total", 0):
            return found
