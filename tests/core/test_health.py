"""Ok, degraded, failing: by what was said and for how long."""

from __future__ import annotations

from sandreel_core.health import FAILS_AFTER_S, Health


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def health() -> tuple[Health, Clock]:
    clock = Clock()
    return Health("spawner", version="1", pid=7, monotonic=clock), clock


def test_a_role_that_has_not_said_that_it_serves_is_failing() -> None:
    role, clock = health()
    clock.now += 2
    report = role.report()
    assert (report.status, report.uptime_s, [reason.part for reason in report.reasons]) == ("failing", 2, ["start"])
    role.ready()
    assert (role.report().status, role.report().reasons) == ("ok", ())


def test_trouble_degrades_and_fails_once_it_lasts_and_passes() -> None:
    role, clock = health()
    role.ready()
    role.trouble("nats", "the connection is lost")
    clock.now += FAILS_AFTER_S - 1
    role.trouble("nats", "the connection is lost")  # said again: it began when it was said first
    assert [(r.part, r.status, r.for_s) for r in role.report().reasons] == [("nats", "degraded", FAILS_AFTER_S - 1)]
    clock.now += 1
    assert role.report().status == "failing"
    role.well("nats")
    role.well("nats")
    assert role.report().status == "ok"
    role.trouble("nats", "the connection is lost")
    assert role.report().reasons[0].for_s == 0


def test_what_never_fails_stays_degraded_and_the_worst_counts() -> None:
    role, clock = health()
    role.ready()
    role.trouble("stream CMD", "nearly full", fails_after_s=None)
    clock.now += 10 * FAILS_AFTER_S
    assert role.report().status == "degraded"
    role.trouble("backend", "gone", fails_after_s=0)
    report = role.report()
    assert (report.status, [reason.part for reason in report.reasons]) == ("failing", ["backend", "stream CMD"])
