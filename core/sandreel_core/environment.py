"""Which variables a session may set. Pure; the spawner asks it for seeds, runnerd for patches and execs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sandreel_core.contract.message import MAX_ENV_NAMES, MAX_ENV_VALUE_BYTES
from sandreel_core.contract.session import Requested
from sandreel_core.contract.workspace import EnvPatched

# In any case: a lower-case `path` or `home` slipped past the predecessor's list (behaviour §7).
_DENIED = re.compile(r"\A(HOME|PATH|TMPDIR|SANDREEL_.*|(HTTPS?|NO|ALL|FTP)_PROXY)\Z", re.IGNORECASE)


def is_denied(name: str) -> bool:
    """Whether sandreel keeps this name for itself."""
    return _DENIED.match(name) is not None


def is_admissible(name: str, value: str) -> bool:
    """Whether the pair may be set at all: a free name, no NUL, at most 32 KiB of UTF-8."""
    if is_denied(name) or "\0" in value or len(value) > MAX_ENV_VALUE_BYTES:
        return False
    return len(value.encode("utf-8", "surrogatepass")) <= MAX_ENV_VALUE_BYTES


def evolve(env: Mapping[str, str], event: object) -> dict[str, str]:
    """What a session's execs get after one event of its own subject or of its workspace: what it was created with,
    and every patch since this incarnation began."""
    if isinstance(event, Requested):
        return dict(event.env)
    if isinstance(event, EnvPatched):
        return {name: value for name, value in env.items() if name not in event.unset} | event.set
    return dict(env)


def patch(
    current: Mapping[str, str], set: Mapping[str, str], unset: Iterable[str] = ()
) -> tuple[dict[str, str], dict[str, str], list[str], list[str]]:
    """(the new environment, what was set, what was unset, names denied), unset first.

    Denied: names kept by sandreel, values that are too long, and new names beyond 128. A name that is
    there already may always be overwritten.
    """
    result = dict(current)
    applied: dict[str, str] = {}
    removed: list[str] = []
    denied: list[str] = []
    for name in unset:
        if is_denied(name):
            denied.append(name)
        else:
            result.pop(name, None)
            removed.append(name)
    for name, value in set.items():
        if not is_admissible(name, value) or (name not in result and len(result) >= MAX_ENV_NAMES):
            denied.append(name)
        else:
            result[name] = applied[name] = value
    return result, applied, removed, denied
