"""The lanes of execs: no command waits long behind another one, and every one has its outcome."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandreel_core.clock import new_id, now
from sandreel_core.contract import exec as c
from sandreel_core.contract.codec import seal
from sandreel_core.contract.message import Command, Envelope
from sandreel_core.errors import Denied, Over, Refused, TooLarge
from sandreel_core.log import Log
from sandreel_runnerd import execs as execs_module
from sandreel_runnerd import leftovers
from sandreel_runnerd.activity import Activity
from sandreel_runnerd.children import Children
from sandreel_runnerd.execs import MAX_WAITING, Execs
from sandreel_runnerd.host import Host
from sandreel_runnerd.running import RunningExec
from tests.support.children import BOOT
from tests.support.recorder import MemoryRecorder


class Recorder(MemoryRecorder):
    failed: Denied | None = None

    def fail(self, failure: Denied) -> None:
        self.failed = failure


class Answers:
    """What was said of commands that left no event of the exec."""

    def __init__(self) -> None:
        self.refused: dict[str, Refused] = {}
        self.settled: list[str] = []

    async def refuse(self, command_id: str, refusal: Refused, command: Envelope | None = None) -> None:
        assert command_id not in self.refused
        self.refused[command_id] = refusal

    async def settle(self, command: Envelope, message: str = "") -> None:
        self.settled.append(command.id)


class Lanes:
    """Execs over one recorder in memory: for one exec."""

    def __init__(self, group: asyncio.TaskGroup, workspace: Path) -> None:
        self.record = Recorder()
        self.answers = Answers()
        host = Host(workspace=str(workspace), boot_marker=BOOT, base_env=dict(os.environ), children=Children())
        self.execs = Execs(
            group,
            self,
            host,
            self.answers,  # type: ignore[arg-type]
            Activity(),
            boot_id="1-1",
            limit=4,
            log=Log("test"),
            attended=lambda: False,
        )

    def recorder(self, exec_id: str) -> Recorder:
        return self.record

    async def start(self, *argv: str, **more: object) -> int:
        """The pid, when it runs."""
        start = c.Start(exec="e", argv=list(argv), **more)  # type: ignore[arg-type]
        await self.execs.start(sealed(start), start, {})
        await self.record.until(lambda r: bool(r.of(c.Started)))
        return self.record.of(c.Started)[0].pid

    def route(self, command: c.ExecCommand) -> Envelope:
        envelope = sealed(command)
        self.execs.route(envelope, command)
        return envelope

    def outcomes(self, command: Envelope) -> int:
        events = [caused.id for caused in self.record.commands if caused is not None]
        return [*events, *self.answers.refused, *self.answers.settled].count(command.id)


def sealed(command: Command) -> Envelope:
    id = new_id()
    return seal(command, id=id, source="/test", subject=f"cmd.runnerd.acme.s1.{id}", time=now())


@asynccontextmanager
async def lanes(workspace: Path) -> AsyncIterator[Lanes]:
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        made = Lanes(group, workspace)
        try:
            yield made
        finally:
            made.record.open.set()
            await made.execs.stop(10)


async def gone(pid: int) -> None:
    while leftovers.is_alive(pid):
        await asyncio.sleep(0.01)


async def test_a_cancel_passes_commands_that_wait_for_the_log_and_is_never_one_too_many(tmp_path: Path) -> None:
    async with lanes(tmp_path) as here:
        pid = await here.start("sleep", "60")
        here.record.open.clear()
        commands = [here.route(c.Signal(exec="e", signal="SIGCONT")) for _ in range(MAX_WAITING)]
        with pytest.raises(Refused, match="EXEC_BUSY"):
            here.route(c.Signal(exec="e", signal="SIGCONT"))
        commands.append(here.route(c.Cancel(exec="e")))
        with pytest.raises(Refused, match="EXEC_BUSY"):
            here.route(c.Cancel(exec="e"))
        await gone(pid)
        assert not here.record.of(c.Signalled)
        here.record.open.set()
        await here.record.concluded.wait()
        while here.execs.live:
            await asyncio.sleep(0.01)
        await here.execs.stop(10)
        while not all(here.outcomes(command) for command in commands):
            await asyncio.sleep(0.01)
        assert [here.outcomes(command) for command in commands] == [1] * (MAX_WAITING + 1)


async def test_a_keepalive_takes_effect_when_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wound: list[str] = []
    keepalive = RunningExec.keepalive

    def spy(running: RunningExec) -> None:
        wound.append(running.start.exec)
        keepalive(running)

    monkeypatch.setattr(RunningExec, "keepalive", spy)
    async with lanes(tmp_path) as here:
        await here.start("sleep", "60", orphan_timeout_s=60)
        here.record.open.clear()
        here.route(c.Resize(exec="e", cols=1, rows=1))
        here.route(c.Signal(exec="e", signal="SIGCONT"))
        asked = here.route(c.Keepalive(exec="e"))
        assert wound == ["e"]
        while asked.id not in here.answers.settled:
            await asyncio.sleep(0.01)
        assert wound == ["e"]
        assert not here.record.of(c.Signalled)


async def test_commands_keep_their_order_while_nothing_is_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execs_module, "OVERTAKE_AFTER_S", 20)
    async with lanes(tmp_path) as here:
        await here.start("cat", stdin="hold")
        asked: list[Envelope] = []
        for _ in range(10):
            asked.append(here.route(c.Signal(exec="e", signal="SIGCONT")))
            asked.append(here.route(c.WriteStdin(exec="e", text="x")))
            asked.append(here.route(c.WriteStdin(exec="e", text="y")))
        asked.append(here.route(c.WriteStdin(exec="e", eof=True)))
        await here.record.concluded.wait()
        caused = [command.id for command in here.record.commands if command is not None]
        order = [envelope.id for envelope in asked]
        assert [id for id in caused if id in order] == order
        assert here.record.output() == b"xy" * 10


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (Denied("no permission to publish"), "RECORD_DENIED"),
        (TooLarge("1048577 bytes"), "INTERNAL"),
        (Over("this boot is over"), None),
    ],
)
async def test_a_start_that_cannot_be_recorded_has_an_outcome_and_does_not_run(
    tmp_path: Path, problem: Exception, code: str | None
) -> None:
    """Where the spawner says that the boot is over, it says itself what became of the start."""
    async with lanes(tmp_path) as here:

        async def accept(accepted: c.Accepted, *, command: Envelope) -> None:
            raise problem

        here.record.accept = accept  # type: ignore[method-assign]
        start = c.Start(exec="e", argv=["touch", "ran"])
        envelope = sealed(start)
        await here.execs.start(envelope, start, {})
        asked = here.route(c.Keepalive(exec="e"))
        while asked.id not in here.answers.refused:
            await asyncio.sleep(0.01)
        assert here.answers.refused[asked.id].code == "EXEC_NOT_FOUND"
        refusal = here.answers.refused.get(envelope.id)
        assert (refusal.code if refusal is not None else None) == code
        assert not here.execs.live
        assert not (tmp_path / "ran").exists()
