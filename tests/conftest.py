"""Fixtures of the whole suite (real servers, from their wheels), and the rule about skipping."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

pytest_plugins = [
    "tests.support.fenced",
    "tests.support.nats",
    "tests.support.order",
    "tests.support.postgres",
    "tests.support.shell",
    "tests.support.town",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips", action="store_true", help="a skipped test fails: for machines that have everything (CI)"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        reason: Any = report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {reason[2] if isinstance(reason, tuple) else reason}"
    return report
