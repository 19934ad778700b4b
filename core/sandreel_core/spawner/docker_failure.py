"""What the container engine and its SDK raise, as what a caller can do something about."""

from __future__ import annotations

import docker.errors
import requests
import urllib3

from sandreel_core.errors import AlreadyExists, Conflict, NotFound, Refused, SandreelError, Unavailable

FAILURES = (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError)


def ours(error: BaseException) -> SandreelError:
    """One of FAILURES, as one of ours."""
    if not isinstance(error, docker.errors.APIError):
        return Unavailable(f"the container engine does not answer: {_cause(error)}", retry_after_s=1)
    said = " ".join(str(error.explanation or error).split())[:400]
    code = error.response.status_code if error.response is not None else 500
    if code == 404:
        return NotFound(said)
    if any(words in said for words in _TAKEN):
        return AlreadyExists(said)
    if "no space left" in said.lower():
        return Unavailable(f"the engine's disk is full: {said}", retry_after_s=30)
    if code == 400:
        return Refused("BAD_REQUEST", said)
    if code in (304, 403, 409) or _APART in said:  # 403: what is in use (networks) or not allowed in this state
        return Conflict(said)
    return Unavailable(f"the container engine failed: {said}", retry_after_s=5)


# By their words: 20.10 says 403, 409 or 500 to these, depending on who in it found out.
_APART = "is not connected to the network"  # also when there is no such network (any more)
_TAKEN = ("is already in use by container", "Pool overlaps", "already exists in network", "network with name")


def is_late(error: requests.RequestException) -> bool:
    """No answer in time: a body that does not come is no ReadTimeout to requests."""
    return isinstance(error, requests.ReadTimeout) or any(
        isinstance(inner, urllib3.exceptions.ReadTimeoutError) for inner in error.args
    )


def _cause(error: BaseException) -> str:
    """The innermost reason, in a few words: the SDK wraps a refused connection four times."""
    seen: BaseException = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
    return " ".join((getattr(seen, "strerror", None) or str(seen) or type(seen).__name__).split())[:200]
