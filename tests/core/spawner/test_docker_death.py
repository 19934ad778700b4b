"""Why a container ended: every cause, from states and events as the engine writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from sandreel_core.spawner.backend import Cause
from sandreel_core.spawner.docker_death import Happened, death_of, happened, instant

ENDED = "2026-11-25T22:03:24.500000000Z"
AT = datetime(2026, 11, 25, 22, 3, 24, 500_000, UTC).timestamp()
START, DIE = Happened("start", AT - 100), Happened("die", AT)
KILL, TERM = Happened("kill", AT, "9"), Happened("kill", AT, "15")
OOM, OLD_OOM = Happened("oom", AT - 0.1), Happened("oom", AT - 60)


def state(code: int, oom: bool = False) -> dict[str, Any]:
    return {"Status": "exited", "ExitCode": code, "OOMKilled": oom, "FinishedAt": ENDED}


@pytest.mark.parametrize(
    ("given", "events", "restarted", "cause"),
    [
        (state(0), [START, DIE], False, "exited"),
        # `docker stop`: it was told to leave, and did.
        (state(0), [START, TERM, DIE], False, "killed"),
        # It had not come so far that it could, or ended for a reason of its own.
        (state(78), [START, TERM, DIE], False, "exited"),
        (state(3), [START, DIE], False, "exited"),
        (state(137), [START, KILL, DIE], False, "killed"),
        (state(137), [START, DIE], False, "killed"),
        (state(143), [START, DIE], False, "killed"),
        (state(137, oom=True), [START, OOM, DIE], False, "oom"),
        (state(137, oom=True), [START, DIE], False, "oom"),
        # An agent was killed for memory long before somebody killed runnerd.
        (state(137, oom=True), [START, OLD_OOM, DIE], False, "killed"),
        (state(137, oom=True), [START, OOM, KILL, DIE], False, "killed"),
        (state(0, oom=True), [START, OOM, DIE], False, "exited"),
        # The engine has been started since: it does not remember the container's start.
        (state(137), [], True, "engine"),
        (state(0), [DIE], True, "engine"),
        (state(255), [START], False, "engine"),
        # It was stopped while it was watched: it asks, and after a while it kills.
        (state(0), [START, TERM, DIE], True, "engine"),
        (state(137), [START, TERM, KILL, DIE], True, "engine"),
        (state(137), [START, KILL, DIE], True, "killed"),
        # Its memory is full: what is not in it may have been.
        (state(137), [], False, "killed"),
        (state(0), [], False, "exited"),
        (state(137, oom=True), [], False, "oom"),
    ],
)
def test_causes(given: dict[str, Any], events: list[Happened], restarted: bool, cause: Cause) -> None:
    death = death_of(given, events, restarted=restarted)
    assert (death.cause, death.exit_code) == (cause, given["ExitCode"])


def test_events_are_read_as_the_engine_writes_them() -> None:
    event = {
        "Type": "container",
        "Action": "kill",
        "Actor": {"ID": "c", "Attributes": {"signal": "9", "name": "n"}},
        "time": 1,
        "timeNano": 1_500_000_000,
    }
    assert happened(event) == Happened("kill", 1.5, "9")
    assert happened({"Action": "die", "time": 2}) == Happened("die", 2.0)


@pytest.mark.parametrize(
    ("text", "micros"), [("2026-11-25T22:03:24.004250123Z", 4250), ("2026-11-25T22:03:24Z", 0), ("2026-11-25T22:03:24.5Z", 500_000)]
)  # fmt: skip
def test_times(text: str, micros: int) -> None:
    assert instant(text) == datetime(2026, 11, 25, 22, 3, 24, micros, UTC)


def test_no_time() -> None:
    assert instant("0001-01-01T00:00:00Z") is None
    assert instant("yesterday") is None
