"""Out of memory, in a real cgroup: the kernel ends the exec and not its recorder, and the record says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandreel_runnerd import process
from tests.support import children
from tests.support.cgroups import cgroup

LIMIT_BYTES = 128 * 1024 * 1024
# As runnerd does, from inside the cgroup: one exec that takes all memory, then one that only ends with 137, then a quiet one.
EXECS = """
import asyncio, sys
from pathlib import Path
from tests.support.children import python, ran

async def main():
    for code in ("b'x' * 300_000_000", "raise SystemExit(137)", "pass"):
        exited, _ = await ran(Path(sys.argv[1]), argv=python(code))
        print(exited.signal, exited.exit_code, exited.oom)

asyncio.run(main())
"""


def test_an_exec_that_is_out_of_memory_says_so_and_only_that_one(tmp_path: Path) -> None:
    with cgroup("memory", LIMIT_BYTES) as group:
        if group is None:
            pytest.skip("no cgroup can be made here")
        done = subprocess.run(
            [
                "sh",
                "-c",
                f'echo $$ > {group}/cgroup.procs; exec "$@"',
                "sh",
                sys.executable,
                "-c",
                EXECS,
                str(tmp_path),
            ],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stdout.splitlines() == ["SIGKILL None True", "None 137 False", "None 0 False"], done.stderr


async def test_the_count_of_before_is_taken_before_the_exec_can_add_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 0
    spawn = process.spawn

    def spawn_and_kill(recipe: process.Recipe, ends: process.Ends) -> process.Spawned:
        nonlocal kills
        spawned = spawn(recipe, ends)
        kills += 1  # it was the one, before this process got another turn
        return spawned

    monkeypatch.setattr(process, "spawn", spawn_and_kill)
    for module in ("running", "group"):
        monkeypatch.setattr(f"sandreel_runnerd.{module}.oom_kills", lambda: kills)

    exited, _ = await children.ran(tmp_path, argv=children.python("raise SystemExit(137)"))

    assert exited.oom
