"""Why a container ended: from its state and from what the engine remembers of it. Pure.

The state alone cannot tell: `OOMKilled` says that something in it was killed for memory once, which may have been an
agent hours ago, and exit code 137 is every SIGKILL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sandreel_core.spawner.backend import Cause, Death

# The engine keeps this many events of all kinds (moby, daemon/events: eventsLimit); fewer means that these are all
# since it was started.
MEMORY_EVENTS = 256
_SIGKILL = 137
_KILL = {"9", "KILL", "SIGKILL"}
# What makes a runnerd leave, in good order and with 0 (`sandreel_runnerd.init`): nobody but who sent it ended it.
_LEAVE = {"1", "HUP", "SIGHUP", "2", "INT", "SIGINT", "15", "TERM", "SIGTERM"}
# An OOM kill of PID 1 and the container's end are a fraction of a second apart, on a loaded machine some seconds.
_OOM_WITHIN_S = 10.0
_NOBODY_COULD_TELL = 255  # what the engine writes down when it was away as a container ended
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")


@dataclass(frozen=True, slots=True)
class Happened:
    """One event of a container; `at` in seconds since 1970 by the engine's clock."""

    action: str
    at: float
    signal: str = ""


def happened(event: Mapping[str, Any]) -> Happened:
    """From an event of the engine's API."""
    attributes = event.get("Actor", {}).get("Attributes", {})
    return Happened(
        action=str(event.get("Action", "")).split(":")[0],
        at=event.get("timeNano", 0) / 1e9 or float(event.get("time", 0)),
        signal=str(attributes.get("signal", "")),
    )


def death_of(state: Mapping[str, Any], events: Iterable[Happened], *, restarted: bool) -> Death:
    """Why a container that does not run ended.

    state      `State` of its inspection
    events     its own, as far as they are known
    restarted  the engine does not remember the container's start, although it has room: it has been started itself since
    """
    known = list(events)
    code = int(state.get("ExitCode", 0))
    return Death(_cause(state, known, code, restarted=restarted), code)


def _cause(state: Mapping[str, Any], events: list[Happened], code: int, *, restarted: bool) -> Cause:
    ended = instant(str(state.get("FinishedAt", "")))
    ended_at = ended.timestamp() if ended is not None else 0.0
    signals = {event.signal for event in events if event.action == "kill"}
    # An engine that is stopped asks its containers to end before it kills them; `docker kill` does not.
    if signals & _KILL and not (restarted and signals - _KILL):
        return "killed"
    ooms = [event.at for event in events if event.action == "oom"]
    if code == _SIGKILL and state.get("OOMKilled") and (not ooms or ended_at - ooms[-1] <= _OOM_WITHIN_S):
        return "oom"
    if restarted:
        return "engine"
    if code == _NOBODY_COULD_TELL and not any(event.action == "die" for event in events):
        return "engine"
    return "killed" if code > 128 or (code == 0 and signals & _LEAVE) else "exited"


def instant(text: str) -> datetime | None:
    """The engine's RFC 3339 with nanoseconds, which Python's own parser does not take; None for its zero value."""
    found = _INSTANT.match(text)
    if found is None or text.startswith("0001-"):
        return None
    micros = int((found[2] or "0").ljust(9, "0")[:6])
    return datetime.fromisoformat(found[1]).replace(microsecond=micros, tzinfo=UTC)
