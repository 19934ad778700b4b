"""A fork bomb ends with its exec, within 10 s, and nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandreel_runnerd import leftovers
from sandreel_runnerd.children import all_pids
from tests.support.cgroups import cgroup
from tests.support.children import BOOT, bash, running

MAX_PIDS = 150


@pytest.fixture
def pids_cgroup() -> Iterator[Path | None]:
    """A cgroup with a limit of processes, made where this may be done."""
    with cgroup("pids", MAX_PIDS) as group:
        yield group


@pytest.mark.parametrize(
    "bomb",
    [
        "f() { f | f & wait; }; f",
        'f() { setsid bash -c "$b" & f | f; }; export b="$(declare -f f); f"; trap \'\' TERM; f',
    ],
)
async def test_a_fork_bomb_ends_with_its_exec(tmp_path: Path, pids_cgroup: Path | None, bomb: str) -> None:
    if pids_cgroup is not None:
        fence = f"echo $$ > {pids_cgroup}/cgroup.procs"
    elif os.getuid() != 0:
        fence = f"ulimit -u {len([p for p in all_pids() if owner(p) == os.getuid()]) + MAX_PIDS}"
    else:
        tmp_path.chmod(0o777)
        uid = pwd.getpwnam("nobody").pw_uid - 1
        fence = f'exec setpriv --reuid {uid} --clear-groups bash -c "ulimit -u {MAX_PIDS}; $BOMB"'
    async with running(
        tmp_path, exec="bomb", argv=bash(f"{fence}; echo lit; {bomb}"), env={"BOMB": bomb}, leftovers="kill"
    ) as run:
        pid = (await run.until_started()).pid
        await run.until_output(b"lit")
        await asyncio.wait([run.task], timeout=1.0)
        at = time.monotonic()
        await run.running.cancel()
        exited = await run.end(12)
        assert time.monotonic() - at < 10
    assert exited.reason == "cancelled"
    assert leftovers.find(leftovers.Marks(boot=BOOT, exec="bomb", leader=pid)) == []
    if pids_cgroup is not None:
        assert [p for p in (pids_cgroup / "cgroup.procs").read_text().split() if leftovers.is_alive(int(p))] == []


def owner(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
