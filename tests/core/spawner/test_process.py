"""What the process backend does beside what every backend promises (test_backend)."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sandreel_core.errors import Refused, Unavailable
from sandreel_core.spawner import bubble, census
from sandreel_core.spawner.process import ProcessBackend
from sandreel_core.spawner.workspace import Folder, empty_trash
from tests.support import rigs
from tests.support.mark import OURS
from tests.support.rigs import KEY, STANDIN, Rig, seen, seen_in, spec, status


@pytest.fixture(params=["plain", "boxed"])
async def rig(request: pytest.FixtureRequest, data: Path) -> AsyncGenerator[Rig, None]:
    if request.param == "boxed" and (why := bubble.works()):
        pytest.skip(f"this machine lacks bubblewrap: {why}")
    async with rigs.process(data, request.param == "boxed") as rig:
        yield rig


@pytest.mark.parametrize("told", [False, True])
async def test_a_launch_that_ends_at_once_says_why_and_leaves_no_child(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Before its pid is written down, or behind that, when it does not take its settings any more."""
    real = census.start_time

    def when_it_has_ended(pid: int) -> int | None:
        since = real(pid)
        limit = time.monotonic() + 20
        while real(pid) is not None and time.monotonic() < limit:
            time.sleep(0.01)
        return since if told else real(pid)

    monkeypatch.setattr(rig.backend, "_program", ["/no/such/program"])
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr("sandreel_core.spawner.launch.census", SimpleNamespace(start_time=when_it_has_ended))
            with pytest.raises(Unavailable, match=r"ended at once: .*No such file"):
                await rig.backend.create(spec())
    assert len(rig.backend._children) == 0  # type: ignore[attr-defined]
    zombies = [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]
    assert zombies == []
    assert not rig.workspace(KEY).parent.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mode", [0o700, 0o755])
async def test_a_workspace_that_somebody_took_from_the_session_is_said_and_left_as_it_is(rig: Rig, mode: int) -> None:
    await rig.backend.create(spec())
    await seen(rig)
    death = await rig.backend.stop(KEY, "1-1", grace_s=10)
    workspace = rig.workspace(KEY)
    owner = workspace.stat().st_uid
    os.chown(workspace, 0, 0)
    workspace.chmod(mode)
    with pytest.raises(Refused, match=f"of uid 0, and uid {owner} cannot write it") as refused:
        await rig.backend.create(spec(boot=2))
    assert refused.value.code == "WORKSPACE_UNWRITABLE"
    assert await rig.backend.stop(KEY, "1-1", grace_s=10) == death
    assert (workspace / "seen.json").exists()
    os.chown(workspace, owner, owner)
    await rig.backend.create(spec(boot=2))


async def test_a_record_that_cannot_be_read_is_unknown_and_not_absent(rig: Rig) -> None:
    await rig.backend.create(spec())
    await seen(rig)
    record = rig.workspace(KEY).parent / "boot.json"
    kept = record.read_bytes()
    record.write_bytes(b"{")
    with pytest.raises(Unavailable):
        await rig.backend.inspect(KEY)
    with pytest.raises(Unavailable):
        await rig.backend.list()
    record.write_bytes(kept)


async def test_a_full_disk_makes_it_wait_and_ends_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "write", full)
        with pytest.raises(Unavailable, match="No space"):
            await rig.backend.create(spec())
    await rig.backend.create(spec())
    await seen(rig)
    with monkeypatch.context() as patched:
        patched.setattr(Folder, "write", full)
        with pytest.raises(Unavailable, match="No space"):
            await rig.backend.stop(KEY, "1-1", grace_s=10)
    await rig.backend.stop(KEY, "1-1", grace_s=10)
    with monkeypatch.context() as patched:
        patched.setattr(Folder, "remove", full)
        with pytest.raises(Unavailable, match="No space"):
            await rig.backend.destroy(KEY, installation=OURS, boot_id="1-1")
    await rig.backend.destroy(KEY, installation=OURS, boot_id="1-1")


def test_what_cannot_be_deleted_is_told_and_keeps_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / "trash" / name).mkdir(parents=True)
    delete = shutil.rmtree

    def stubborn(path: Path, **given: Any) -> None:
        if path.name == "a":
            raise PermissionError(1, "Operation not permitted")
        delete(path, **given)

    monkeypatch.setattr(shutil, "rmtree", stubborn)
    assert ["a cannot be deleted" in problem for problem in empty_trash(tmp_path)] == [True]
    assert [path.name for path in (tmp_path / "trash").iterdir()] == ["a"]


async def test_a_boot_whose_creator_died_is_begun_again(rig: Rig) -> None:
    await rig.backend.create(spec())
    await seen(rig)
    await rig.backend.stop(KEY, "1-1", grace_s=10)
    record = rig.workspace(KEY).parent / "boot.json"
    half = json.loads(record.read_text()) | {"state": "starting", "pid": 0, "outer": 0}
    record.write_text(json.dumps(half))
    assert await status(rig) == "starting"
    await rig.backend.create(spec())
    assert await status(rig) == "running"


@pytest.mark.parametrize("rig", ["boxed"], indirect=True)
async def test_a_boxed_session_sees_no_other_and_no_data(rig: Rig) -> None:
    await rig.backend.create(spec())
    found = await seen(rig)
    assert (found["pid"], found["cwd"]) == (1, "/workspace")
    assert "workspace" in found["root"]
    await rig.backend.stop(KEY, "1-1", grace_s=10)
    (rig.workspace(KEY) / "seen.json").unlink()
    (rig.workspace(KEY) / "look").write_text(str(rig.data))
    await rig.backend.create(spec(boot=2))
    assert (await seen(rig))["found"] == []


async def test_a_boxed_session_sees_nothing_that_is_hidden_also_through_a_link(data: Path) -> None:
    if why := bubble.works():
        pytest.skip(f"this machine lacks bubblewrap: {why}")
    (data / "stack" / "state").mkdir(parents=True)
    (data / "stack" / "passwords").write_text("secret")
    (data / "link").symlink_to(data / "stack")
    program, hidden = (sys.executable, "-I", str(STANDIN)), [data / "link"]
    async with ProcessBackend.open(
        data / "link" / "state", node="here", program=program, box=True, hidden=hidden
    ) as backend:
        workspace = data / "stack" / "state" / "sessions" / KEY.org / KEY.session / "workspace"
        await backend.create(spec())
        await seen_in(workspace)
        await backend.stop(KEY, "1-1", grace_s=10)
        (workspace / "seen.json").unlink()
        (workspace / "look").write_text(str(data / "stack"))
        await backend.create(spec(boot=2))
        assert (await seen_in(workspace))["found"] == []
        await backend.stop(KEY, "1-2", grace_s=10)
