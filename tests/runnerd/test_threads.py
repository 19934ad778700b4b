"""runnerd where processes are short: it begins whole or says why not, and goes on when an exec has taken the rest."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sandreel_core.contract import exec as x
from sandreel_core.contract.files import FileList, ListFiles
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.errors import Unavailable
from sandreel_runnerd import threads
from tests.runnerd.test_main import started
from tests.support.cgroups import cgroup
from tests.support.nats import Connect

# Takes every process that there is, says so, and keeps taking those that become free; all in sessions of their own.
HOG = """
import os, time
if os.fork() == 0:
    os.setsid()
    while True:
        try:
            if os.fork() == 0:
                time.sleep(600)
        except OSError:
            time.sleep(0.01)
            print("full", flush=True)
            break
    while True:
        try:
            if os.fork() == 0:
                time.sleep(600)
        except OSError:
            time.sleep(0.005)
time.sleep(600)
"""


def inside(group: Path) -> list[str]:
    """Words that start what follows them in the cgroup."""
    return ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]


async def test_threads_that_are_not_to_be_had_are_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    start, left = threading.Thread.start, iter(range(3))

    def scarce(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="8 threads are not to be had"):
            await threads.start()


def test_a_boot_with_too_few_processes_says_so_in_one_line(tmp_path: Path) -> None:
    settings = (
        b'{"nats_urls":["nats://127.0.0.1:1"],"org":"o","session":"s","boot_id":"1-1","token":"t","installation":"i"}'
    )
    with cgroup("pids", 4) as group:
        if group is None:
            pytest.skip("no cgroup can be made here")
        done = subprocess.run(
            [*inside(group), sys.executable, "-m", "sandreel_runnerd", "--settings-stdin"],
            input=settings, capture_output=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 69
    assert b"Traceback" not in done.stderr
    assert (
        done.stderr.splitlines(keepends=True)[-1]
        == b"runnerd: 8 threads are not to be had: is a limit of processes met?\n"
    )


LAST = """
import asyncio, os, time
from sandreel_runnerd import threads
async def main():
    await threads.start()
    try:
        while os.fork():
            pass
    except OSError:
        return
    time.sleep(600)
with asyncio.Runner(loop_factory=threads.Loop) as runner:
    runner.run(main())
print("left", flush=True)
os._exit(0)
"""


def test_it_needs_no_thread_to_leave() -> None:
    with cgroup("pids", 20) as group:
        if group is None:
            pytest.skip("no cgroup can be made here")
        with subprocess.Popen([*inside(group), sys.executable, "-c", LAST], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"left\n"
            assert process.wait(30) == 0


async def test_an_exec_that_takes_every_process_does_not_take_its_recorders(
    nats_server: NatsServer, connect_bus: Connect, tmp_path: Path
) -> None:
    with cgroup("pids", 60) as group:
        if group is None:
            pytest.skip("no cgroup can be made here")
        async with started(nats_server, connect_bus, tmp_path, *inside(group)) as runnerd:
            desk = runnerd.desk
            await desk.send(x.Start(exec="hog", argv=[sys.executable, "-c", HOG]))
            await desk.until(lambda: desk.output("hog") == b"full\n")
            # Requests that need a thread, a start that needs a process, and the server's restart that needs a look-up.
            listed = await desk.request("list_files", ListFiles(), FileList)
            assert listed == FileList(entries=[])
            await desk.send(x.Start(exec="late", argv=["true"]))
            late = await desk.ended("late")
            assert (late.reason, late.exit_code) == ("spawn_failed", None)
            everybody = len((group / "cgroup.procs").read_text().split())
            nats_server.kill()
            await nats_server.wait()
            await nats_server.start()
            assert (await desk.ask(x.Cancel(exec="hog"))).signal == "SIGTERM"
            assert (await desk.ended("hog")).reason == "cancelled"
            # The place of its leader has been taken again.
            async with asyncio.timeout(20):
                while len((group / "cgroup.procs").read_text().split()) < everybody:
                    await asyncio.sleep(0.005)
            runnerd.process.terminate()
            assert await runnerd.left() == 0
            assert "Traceback" not in runnerd.log.read_text()
