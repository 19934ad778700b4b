"""What is refused before anything is recorded, in the order of behaviour §1; children and their reaping."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.contract import exec as c
from sandreel_core.errors import Refused
from sandreel_runnerd.children import Children
from sandreel_runnerd.memory import oom_kills
from sandreel_runnerd.process import has_own_cpus, plan, working_directory
from sandreel_runnerd.rate import Rate
from tests.support.children import ran


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    (root / "repo" / "src").mkdir(parents=True)
    (root / "file").write_text("")
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to("repo/src")
    (root / "loop").symlink_to("loop")
    (tmp_path / "workspace2").mkdir()
    return root


@pytest.mark.parametrize(
    "cwd", ["..", "/", "/etc", "out", "repo/../../x", "out/workspace2", "../workspace2", "none", "file", "loop", "a\0b"]
)
def test_a_working_directory_outside_missing_or_no_directory_is_refused(workspace: Path, cwd: str) -> None:
    with pytest.raises(Refused, match="INVALID_CWD"):
        working_directory(str(workspace), cwd)


@pytest.mark.parametrize(
    ("cwd", "real"),
    [(None, "."), (".", "."), ("repo", "repo"), ("in", "repo/src"), ("repo/../repo", "repo"), ("out/workspace", ".")],
)
def test_a_working_directory_inside_is_its_real_path(workspace: Path, cwd: str | None, real: str) -> None:
    assert working_directory(str(workspace), cwd) == str(workspace / real)
    assert working_directory(str(workspace), str(workspace / (cwd or "."))) == str(workspace / real)


@pytest.mark.parametrize(
    ("start", "code"),
    [
        ({}, "BAD_REQUEST"),
        ({"argv": ["a"], "shell": "b"}, "BAD_REQUEST"),
        ({"argv": [""]}, "BAD_REQUEST"),
        ({"argv": ["a\0"]}, "BAD_REQUEST"),
        ({"shell": "a\0"}, "BAD_REQUEST"),
        ({"cwd": "/etc"}, "BAD_REQUEST"),
        ({"argv": ["a"], "cwd": "/etc"}, "INVALID_CWD"),
        ({"argv": ["a"], "stdin_text": "x", "stdin_base64": "eA=="}, "BAD_REQUEST"),
        ({"argv": ["a"], "secret_env": {"path": c.SecretRef(role="broker", lease="l")}}, "BAD_REQUEST"),
        ({"argv": ["a"], "secret_env": {"A=B": c.SecretRef(role="broker", lease="l")}}, "BAD_REQUEST"),
        ({"argv": ["a"], "env": {"A": "1"}, "secret_env": {"A": c.SecretRef(role="broker", lease="l")}}, "BAD_REQUEST"),
    ],
)
def test_what_is_refused(workspace: Path, start: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refusal:
        plan(c.Start(exec="e", **start), workspace=str(workspace), env={})
    assert refusal.value.code == code


def started(*argv: str) -> int:
    return os.posix_spawnp(argv[0], argv, os.environ, setsid=True)


async def test_a_child_stays_a_zombie_until_it_is_collected() -> None:
    children = Children()
    child = children.start(lambda: started("sh", "-c", "exit 9"))
    assert children.owns(child.pid)
    await child.wait()
    assert os.getpgid(child.pid) == child.pid
    assert (await child.collect()).exit_code == 9
    assert (await child.collect()).exit_code == 9
    assert not children.owns(child.pid)


@pytest.mark.parametrize("problem", [errno.ENOSYS, errno.EMFILE, errno.ENOMEM, errno.EIO])
async def test_without_pidfd_the_exit_is_heard_of_all_the_same(problem: int) -> None:
    def missing(_: int) -> int:
        raise OSError(problem, os.strerror(problem))

    child = Children(missing).start(lambda: started("sh", "-c", "kill -9 $$"))
    await child.wait()
    assert (await child.collect()).signal == "SIGKILL"


async def test_a_status_that_somebody_else_took_is_not_made_up() -> None:
    child = Children().start(lambda: started("true"))
    await child.wait()
    os.waitpid(child.pid, 0)
    ending = await child.collect()
    assert (ending.exit_code, ending.signal) == (None, None)


TRACER = """
import ctypes, sys
print(ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), None, None), flush=True)  # PTRACE_SEIZE
sys.stdin.read()
"""


async def test_a_zombie_that_somebody_traces_is_waited_for_without_blocking() -> None:
    children = Children()
    child = children.start(lambda: started("sleep", "60"))
    with subprocess.Popen(
        [sys.executable, "-c", TRACER, str(child.pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stdout is not None
        seized = tracer.stdout.readline() == "0\n"
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
        collecting = asyncio.ensure_future(child.collect())
        if seized:
            done, _ = await asyncio.wait({collecting}, timeout=0.1)
            assert not done
            assert children.owns(child.pid)
        tracer.communicate()
    assert (await collecting).signal == "SIGKILL"
    assert not children.owns(child.pid)
    if not seized:
        pytest.skip("nobody may trace here")


def test_strangers_are_reaped_and_own_children_are_not() -> None:
    code = """
