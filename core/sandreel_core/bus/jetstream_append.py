"""Awaited publishes into JetStream, one or several at once, and what the server answers to any publish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sandreel_core.bus.jetstream_api import to_error
from sandreel_core.bus.jetstream_link import Headers, Link
from sandreel_core.clock import new_token
from sandreel_core.errors import NotFound, SandreelError, Unavailable

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"


async def append(
    link: Link, subject: str, body: bytes, expected: int | None, message_id: str | None, timeout_s: float
) -> int:
    """One awaited publish."""
    headers: Headers = {}
    if expected is not None:
        headers[_EXPECTED] = str(expected)
    if message_id is not None:
        headers["Nats-Msg-Id"] = message_id
    return await _stored(link, subject, body, headers, timeout_s)


async def append_all(link: Link, subject: str, bodies: Sequence[bytes], expected: int, timeout_s: float) -> int:
    """One atomic batch (nats-server 2.12): only its last message is answered, and nothing of it is stored before."""
    batch = new_token()
    for number, body in enumerate(bodies, 1):
        headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        if number == 1:
            headers[_EXPECTED] = str(expected)
        if number == len(bodies):
            return await _stored(link, subject, body, headers | {"Nats-Batch-Commit": "1"}, timeout_s)
        await link.publish(subject, body, headers=headers)
    raise ValueError("a batch without a message")


async def _stored(link: Link, subject: str, body: bytes, headers: Headers, timeout_s: float) -> int:
    try:
        message = await link.request(subject, body, timeout_s=timeout_s, headers=headers or None)
    except NotFound as error:
        raise Unavailable(f"no stream keeps {subject}, or none can now") from error
    answer = parse_ack(message.data, subject)
    if isinstance(answer, SandreelError):
        raise answer
    return answer


class _Ack(msgspec.Struct):
    seq: int | None = None
    error: dict[str, Any] | None = None


_ACK = msgspec.json.Decoder(_Ack)


def parse_ack(body: bytes, about: str) -> int | SandreelError:
    """The sequence in a publish acknowledgement, or what the server said instead."""
    try:
        answer = _ACK.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = _Ack()
    if answer.error is not None:
        error = answer.error
        return to_error(error.get("code", 0), error.get("err_code", 0), error.get("description", ""), about)
    if answer.seq is None:
        return Unavailable(f"{about}: an acknowledgement that is none")
    return answer.seq
