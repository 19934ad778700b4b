"""An error as an answer, and back: how what a handler raised reaches the one who asked."""

from __future__ import annotations

import msgspec

from sandreel_core import errors
from sandreel_core.bus.port import Handler
from sandreel_core.contract.requests import Failure
from sandreel_core.log import Log

# Every answer that is a failure begins so: msgspec writes the tag first, and no reply type has this field.
_HEAD = b'{"failure":"Failure"'
_KINDS: dict[str, type[errors.SandreelError]] = {
    kind.__name__: kind
    for kind in (
        *(errors.Conflict, errors.Unavailable, errors.Full, errors.Denied, errors.Over, errors.TooLarge),
        *(errors.NotFound, errors.AlreadyExists, errors.Malformed, errors.Misconfigured),
    )
}
# Whoever gets this as an answer was served: it was the service that met nobody.
_KINDS[errors.Unserved.__name__] = errors.NotFound


def encode_failure(error: errors.SandreelError) -> bytes:
    """The answer that stands for this error."""
    if isinstance(error, errors.Refused):
        return msgspec.json.encode(Failure(kind="Refused", message=error.message, code=error.code))
    return msgspec.json.encode(Failure(kind=type(error).__name__, message=str(error)))


async def answer(handler: Handler, subject: str, body: bytes, log: Log) -> bytes:
    """What the handler says, or the answer that stands for what it raised: a bug of its own answers one request badly and
    ends nothing."""
    try:
        return await handler(subject, body)
    except errors.SandreelError as error:
        return encode_failure(error)
    except Exception:
        log.exception("a handler failed", subject=subject)
        return encode_failure(errors.Unavailable("the request failed; the service has logged why"))


def check_answer(body: bytes) -> bytes:
    """The answer, unchanged. Raises what it stands for when it is a failure."""
    if not body.startswith(_HEAD):
        return body
    try:
        failure = msgspec.json.decode(body, type=Failure)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.Malformed(f"an answer that is no failure in order: {error}") from error
    if failure.kind == "Refused":
        raise errors.Refused(failure.code, failure.message)
    raise _KINDS.get(failure.kind, errors.Unavailable)(failure.message)
