"""Patches of the environment, and what waits for the log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sandreel_core.contract import exec as x
from sandreel_core.contract import workspace as w
from sandreel_core.contract.session import CommandSettled
from sandreel_core.errors import Full
from sandreel_runnerd import commands as commands_module
from sandreel_runnerd import daemon as daemon_module
from sandreel_runnerd.daemon import ENDED
from tests.support.booted import Boot, booted


async def test_patched_variables_reach_execs_that_start_later(tmp_path: Path) -> None:
    async with booted(tmp_path / "w", env={"SEED": "kept", "PATH": "/evil"}) as boot:
        patched = await boot.desk.ask(w.PatchEnv(set={"A": "1", "http_proxy": "x"}, unset=["HOME"]))
        assert patched == w.EnvPatched(set={"A": "1"}, denied=["HOME", "http_proxy"])
        await boot.desk.send(x.Start(exec="e", shell='echo "$SEED $A $B $SANDREEL_TOKEN"', env={"B": "2"}))
        await boot.desk.ended("e")
        assert boot.desk.output("e") == b"kept 1 2 \n"
        stored, _ = next(pair for pair in boot.desk.stored if pair[1].data == patched)
        stale = await boot.desk.ask(w.PatchEnv(set={"A": "2"}), expectedrevision=f"e1:0:{stored.sequence + 7}")
        assert stale.code == "CONFLICT"
        foreign = await boot.desk.ask(w.PatchEnv(set={"A": "2"}), expectedrevision=f"other:0:{stored.sequence}")
        assert foreign.code == "BAD_REQUEST"
        right = await boot.desk.ask(w.PatchEnv(set={"A": "3"}), expectedrevision=f"e1:0:{stored.sequence}")
        assert right == w.EnvPatched(set={"A": "3"})
        await boot.desk.send(x.Start(exec="f", shell="echo $A"))
        await boot.desk.ended("f")
        assert boot.desk.output("f") == b"3\n"


async def test_a_patch_that_waits_for_the_log_makes_only_those_wait_that_need_it(boot: Boot) -> None:
    """The stream takes no event of the workspace: what is asked of execs goes on, and order is kept."""
    full = True
    await boot.desk.send(x.Start(exec="e", argv=["cat"], stdin="hold"))
    await boot.desk.until(lambda: "exec.started" in boot.desk.kinds("e"))
    workspace = boot.desk.subjects.event("workspace")
    boot.bus.fate = lambda subject, body: Full("no space", 0.01) if full and subject == workspace else None
    first = await boot.desk.send(w.PatchEnv(set={"A": "1"}), expectedrevision="e1:0:0")
    await boot.desk.send(x.Start(exec="between", shell="echo $A"))
    second = await boot.desk.send(w.PatchEnv(set={"A": "2"}))
    await boot.desk.send(x.Start(exec="behind", shell="echo $A"))
    conflict = await boot.desk.send(w.PatchEnv(set={"A": "3"}), expectedrevision="e1:0:0")
    assert isinstance(await boot.desk.ask(x.Keepalive(exec="e")), CommandSettled)
    assert (await boot.desk.ask(x.Cancel(exec="e"))).signal == "SIGTERM"
    await boot.desk.ended("e")
    assert not boot.desk.outcomes(first)
    assert not boot.desk.events("between")
    full = False
    assert [(await boot.desk.ended(exec_id)).exit_code for exec_id in ("between", "behind")] == [0, 0]
    assert [boot.desk.output(exec_id) for exec_id in ("between", "behind")] == [b"1\n", b"2\n"]
    assert (await boot.desk.outcome(first)).data == w.EnvPatched(set={"A": "1"})
    assert (await boot.desk.outcome(second)).data == w.EnvPatched(set={"A": "2"})
    assert (await boot.desk.outcome(conflict)).data.code == "CONFLICT"


async def test_a_patch_that_waits_for_the_log_does_not_keep_runnerd_from_leaving(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "STOP_WITHIN_S", 0.2)
    monkeypatch.setattr(daemon_module, "FLUSH_WITHIN_S", 0.2)
    workspace = boot.desk.subjects.event("workspace")
    boot.bus.fate = lambda subject, body: Full("no space", 0.01) if subject == workspace else None
    await boot.desk.send(w.PatchEnv(set={"A": "1"}), expectedrevision="e1:0:0")
    await boot.desk.send(x.Start(exec="e", argv=["true"]))
    await boot.desk.until(lambda: boot.desk.beats[-1].live_execs == 1)
    boot.daemon.end()
    async with asyncio.timeout(10):
        assert await boot.task == ENDED


async def test_patches_that_wait_for_the_log_are_bounded(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_module, "MAX_PATCHES_WAITING", 2)
    full = True
    workspace = boot.desk.subjects.event("workspace")
    boot.bus.fate = lambda subject, body: Full("no space", 0.01) if full and subject == workspace else None
    waiting = [await boot.desk.send(w.PatchEnv(set={"A": "1"}), expectedrevision="e1:0:0")]
    waiting.append(await boot.desk.send(w.PatchEnv(set={"B": "1"})))
    assert (await boot.desk.ask(w.PatchEnv(set={"C": "1"}))).code == "ENV_BUSY"
    full = False
    for id in waiting:
        assert isinstance((await boot.desk.outcome(id)).data, w.EnvPatched)
