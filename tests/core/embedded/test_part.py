"""A part is a process that is started, awaited ready, found dead and started again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.embedded import pidfile
from sandreel_core.embedded.part import Part, Status
from sandreel_core.embedded.process import Process, cut, tail
from sandreel_core.errors import Misconfigured, Unavailable

READY = """
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b"READY=1", "\\0" + os.environ["NOTIFY_SOCKET"][1:])
print("serving", flush=True)
time.sleep(600)
"""


def process(tmp_path: Path, script: str = READY, **options: Any) -> Process:
    return Process(
        "example",
        (sys.executable, "-c", script),
        env={"PATH": os.environ["PATH"]},
        directory=tmp_path,
        log=tmp_path / "example.log",
        pid=tmp_path / "example.pid",
        **options,
    )


@asynccontextmanager
async def kept(part: Part) -> AsyncGenerator[None, None]:
    await part.start()
    keeper = asyncio.create_task(part.keep())
    try:
        yield
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
        await part.stop()


async def test_it_is_ready_when_it_says_so_and_gone_after_stop(tmp_path: Path) -> None:
    one = process(tmp_path)
    await one.start()
    pid = one.pid
    assert pid is not None
    assert pidfile.alive(tmp_path / "example.pid") == pid
    assert os.getsid(pid) == pid  # a Ctrl-C on our terminal is not for it
    await one.stop()
    assert one.pid is None
    assert not (tmp_path / "example.pid").exists()
    assert not Path(f"/proc/{pid}").exists()


async def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY
    one = process(tmp_path, script, grace_s=0.2)
    await one.start()
    await one.stop()
    assert await one.wait() == -signal.SIGKILL


async def test_an_operators_mistake_is_the_processes_own_line(tmp_path: Path) -> None:
    one = process(tmp_path, "import sys; print('sandreel x: [bus] is wrong', file=sys.stderr); sys.exit(2)")
    with pytest.raises(Misconfigured, match=r"sandreel x: \[bus\] is wrong"):
        await one.start()


async def test_one_that_dies_early_or_is_not_ready_in_time_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="ended with 3"):
        await process(tmp_path, "raise SystemExit(3)").start()
    slow = process(tmp_path, "import time; time.sleep(600)", ready_timeout_s=0.3)
    with pytest.raises(Unavailable, match="not ready after"):
        await slow.start()
    assert slow.pid is None


async def test_one_that_was_left_over_is_ended_first(tmp_path: Path) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        pidfile.write(tmp_path / "example.pid", left.pid)
        one = process(tmp_path)
        await one.start()
        assert await asyncio.to_thread(left.wait, 5) == -signal.SIGTERM
        await one.stop()
    finally:
        left.kill()
        left.wait()


async def test_a_stranger_with_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (tmp_path / "example.pid").write_text(f"{stranger.pid} 1\n")
        assert await pidfile.end(tmp_path / "example.pid", grace_s=1) is None
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_killed_part_is_started_again(tmp_path: Path) -> None:
    heard: list[Status] = []
    part = Part("example", process(tmp_path), heard.append)
    async with kept(part):
        for round in range(1, 3):
            before = part.pid
            await part.kill()
            await part.ready(after=round, timeout_s=10)
            assert part.pid != before
    states = [status.state for status in heard]
    assert states == ["starting", "ready"] + ["died", "starting", "ready"] * 2 + ["stopped"]
    assert "killed by signal 9" in [status.detail for status in heard]


async def test_a_held_part_stays_down_until_it_is_released(tmp_path: Path) -> None:
    part = Part("example", process(tmp_path), lambda status: None)
    async with kept(part):
        await part.hold()
        assert (part.state, part.pid) == ("held", None)
        with pytest.raises(TimeoutError):
            await part.ready(after=1, timeout_s=0.5)
        part.release()
        await part.ready(after=1, timeout_s=10)


async def test_a_part_that_cannot_start_is_tried_again_with_growing_pauses(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    script = f"import os, sys\nif os.path.exists({str(broken)!r}): sys.exit(1)\n" + READY
    deaths = asyncio.Event()
    count = 0

    def hear(status: Status) -> None:
        nonlocal count
        count += status.state == "died"
        if count == 3:
            deaths.set()

    part = Part("example", process(tmp_path, script), hear)
    async with kept(part):
        broken.touch()
        await part.kill()
        async with asyncio.timeout(20):
            await deaths.wait()
        broken.unlink()
        await part.ready(after=1, timeout_s=20)


async def test_a_full_disk_makes_a_part_wait_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    left: list[int] = []

    def no_pid_file(path: Path, pid: int) -> None:
        left.append(pid)
        full()

    deaths = asyncio.Queue[str]()
    part = Part("example", process(tmp_path), lambda status: deaths.put_nowait(status.state))
    async with kept(part), asyncio.timeout(20):
        for attribute, failing in (("cut", full), ("pidfile.write", no_pid_file)):
            with monkeypatch.context() as patched:
                patched.setattr(f"sandreel_core.embedded.process.{attribute}", failing)
                before = part.starts
                await part.kill()
                for _ in range(2):  # the kill, and a start that failed
                    while await deaths.get() != "died":
                        pass
            await part.ready(after=before, timeout_s=20)
    assert left
    assert all(pidfile.started(pid) is None for pid in left)


async def test_a_part_that_the_machine_cannot_start_is_unavailable(tmp_path: Path) -> None:
    part = Part("example", process(tmp_path / "absent"), lambda status: None)
    with pytest.raises(Unavailable, match=r"example cannot be started: .*No such file"):
        await part.start()
    assert part.state == "died"


def test_on_a_full_disk_a_log_is_cut_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device")

    log = tmp_path / "x.log"
    log.write_bytes(b"old\n" * 1000)
    monkeypatch.setattr(shutil, "copyfile", full)
    cut(log, max_bytes=100)
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("x.log", 0)]


def test_a_log_is_cut_and_its_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with log.open("ab") as writer:
        writer.write(b"old\n" * 1000)
        writer.flush()
        cut(log, max_bytes=100)
        writer.write(b"first\nlast\n")
    assert log.read_bytes() == b"first\nlast\n"
    assert (tmp_path / "x.log.1").stat().st_size == 4000
    assert tail(log) == "last"
    assert tail(log, offset=11) == ""
    assert tail(tmp_path / "absent") == ""
