"""How long sessions have to end when the stack does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from sandreel_core.cli import up
from sandreel_core.embedded import ending
from sandreel_core.embedded.part import Part, Status
from sandreel_core.embedded.stack import Stack


class Idle:
    """A part that does nothing."""

    pid = None

    async def start(self) -> None: ...

    async def wait(self) -> int:
        return 0

    async def stop(self) -> None: ...

    async def kill(self) -> None: ...


async def test_what_has_not_stopped_in_time_gets_no_second_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a bridge has booted again meanwhile is stopped as well, but the end stays within what was promised."""
    given: list[float] = []

    async def stop(settings: Path, *, within_s: float, report: Callable[[Status], None]) -> None:
        given.append(within_s)
        await asyncio.sleep(0.1)

    monkeypatch.setattr(ending, "stop_sessions", stop)
    stack = Stack(tmp_path, environ={})
    stack.parts["bridge"] = Part("bridge", Idle(), lambda status: None)
    await stack._end_sessions(45.0)
    await stack._end_sessions(0.05)
    assert given[0] == 45.0
    assert 40.0 < given[1] <= 44.9
    assert given[2:] == [0.05, 0.05], "one that was booted a moment ago is stopped too"
    assert stack.parts["bridge"].state == "held"


@pytest.mark.parametrize(("said", "expected"), [({}, 45.0), ({"SECONDS": "300"}, 300.0), ({"MISSPELT": "1"}, 45.0)])
def test_down_waits_as_long_as_sessions_may_take(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str], expected: float
) -> None:
    for name, value in said.items():
        key = "SANDREEL_STACK_STOP_SESSIONS_WITHIN_S" if name == "SECONDS" else f"SANDREEL_STACK_{name}"
        monkeypatch.setenv(key, value)
    assert up._sessions_within_s() == expected
