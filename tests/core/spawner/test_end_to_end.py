"""The spawner as a process of its own, real JetStream, sessions as processes, the real runnerd; and SIGKILL."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sandreel_core.bus.streams import BRIDGE_COMMANDS, BROKER_COMMANDS, WORKS, ensure_installation
from sandreel_core.client import ClientSettings
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract.boot import BOOT_MARKER
from sandreel_core.contract.workspace import EnvPatched, PatchEnv
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.spawner import census
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.process import ProcessBackend
from sandreel_core.spawner.settings import Settings, installation_key
from tests.support.nats import Connect
from tests.support.spawner import ONE, Hand

CONFIG = """
[bus]
nats_urls = ["{url}"]
user = "role"
password = "{role}"

[spawner]
data = "{data}"
node = "here"
runnerd_nats_user = "runnerd"
runnerd_nats_password = "{runnerd}"
runnerd_heartbeat_s = 0.5
"""


@dataclass
class House:
    """One installation. `spawners` are processes, killed at the end with everything that they started."""

    hand: Hand
    data: Path
    config: Path
    spawners: list[asyncio.subprocess.Process] = field(default_factory=list)

    def set(self, **settings: object) -> None:
        """For spawners that start later."""
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        self.config.write_text(self.config.read_text() + "".join(lines))

    async def spawner(self) -> asyncio.subprocess.Process:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SANDREEL_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sandreel_core.spawner", env=environ | {"SANDREEL_CONFIG": str(self.config)}
        )
        self.spawners.append(process)
        return process

    async def kill_spawner(self) -> None:
        process = self.spawners.pop()
        process.kill()
        await process.wait()

    def workspace(self, key: Key = ONE) -> Path:
        return self.data / "sessions" / key.org / key.session / "workspace"

    def carriers(self, boot_id: str = "1-1", key: Key = ONE) -> list[int]:
        """Pids of what carries the boot's mark."""
        settings = Settings(data=str(self.data))
        marker = f"{settings.installation_name(installation_key(settings))}/{key.org}/{key.session}/{boot_id}"
        return [pid for pid, _ in census.carriers(BOOT_MARKER, marker)]

    async def ready(self, boot: int = 1, key: Key = ONE) -> s.Ready:
        return await self.hand.until(s.Ready, key, where=lambda event: event.boot_id.endswith(f"-{boot}"))

    async def shell(self, exec_id: str, text: str, key: Key = ONE) -> x.Exited:
        await self.hand.send(x.Start(exec=exec_id, shell=text), key)
        return await self.hand.until(x.Exited, key, aggregate="exec", id=exec_id)

    async def runnerd(self, key: Key = ONE) -> int:
        """Its pid on this machine, as `session.provisioned` says."""
        provisioned = [event.data for event in await self.hand.events(key) if isinstance(event.data, s.Provisioned)]
        return int(provisioned[-1].ref.removeprefix("pid:"))


@pytest.fixture
async def house(nats_server: NatsServer, connect_bus: Connect) -> AsyncGenerator[House, None]:
    data = Path(tempfile.mkdtemp(prefix="sandreel-"))
    data.chmod(0o755)
    config = data / "sandreel.toml"
    config.write_text(
        CONFIG.format(
            url=nats_server.url, role=nats_server.password("role"), runnerd=nats_server.password("runnerd"), data=data
        )
    )
    bus = await connect_bus()
    await ensure_installation(bus)
    house = House(Hand(bus, timeout_s=30), data, config)
    try:
        await house.spawner()
        yield house
    finally:
        while house.spawners:
            await house.kill_spawner()
        async with ProcessBackend.open(data, node="here") as backend:
            for sandbox in await backend.list():
                await backend.stop(sandbox.key, sandbox.boot_id, grace_s=0)
        for log in data.glob("sessions/*/*/runnerd.log"):
            sys.stdout.write(f"{log.parent.name}: {log.read_text()}")
        shutil.rmtree(data)


async def test_create_run_stop_resume_destroy(house: House) -> None:
    hand = house.hand
    await hand.create(env={"COLOUR": "red"})
    await house.ready()
    assert (await house.shell("one", 'test "$COLOUR" = red && echo kept > file')).exit_code == 0
    patch = await hand.send(PatchEnv(set={"COLOUR": "blue"}))
    await hand.until(EnvPatched, aggregate="workspace", cause=patch)
    await hand.send(s.Stop())
    assert (await hand.until(s.Stopped)).reason == "asked"
    assert (house.workspace() / "file").read_text() == "kept\n"
    refused = await hand.send(x.Start(exec="two", argv=["true"]))
    assert await hand.refusal(refused) == "SESSION_NOT_READY"
    await hand.send(s.Resume())
    await house.ready(2)
    assert (await house.shell("three", 'test "$COLOUR" = blue && test -s file')).exit_code == 0
    await hand.send(s.Destroy())
    await hand.until(s.Destroyed)
    assert not house.workspace().parent.exists()
    refused = await hand.send(x.Start(exec="four", argv=["true"]))
    assert await hand.refusal(refused) == "SESSION_NOT_FOUND"


async def test_stopping_ends_execs_first(house: House) -> None:
    await house.hand.create()
    await house.ready()
    await house.hand.send(x.Start(exec="long", argv=["sleep", "600"]))
    await house.hand.until(x.Started, aggregate="exec", id="long")
    await house.hand.send(s.Stop())
    exited = await house.hand.until(x.Exited, aggregate="exec", id="long")
    assert (exited.reason, exited.signal) == ("stopped", "SIGTERM")
    await house.hand.until(s.Stopped)


