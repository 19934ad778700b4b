"""Drains, and the hold that makes children wait: both end by themselves."""

from __future__ import annotations

import asyncio

import pytest

from sandreel_core.contract import exec as x
from sandreel_core.contract import workspace as w
from sandreel_core.contract.files import FetchFile, FileStored
from sandreel_core.contract.requests import Done
from sandreel_core.contract.runnerd import Drain, Drained, Health, Hold
from sandreel_core.errors import Refused
from sandreel_runnerd import feed as feed_module
from sandreel_runnerd import hold as hold_module
from tests.support.booted import Boot
from tests.support.site import web_site


async def test_a_drain_stops_commands_until_it_is_lifted(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", argv=["cat"], stdin="hold"))
    await boot.desk.until(lambda: boot.desk.events("e"))
    until = (await boot.desk.bus.state("CMD")).last_sequence
    drained = await boot.desk.request("drain", Drain(commands_until=until), Drained)
    assert drained.live_execs == ["e"]
    behind = [await boot.desk.send(w.PatchEnv(set={f"N{index}": "1"})) for index in range(3)]
    assert (await boot.desk.request("health", None, Health)).draining
    await asyncio.sleep(0.2)
    assert not any(boot.desk.outcomes(id) for id in behind)
    await boot.desk.request("lift", Drain(commands_until=0), Done)
    for id in behind:
        assert isinstance((await boot.desk.outcome(id)).data, w.EnvPatched)
        assert len(boot.desk.outcomes(id)) == 1


async def test_a_drain_takes_the_commands_before_it(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", argv=["cat"], stdin="hold"))
    until = (await boot.desk.bus.state("CMD")).last_sequence
    drained = await boot.desk.request("drain", Drain(commands_until=until + 5), Drained)
    assert drained.live_execs == ["e"]


async def test_a_drain_says_for_how_long_nobody_has_used_the_session(boot: Boot) -> None:
    async def idle_s() -> float:
        drained = await boot.desk.request("drain", Drain(commands_until=0), Drained)
        assert drained.idle_s is not None
        return drained.idle_s

    before = await idle_s()
    assert before > 0
    assert await idle_s() > before
    with web_site() as url:
        stuck = FetchFile(url=f"{url}/stuck", path="got", timeout_s=1)
        download = asyncio.ensure_future(boot.desk.request("fetch_file", stuck, FileStored))
        async with asyncio.timeout(20):
            while await idle_s():
                assert not download.done(), "a download is use from its start on"
        with pytest.raises(Refused, match="FETCH_TIMEOUT"):
            await download
        assert await idle_s() > 0


async def test_hold_makes_children_wait_and_the_end_still_comes(boot: Boot) -> None:
    await boot.desk.request("hold", Hold(hold=True), Done)
    assert (await boot.desk.request("health", None, Health)).held
    await boot.desk.send(x.Start(exec="quiet", argv=["true"]))
    assert (await boot.desk.ended("quiet")).exit_code == 0
    await boot.desk.until(lambda: boot.desk.beats[-1].held and boot.desk.beats[-1].sent_messages >= 2)
    assert boot.desk.beats[-1].spool_capacity_bytes == 1024 * 1024
    await boot.desk.send(x.Start(exec="loud", shell="head -c 3000000 /dev/zero | tr '\\0' x"))
    await boot.desk.until(lambda: "exec.started" in boot.desk.kinds("loud"))
    await asyncio.sleep(0.2)
    assert boot.desk.output("loud") == b""
    await boot.desk.request("hold", Hold(hold=False), Done)
    assert (await boot.desk.ended("loud")).bytes["stdout"] == 3_000_000
    assert boot.desk.output("loud") == b"x" * 3_000_000


async def test_a_drain_without_an_end_lapses(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "DRAIN_LAPSES_S", 0.3)
    await boot.desk.request("drain", Drain(commands_until=0), Drained)
    assert isinstance(await boot.desk.ask(w.PatchEnv(set={"A": "1"})), w.EnvPatched)


async def test_an_exec_is_orphaned_only_while_its_commands_are_read(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_QUIET_S", 0.05)
    until = (await boot.desk.bus.state("CMD")).last_sequence + 1
    await boot.desk.request("drain", Drain(commands_until=until), Drained)
    await boot.desk.send(x.Start(exec="e", argv=["sleep", "60"], orphan_timeout_s=0.05))
    await boot.desk.until(lambda: "exec.started" in boot.desk.kinds("e"))
    beats = len(boot.desk.beats)
    await boot.desk.until(lambda: len(boot.desk.beats) > beats + 10)
    assert boot.desk.beats[-1].live_execs == 1
    await boot.desk.request("lift", Drain(commands_until=0), Done)
    assert (await boot.desk.ended("e")).reason == "orphaned"


async def test_a_hold_lapses(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold_module, "LAPSES_S", 0.2)
    await boot.desk.request("hold", Hold(hold=True), Done)
    await boot.desk.send(x.Start(exec="e", argv=["echo", "hi"]))
    assert (await boot.desk.ended("e")).bytes == {"stdout": 3, "stderr": 0}
