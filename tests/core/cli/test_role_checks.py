"""What doctor makes of a role's numbers: every sentence once, and none for a role that is well."""

from __future__ import annotations

import inspect
import re

import pytest

from docs.metrics_page import GROUPS
from sandreel_core.cli import role_checks
from sandreel_core.cli.roles import Place, Told
from sandreel_core.health import Reason, Report, Status
from sandreel_core.health_reading import Reading, Sample

WELL = (
    Sample("sandreel_commands_answered_total", {}, 100),
    Sample("sandreel_commands_redelivered_total", {}, 2),
    Sample("sandreel_stream_messages", {"stream": "DEAD"}, 0),
    Sample("sandreel_stream_messages", {"stream": "CMD"}, 90),
    Sample("sandreel_projection_leading", {"stream": "REEL-0"}, 1),
    Sample("sandreel_projection_look_age_seconds", {"stream": "REEL-0"}, 1),
    Sample("sandreel_projection_lag_seconds", {"stream": "REEL-0"}, 0.3),
)


def told(*more: tuple[str, dict[str, str], float], status: Status = "ok", reasons: tuple[Reason, ...] = ()) -> Told:
    """A role that is well but for these numbers."""
    changed = {(name, *labels.values()) for name, labels, _ in more}
    kept = [sample for sample in WELL if (sample.name, *sample.labels.values()) not in changed]
    report = Report(role="spawner", status=status, version="1", pid=7, uptime_s=60, reasons=reasons)
    samples = (*kept, *(Sample(name, labels, value) for name, labels, value in more))
    return Told(Place("spawner", "127.0.0.1:1", 7), Reading(report, samples))


def test_a_role_that_is_well_is_one_line() -> None:
    [check] = role_checks.checks(told(), log="the log")
    assert (check.name, check.level, check.mend) == ("health of spawner", "ok", "")


@pytest.mark.parametrize(
    ("more", "name", "level", "found"),
    [
        ([("sandreel_heartbeats_late", {}, 2)], "heartbeats late", "warn", "2 sessions"),
        ([("sandreel_runnerd_held", {}, 3)], "output held", "fail", "3 sessions wait"),
        (
            [("sandreel_runnerd_spool_bytes", {}, 3 << 20), ("sandreel_runnerd_spool_used_ratio", {}, 0.4)],
            *("spool in use", "warn", "3.0 MiB of output are not in NATS yet, the fullest spool is 40% full"),
        ),
        (
            [("sandreel_runnerd_spool_bytes", {}, 3 << 20), ("sandreel_runnerd_spool_used_ratio", {}, 0.9)],
            *("spool in use", "fail", "90% full"),
        ),
        ([("sandreel_runnerd_gaps_total", {}, 1)], "output missing", "fail", "1 times"),
        ([("sandreel_stream_messages", {"stream": "DEAD"}, 4)], "dead letters", "warn", "4 commands"),
        ([("sandreel_commands_redelivered_total", {}, 20)], "redeliveries, spawner", "warn", "20 deliveries"),
        (
            [("sandreel_projection_look_age_seconds", {"stream": "REEL-0"}, 45)],
            *("lag behind REEL-0", "fail", "has not seen the stream's end for 45 s"),
        ),
        (
            [
                ("sandreel_projection_lag_seconds", {"stream": "REEL-0"}, 11),
                ("sandreel_projection_lag_events", {"stream": "REEL-0"}, 900),
            ],
            *("lag behind REEL-0", "warn", "900 events, 11 s behind"),
        ),
    ],
)
def test_what_is_wrong_is_one_line_more_with_what_to_do(
    more: list[tuple[str, dict[str, str], float]], name: str, level: str, found: str
) -> None:
    _, check = role_checks.checks(told(*more), log="the log")
    assert (check.name, check.level) == (name, level)
    assert found in check.found
    assert check.mend


def test_who_stands_by_has_no_lag() -> None:
    standby = told(
        ("sandreel_projection_leading", {"stream": "REEL-0"}, 0),
        ("sandreel_projection_look_age_seconds", {"stream": "REEL-0"}, 900),
    )
    assert len(role_checks.checks(standby, log="the log")) == 1


def test_reasons_are_lines_that_name_the_log() -> None:
    reasons = (
        Reason(part="nats", status="degraded", text="lost", for_s=3),
        Reason(part="start", status="failing", text="starting", for_s=7200),
    )
    first, second = role_checks.checks(told(status="failing", reasons=reasons), log="/logs/spawner.log")
    assert (first.name, first.level, first.found) == ("health of spawner, nats", "warn", "lost, for 3 s")
    assert (second.level, second.found, second.mend) == (
        "fail",
        "starting, for 2.0 h",
        "look at its log, /logs/spawner.log",
    )


def test_a_role_that_does_not_answer_fails_and_a_stranger_cannot_steer_the_terminal() -> None:
    [check] = role_checks.checks(Told(Place("spawner", "x:1", 7), None, "x:1 does not answer"), log="the log")
    assert (check.level, check.found) == ("fail", "x:1 does not answer")
    nasty = Reason(part="\x1b[2J", status="degraded", text="\x1b]0;owned\x07\nok", for_s=0)
    for each in role_checks.checks(told(status="degraded", reasons=(nasty,)), log="the log"):
        assert (each.name + each.found).isprintable()


def test_doctor_asks_only_for_what_is_served() -> None:
    names = {family.name for group in GROUPS.values() for family in group}
    asked = set(re.findall(r'"(sandreel_\w+)"', inspect.getsource(role_checks)))
    assert asked
    assert asked <= names