async def test_a_killed_runnerd_is_stopped_its_execs_are_lost_and_nothing_survives(house: House) -> None:
    hand = house.hand
    await hand.create()
    await house.ready()
    await hand.send(x.Start(exec="long", shell="seq 1000; setsid sleep 600 & sleep 600"))
    await hand.until(x.Output, aggregate="exec", id="long")
    assert len(house.carriers()) >= 3, "runnerd and both sleeps"
    begun = asyncio.get_running_loop().time()
    os.kill(await house.runnerd(), signal.SIGKILL)
    assert (await hand.until(s.Stopped)).reason == "killed"
    assert asyncio.get_running_loop().time() - begun < 10
    lost = await hand.until(x.Lost, aggregate="exec", id="long")
    ordinals = [event.n for event in await hand.events(aggregate="exec", id="long")]
    assert ordinals == list(range(1, lost.last_n + 2))
    assert (lost.boot_id, lost.cause) == ("1-1", "runnerd_died")
    assert house.carriers() == []
    await hand.send(s.Resume())
    await house.ready(2)
    assert (await house.shell("after", "true")).exit_code == 0


async def test_an_exec_outlives_its_spawner_and_the_next_one_adopts_it(house: House) -> None:
    hand = house.hand
    await hand.create()
    await house.ready()
    await hand.send(x.Start(exec="long", shell="read line; echo got $line", stdin="hold"))
    await hand.until(x.Started, aggregate="exec", id="long")
    runnerd = await house.runnerd()
    await house.kill_spawner()
    await hand.send(x.WriteStdin(exec="long", text="it\n"))
    assert (await hand.until(x.Exited, aggregate="exec", id="long")).exit_code == 0
    late = await hand.send(s.Stop())
    await house.spawner()
    await hand.until(s.Stopping, cause=late)
    await hand.until(s.Stopped)
    assert census.start_time(runnerd) is None
    assert await hand.types() == ["requested", "provisioned", "ready", "stopping", "stopped"]


async def test_a_runnerd_that_dies_while_there_is_no_spawner_is_found_dead(house: House) -> None:
    hand = house.hand
    await hand.create()
    await house.ready()
    await hand.send(x.Start(exec="long", argv=["sleep", "600"]))
    await hand.until(x.Started, aggregate="exec", id="long")
    await house.kill_spawner()
    os.kill(await house.runnerd(), signal.SIGKILL)
    unread = await hand.send(x.Start(exec="never", argv=["true"]))
    await house.spawner()
    await hand.until(s.Stopped)
    await hand.until(x.Lost, aggregate="exec", id="long")
    await hand.until(x.Lost, aggregate="exec", id="never", cause=unread)


async def test_of_concurrent_creates_of_one_id_one_wins_with_two_spawners(house: House) -> None:
    hand = house.hand
    await house.spawner()
    ids = {await hand.create() for _ in range(6)}
    await house.ready()
    outcomes: list[str] = []
    async with asyncio.timeout(20):
        while len(outcomes) < 6:
            outcomes = [event.type for event in await hand.events() if event.causationid in ids]
    assert sorted(outcomes) == ["command.refused"] * 5 + ["session.requested"]
    assert len(house.carriers()) <= 2, "runnerd, and its box"
    assert (await house.shell("one", "true")).exit_code == 0


@pytest.mark.parametrize("reason", ["idle", "ttl"])
async def test_the_idle_and_the_expired_are_stopped_with_their_files_and_the_busy_are_spared(
    house: House, reason: str
) -> None:
    await house.kill_spawner()
    house.set(sweep_s=0.2, **({"max_idle_s": 1} if reason == "idle" else {}))
    await house.spawner()
    hand, busy = house.hand, Key("acme", "busy")
    await hand.create(busy)
    # Until something runs in it, however long that takes here.
    await hand.until(s.Pinned, busy, cause=await hand.send(s.Pin(), busy))
    await hand.create(ttl_s=1 if reason == "ttl" else None)
    await house.ready(key=busy)
    await hand.send(x.Start(exec="long", shell="read line", stdin="hold"), busy)
    await hand.until(x.Started, busy, aggregate="exec", id="long")
    await hand.until(s.Unpinned, busy, cause=await hand.send(s.Unpin(), busy))
    if reason == "ttl":
        await hand.until(s.Extended, busy, cause=await hand.send(s.Extend(ttl_s=0.1), busy))
    await house.ready()
    assert (await hand.until(s.Stopped)).reason == reason
    assert house.workspace().is_dir()
    await asyncio.sleep(1)
    assert "stopping" not in await hand.types(busy)
    await hand.send(x.WriteStdin(exec="long", eof=True), busy)
    assert (await hand.until(s.Stopped, busy)).reason == reason
    assert (await hand.until(x.Exited, busy, aggregate="exec", id="long")).reason == "exited"


async def test_the_spawner_outlives_its_server(house: House, nats_server: NatsServer) -> None:
    hand = house.hand
    await hand.create()
    await house.ready()
    nats_server.kill()
    await nats_server.restart()
    assert (await house.shell("one", "true")).exit_code == 0
    other = Key("acme", "two")
    await hand.create(other)
    await house.ready(key=other)
    os.kill(await house.runnerd(), signal.SIGKILL)
    assert (await hand.until(s.Stopped)).reason == "killed"
    assert await hand.refusal(await hand.send(x.Start(exec="two", argv=["true"]))) == "SESSION_NOT_READY"


def test_what_two_killed_roles_had_taken_is_answered_before_who_asked_gives_up() -> None:
    works = (*WORKS, BROKER_COMMANDS, BRIDGE_COMMANDS)
    assert all(2 * work.ack_wait_s < ClientSettings().answer_timeout_s for work in works)
