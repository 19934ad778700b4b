"""Boots that may not be, outages, and how runnerd leaves."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.bus.memory import MemoryBus, MemoryServer
from sandreel_core.contract import exec as x
from sandreel_core.contract.boot import BootSettings
from sandreel_core.contract.runnerd import Health
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Misconfigured, NotFound, Unavailable
from sandreel_core.log import Log
from sandreel_runnerd import daemon as daemon_module
from sandreel_runnerd.children import Children
from sandreel_runnerd.daemon import DECLARED_DEAD, ENDED, Daemon
from sandreel_runnerd.leftovers import is_alive
from tests.support.booted import Boot, booted
from tests.support.desk import Desk
from tests.support.mark import OURS


async def test_the_end_stops_execs_and_acknowledges_theirs_first(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", shell="while :; do echo line; sleep 0.01; done"))
    await boot.desk.until(lambda: boot.desk.output("e"))
    boot.daemon.end()
    async with asyncio.timeout(10):
        assert await boot.task == ENDED
    exited = await boot.desk.ended("e", within_s=1)
    assert (exited.reason, exited.signal) == ("stopped", "SIGTERM")
    assert boot.desk.output("e") == b"line\n" * exited.lines["stdout"]


async def test_a_boot_that_is_declared_dead_ends_its_execs_and_leaves(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", shell="echo $$; exec sleep 60"))
    pid = int(await boot.desk.until(lambda: boot.desk.output("e")))
    boot.desk.dead = True
    boot.bus.go_away()
    boot.bus.come_back()
    async with asyncio.timeout(10):
        assert await boot.task == DECLARED_DEAD
        # It has got SIGKILL; the kernel takes a moment to act on it.
        while is_alive(pid):
            await asyncio.sleep(0.01)


async def test_a_boot_that_may_not_be_leaves(tmp_path: Path) -> None:
    server = MemoryServer()
    desk = Desk(MemoryBus(server), SessionSubjects("acme", "s1"))
    desk.dead = True
    settings = BootSettings(
        nats_urls=["memory"], org="acme", session="s1", boot_id="1-1", token="t", installation=OURS,
        workspace=str(tmp_path), spool_bytes=1024 * 1024,
    )  # fmt: skip
    async with desk.open(), asyncio.timeout(10):
        assert await Daemon(settings, MemoryBus(server), Children(), Log("runnerd")).run() == DECLARED_DEAD


async def test_a_server_that_takes_less_than_a_block_of_output_is_refused(tmp_path: Path) -> None:
    """It would turn loud output into gaps."""
    settings = BootSettings(
        nats_urls=["memory"], org="acme", session="s1", boot_id="1-1", token="t", installation=OURS,
        workspace=str(tmp_path), spool_bytes=1024 * 1024,
    )  # fmt: skip
    bus = MemoryBus(max_payload=512 * 1024)
    with pytest.raises(Misconfigured, match=r"max_payload is 524288 bytes; .* need 1048576"):
        await Daemon(settings, bus, Children(), Log("runnerd")).run()


async def test_bootstrap_is_asked_until_it_is_answered_and_the_end_may_come_first(tmp_path: Path) -> None:
    settings = BootSettings(
        nats_urls=["memory"], org="acme", session="s1", boot_id="1-1", token="t", installation=OURS,
        workspace=str(tmp_path), spool_bytes=1024 * 1024,
    )  # fmt: skip
    daemon = Daemon(settings, MemoryBus(), Children(), Log("runnerd"))
    task = asyncio.ensure_future(daemon.run())
    await asyncio.sleep(0.1)
    daemon.end()
    async with asyncio.timeout(5):
        assert await task == ENDED


async def test_output_survives_an_outage(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", shell="for i in $(seq 400); do echo line $i; sleep 0.002; done"))
    await boot.desk.until(lambda: boot.desk.output("e"))
    boot.bus.go_away()
    await asyncio.sleep(0.2)
    boot.bus.come_back()
    await boot.desk.ended("e")
    assert boot.desk.output("e") == b"".join(b"line %d\n" % index for index in range(1, 401))


async def test_a_lost_bus_does_not_keep_runnerd_from_leaving(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_module, "STOP_WITHIN_S", 0.5)
    await boot.desk.send(x.Start(exec="e", argv=["sleep", "60"]))
    await boot.desk.until(lambda: "exec.started" in boot.desk.kinds("e"))
    boot.bus.go_away()
    boot.daemon.end()
    async with asyncio.timeout(6):
        assert await boot.task == ENDED
    # How it ended was not acknowledged: the spawner will say that it was lost.
    assert boot.desk.kinds("e")[-1] != "exec.exited"


async def test_a_connection_that_is_lost_right_after_the_bootstrap_ends_no_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, serve = iter(range(12)), MemoryBus.serve

    @asynccontextmanager
    async def lost(self: MemoryBus, subject: str, handler: Any, *, group: str = "") -> AsyncIterator[None]:
        if subject.startswith("req.runnerd") and next(failures, None) is not None:
            raise Unavailable("the connection to NATS is lost")
        async with serve(self, subject, handler, group=group):
            yield

    monkeypatch.setattr(MemoryBus, "serve", lost)
    async with booted(tmp_path / "workspace") as boot:
        await boot.desk.send(x.Start(exec="e", argv=["true"]))
        assert (await boot.desk.ended("e")).exit_code == 0
        async with asyncio.timeout(5):
            while True:
                try:
                    assert (await boot.desk.request("health", None, Health)).boot_id == "1-1"
                    return
                except NotFound:
                    await asyncio.sleep(0.02)


async def test_an_exec_of_another_boot_is_not_ours_to_end_and_the_rest_goes_on(boot: Boot) -> None:
    """Somebody closed it while the bus was away: its process ends, and nothing is recorded behind the end."""
    await boot.desk.send(x.Start(exec="a", shell="echo $$; exec sleep 60"))
    await boot.desk.send(x.Start(exec="b", argv=["cat"], stdin="hold"))
    pid = int(await boot.desk.until(lambda: boot.desk.output("a")))
    await boot.desk.until(lambda: boot.desk.events("b"))
    boot.bus.go_away()
    await boot.desk.close("a")
    os.kill(pid, signal.SIGUSR1)
    await asyncio.sleep(0.1)
    boot.bus.come_back()
    assert (await boot.desk.ask(x.WriteStdin(exec="b", text="on\n", eof=True))).bytes == 3
    assert (await boot.desk.ended("b")).exit_code == 0
    assert boot.desk.kinds("a")[-1] == "exec.lost"
    assert not boot.task.done()