import asyncio, ctypes, os, subprocess
from sandreel_runnerd.children import Children, child_pids
async def main():
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    children = Children()
    own = children.start(lambda: os.posix_spawnp("sh", ["sh", "-c", "exit 4"], os.environ))
    await own.wait()
    maker = subprocess.Popen(["sh", "-c", "for i in $(seq 200); do (sleep 0.01 &) ; done; sleep 0.3"])
    reaped, want = 0, 201
    while reaped < want:
        await asyncio.sleep(0.02)
        reaped += children.reap()
    maker.returncode = 0
    assert child_pids() == [own.pid], child_pids()
    assert (await own.collect()).exit_code == 4
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=30, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_oom_counter_of_both_cgroup_versions(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    (tmp_path / "v2" / "a").mkdir(parents=True)
    (tmp_path / "v2" / "a" / "memory.events").write_text("oom 5\noom_kill 3\n")
    proc.write_text("0::/a\n")
    assert oom_kills(proc, tmp_path / "v2") == 3
    (tmp_path / "v1" / "memory").mkdir(parents=True)
    (tmp_path / "v1" / "memory" / "memory.oom_control").write_text("under_oom 0\noom_kill 2\n")
    proc.write_text("3:cpu:/x\n4:memory:/hidden\n0::/\n")
    assert oom_kills(proc, tmp_path / "v1") == 2
    assert oom_kills(tmp_path / "none") is None


def test_a_rate_is_kept_over_any_pattern() -> None:
    rate, now, sent = Rate(1000, 0.0), 0.0, 0
    for size in (10, 100, 1, 800, 64, 5) * 20:
        now += rate.take(size, now)
        sent += size
    assert sent <= 1000 * now + 100 + 800


async def test_a_directory_that_is_closed_meanwhile_makes_no_start_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program runs by then: to say that it could not be started would be an invented end."""
    here = Path.cwd()

    def closed(fd: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "fchdir", closed)
    try:
        exited, _ = await ran(tmp_path, argv=["sh", "-c", "exit 3"])
    finally:
        os.chdir(here)
    assert (exited.reason, exited.exit_code) == ("exited", 3)


def test_signals_that_runnerd_blocks_reach_its_children(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP))
from pathlib import Path
from tests.support.children import ran
exited, record = asyncio.run(ran(Path({str(tmp_path)!r}), argv=["grep", "SigBlk", "/proc/self/status"]))
assert int(record.output().split()[1], 16) == 0, record.output()
exited, record = asyncio.run(ran(Path({str(tmp_path)!r}), argv=["sleep", "60"], timeout_s=0.1))
assert exited.signal == "SIGTERM", exited
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], timeout=30, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize(
    ("file", "text", "own"),
    [
        ("cpu.max", "100000 100000\n", True),
        ("cpu.max", "max 100000\n", False),
        ("cpu/cpu.cfs_quota_us", "200000\n", True),
        ("cpu/cpu.cfs_quota_us", "-1\n", False),
        ("cpu/cpu.shares", "1024\n", False),
    ],
)
def test_a_container_has_cpus_of_its_own_and_a_host_has_not(tmp_path: Path, file: str, text: str, own: bool) -> None:
    place = tmp_path / file
    place.parent.mkdir(exist_ok=True)
    place.write_text(text)
    assert has_own_cpus(tmp_path) is own
