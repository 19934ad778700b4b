"""The exit code of the command line for every end of a job."""

from __future__ import annotations

import argparse
import signal
from datetime import UTC, datetime

import pytest

from sandreel_core.cli.duration import instant, seconds, size, variable
from sandreel_core.cli.ending import LOST, NOT_STARTED, exit_code, remark
from sandreel_core.contract import exec as x


def exited(code: int | None, name: str | None = None, reason: x.ExitReason = "exited") -> x.Exited:
    return x.Exited(exit_code=code, signal=name, reason=reason, duration_ms=1)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (exited(0), 0),
        (exited(7), 7),
        (exited(None, "SIGKILL"), 128 + signal.SIGKILL),
        (exited(None, "SIGINT"), 130),
        (exited(None, "SIGTERM", "cancelled"), 143),
        (exited(None, "SIGWHATEVER"), 143),
        (exited(None, None, "spawn_failed"), NOT_STARTED),
        (x.Lost(last_n=1, cause="oom"), LOST),
    ],
)
def test_every_end_has_an_exit_code(end: x.Exited | x.Lost, code: int) -> None:
    assert exit_code(end) == code


def test_a_job_that_ended_by_itself_is_not_commented_on() -> None:
    assert remark(exited(1)) is None
    assert remark(exited(None, "SIGSEGV")) is None


@pytest.mark.parametrize("reason", ["cancelled", "stopped", "deadline", "no_output", "orphaned", "spawn_failed"])
def test_every_other_end_is_explained(reason: x.ExitReason) -> None:
    assert remark(exited(None, None, reason))


def test_durations() -> None:
    assert [seconds(text) for text in ("90", "90s", "5m", "1h30m", "2d", "0.5")] == [90, 90, 300, 5400, 172_800, 0.5]


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "1w", "s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        seconds(text)


def test_sizes_variables_and_instants() -> None:
    assert [size(text) for text in ("1", "64k", "2M", "1GiB")] == [1, 65536, 2 << 20, 1 << 30]
    assert variable("A=b=c") == ("A", "b=c")
    assert instant("2026-01-31T12:00:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert instant("120") is None
    with pytest.raises(argparse.ArgumentTypeError):
        variable("A")
    with pytest.raises(argparse.ArgumentTypeError):
        size("0")
