"""What every backend promises. Run over each of them; a new one joins by a factory in `BACKENDS`."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sandreel_core.contract.boot import BOOT_MARKER, BootSettings
from sandreel_core.contract.session import Limits
from sandreel_core.errors import AlreadyExists, Conflict, Denied, NotFound, SandreelError, Unavailable
from sandreel_core.spawner import bubble, census
from sandreel_core.spawner.backend import Backend, BootSpec, Key
from sandreel_core.spawner.process import USERS, ProcessBackend
from sandreel_core.spawner.workspace import Folder, empty_trash
from tests.support.mark import OURS

STANDIN = Path(__file__).resolve().parents[2] / "support" / "standin.py"
KEY = Key("acme", "one")


@dataclass
class Rig:
    """A backend, how to make a second one on the same data, and where the workspaces are on this machine."""

    backend: Backend
    again: Callable[[], AbstractAsyncContextManager[Backend]]
    workspace: Callable[[Key], Path]
    data: Path


def interpreter(boxed: bool) -> str:
    """Plain sessions of root run as somebody who may not be able to enter this interpreter's directory."""
    if not boxed and os.geteuid() == 0 and bubble.closed_to(Path(os.path.realpath(sys.executable)), 65534, 65534):
        return "/usr/bin/python3"
    return sys.executable


@asynccontextmanager
async def process(data: Path, box: bool) -> AsyncIterator[Rig]:
    program = (interpreter(box), "-I", str(STANDIN))

    def again() -> AbstractAsyncContextManager[Backend]:
        return ProcessBackend.open(data, node="here", program=program, box=box)

    with pytest.MonkeyPatch.context() as patch:
        if program[0] != sys.executable:
            patch.setattr(bubble, "needs", lambda given: [Path(part) for part in given if part.startswith("/")])
        async with again() as backend:
            yield Rig(backend, again, lambda key: data / "sessions" / key.org / key.session / "workspace", data)
            for sandbox in await backend.list():
                await backend.stop(sandbox.key, sandbox.boot_id, grace_s=0)


BACKENDS = {"plain": lambda data: process(data, False), "boxed": lambda data: process(data, True)}


@pytest.fixture
def data() -> Iterator[Path]:
    # Not below /tmp, which is a session's own anyway: the data must be hidden wherever they are.
    path = Path(tempfile.mkdtemp(prefix="sandreel-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=list(BACKENDS))
async def rig(request: pytest.FixtureRequest, data: Path) -> AsyncGenerator[Rig, None]:
    if request.param == "boxed" and (why := bubble.works()):
        pytest.skip(f"this machine lacks bubblewrap: {why}")
    async with BACKENDS[request.param](data) as rig:
        yield rig


def spec(key: Key = KEY, *, incarnation: int = 1, boot: int = 1, fresh: bool | None = None, **changes: Any) -> BootSpec:
    boot_id = f"{incarnation}-{boot}"
    settings = BootSettings(
        nats_urls=["nats://127.0.0.1:1"], org=key.org, session=key.session, boot_id=boot_id, token="secret-token", installation=OURS
    )  # fmt: skip
    values: dict[str, Any] = {"profile": "default", "limits": Limits(), "image": None, "settings": settings}
    fresh = boot == 1 if fresh is None else fresh
    return BootSpec(key=key, incarnation=incarnation, boot=boot, fresh=fresh, **(values | changes))


async def seen(rig: Rig, key: Key = KEY) -> dict[str, Any]:
    """What the stand-in runnerd wrote down when it was up."""
    path = rig.workspace(key) / "seen.json"
    async with asyncio.timeout(10):
        while not path.exists():
            await asyncio.sleep(0.01)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


async def status(rig: Rig, key: Key = KEY) -> str:
    found = await rig.backend.inspect(key)
    return "absent" if found is None else found.status


async def test_a_created_boot_runs_in_its_workspace_with_a_home(rig: Rig) -> None:
    sandbox = await rig.backend.create(spec())
    assert (sandbox.status, sandbox.boot_id, sandbox.installation, sandbox.node) == ("running", "1-1", OURS, "here")
    found = await seen(rig)
    assert found["env"][BOOT_MARKER] == f"{OURS}/acme/one/1-1"
    assert found["env"]["HOME"] == found["cwd"] + "/.home"
    assert (rig.workspace(KEY) / ".home").is_dir()
    assert await rig.backend.inspect(KEY) == sandbox
    assert await rig.backend.list() == [sandbox]


async def test_no_secret_stands_in_arguments_or_environment(rig: Rig) -> None:
    await rig.backend.create(spec())
    found = await seen(rig)
    assert "secret-token" not in json.dumps([found["argv"], found["env"]])
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                assert b"secret-token" not in (process / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue


async def test_stop_keeps_the_files_and_says_how_it_ended(rig: Rig) -> None:
    await rig.backend.create(spec())
    await seen(rig)
    death = await rig.backend.stop(KEY, "1-1", grace_s=10)
    assert (death.cause, death.exit_code) == ("exited", 0)
    assert await rig.backend.stop(KEY, "1-1", grace_s=10) == death
    assert await status(rig) == "dead"
    assert (rig.workspace(KEY) / "seen.json").exists()


async def test_what_ignores_sigterm_is_killed(rig: Rig) -> None:
    await rig.backend.create(spec())
    await seen(rig)
    (rig.workspace(KEY) / "stubborn").touch()
    death = await rig.backend.stop(KEY, "1-1", grace_s=0.2)
    assert death.cause == "killed"


async def test_nothing_of_a_dead_boot_is_left(rig: Rig) -> None:
    await rig.backend.create(spec())
    await seen(rig)
    await rig.backend.stop(KEY, "1-1", grace_s=10)
    (rig.workspace(KEY) / "leave").touch()
    (rig.workspace(KEY) / "seen.json").unlink()
    await rig.backend.create(spec(boot=2))
    await seen(rig)
    await rig.backend.stop(KEY, "1-2", grace_s=10)
    assert list(census.carriers(BOOT_MARKER, f"{OURS}/acme/one/1-2")) == []


async def test_destroy_deletes_every_trace_and_only_of_the_dead(rig: Rig) -> None:
    await rig.backend.create(spec())
    await seen(rig)
    with pytest.raises(Conflict):
        await rig.backend.destroy(KEY, installation=OURS, boot_id="1-1")
    await rig.backend.stop(KEY, "1-1", grace_s=10)
    closed = rig.workspace(KEY) / "closed" / "inner"
    closed.mkdir(parents=True)
    (closed / "file").touch()
    closed.parent.chmod(0)
    await rig.backend.destroy(KEY, installation=OURS, boot_id="1-1")
    await rig.backend.destroy(KEY, installation=OURS, boot_id="1-1")
    assert await status(rig) == "absent"
    assert not rig.workspace(KEY).parent.exists()
    assert [path for path in rig.data.rglob("*") if path.is_file()] == []


async def test_resume_finds_the_files(rig: Rig) -> None:
    await rig.backend.create(spec())
    await seen(rig)
    await rig.backend.stop(KEY, "1-1", grace_s=10)
    (rig.workspace(KEY) / "kept").write_text("kept")
    (rig.workspace(KEY) / "seen.json").unlink()
    await rig.backend.create(spec(boot=2))
    assert (await seen(rig))["boot_id"] == "1-2"
    assert (rig.workspace(KEY) / "kept").read_text() == "kept"


@pytest.mark.parametrize(("later", "fresh"), [(2, False), (1, True)])
async def test_the_files_of_a_later_boot_are_not_deleted_by_who_does_not_know_it(
    rig: Rig, later: int, fresh: bool
) -> None:
    await rig.backend.create(spec())
    await seen(rig)
    await rig.backend.stop(KEY, "1-1", grace_s=10)
    if fresh:
        await rig.backend.destroy(KEY, installation=OURS, boot_id="1-1")
    next_ = spec(boot=later, incarnation=2 if fresh else 1)
    await rig.backend.create(next_)
    await rig.backend.stop(KEY, next_.boot_id, grace_s=10)
    (rig.workspace(KEY) / "kept").write_text("kept")
    with pytest.raises(Conflict):
        await rig.backend.destroy(KEY, installation=OURS, boot_id="1-1")
    assert (rig.workspace(KEY) / "kept").read_text() == "kept"
    await rig.backend.destroy(KEY, installation=OURS, boot_id=next_.boot_id)
    assert await status(rig) == "absent"


async def test_a_second_boot_is_refused_while_one_runs(rig: Rig) -> None:
    first = await rig.backend.create(spec())
    await seen(rig)
    for other in (spec(), spec(boot=2), spec(incarnation=2)):
        with pytest.raises(AlreadyExists):
            await rig.backend.create(other)
    assert await rig.backend.inspect(KEY) == first


async def test_of_two_spawners_that_start_the_same_boot_one_does(rig: Rig) -> None:
    async with rig.again() as other:
        results = await asyncio.gather(
            *(backend.create(spec()) for backend in (rig.backend, other, rig.backend, other)), return_exceptions=True
        )
        assert sum(isinstance(result, AlreadyExists) for result in results) == 3
        found = await seen(rig)
        assert found["boot_id"] == "1-1"
        assert await status(rig) == "running"
        await rig.backend.stop(KEY, "1-1", grace_s=10)


async def test_a_resume_without_a_workspace_leaves_nothing(rig: Rig) -> None:
    with pytest.raises(NotFound):
        await rig.backend.create(spec(boot=2))
    assert await status(rig) == "absent"
    assert not rig.workspace(KEY).parent.exists()


async def test_a_failed_create_leaves_nothing_and_a_failed_resume_keeps_the_files(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Unavailable("no more processes")

    with monkeypatch.context() as patch:
        patch.setattr(rig.backend, "_start", refuse)
        with pytest.raises(SandreelError):
            await rig.backend.create(spec())
        assert not rig.workspace(KEY).parent.exists()
    await rig.backend.create(spec())
    await seen(rig)
    death = await rig.backend.stop(KEY, "1-1", grace_s=10)
    before = await rig.backend.inspect(KEY)
    with monkeypatch.context() as patch:
        patch.setattr(rig.backend, "_start", refuse)
        with pytest.raises(SandreelError):
            await rig.backend.create(spec(boot=2))
    assert (rig.workspace(KEY) / "seen.json").exists()
    assert await rig.backend.inspect(KEY) == before
    assert await rig.backend.stop(KEY, "1-1", grace_s=10) == death


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


async def test_a_fresh_boot_does_not_take_over_anothers_workspace(rig: Rig) -> None:
    await rig.backend.create(spec())
    await seen(rig)
    await rig.backend.stop(KEY, "1-1", grace_s=10)
    with pytest.raises(AlreadyExists):
        await rig.backend.create(spec(incarnation=2))
    assert (rig.workspace(KEY) / "seen.json").exists()


async def test_another_installations_object_is_not_destroyed(rig: Rig) -> None:
    await rig.backend.create(spec())
    await seen(rig)
    await rig.backend.stop(KEY, "1-1", grace_s=10)
    with pytest.raises(Denied):
        await rig.backend.destroy(KEY, installation="theirs", boot_id="1-1")
    assert (rig.workspace(KEY) / "seen.json").exists()


async def test_a_killed_runnerd_is_noticed_at_once(rig: Rig) -> None:
    sandbox = await rig.backend.create(spec())
    await seen(rig)
    async with aclosing(rig.backend.watch()) as watch, asyncio.timeout(1):
        os.kill(int(sandbox.ref.removeprefix("pid:")), signal.SIGKILL)
        assert await anext(watch) == KEY
    assert await status(rig) == "exited"
    death = await rig.backend.stop(KEY, "1-1", grace_s=10)
    assert (death.cause, death.exit_code) == ("killed", 137)


async def test_another_spawner_finds_what_runs_and_watches_it(rig: Rig) -> None:
    sandbox = await rig.backend.create(spec())
    await seen(rig)
    async with rig.again() as other:
        assert await other.list() == [sandbox]
        async with aclosing(other.watch()) as watch, asyncio.timeout(1):
            os.kill(int(sandbox.ref.removeprefix("pid:")), signal.SIGKILL)
            assert await anext(watch) == KEY
        assert (await other.stop(KEY, "1-1", grace_s=10)).cause == "exited"


async def test_what_nobody_has_is_not_found(rig: Rig) -> None:
    with pytest.raises(NotFound):
        await rig.backend.stop(KEY, "1-1", grace_s=0)
    await rig.backend.create(spec())
    with pytest.raises(NotFound):
        await rig.backend.stop(KEY, "1-2", grace_s=0)


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
        rig = Rig(backend, lambda: nullcontext(backend), lambda key: workspace, data)
        await backend.create(spec())
        await seen(rig)
        await backend.stop(KEY, "1-1", grace_s=10)
        (workspace / "seen.json").unlink()
        (workspace / "look").write_text(str(data / "stack"))
        await backend.create(spec(boot=2))
        assert (await seen(rig))["found"] == []
        await backend.stop(KEY, "1-2", grace_s=10)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_sessions_of_root_run_as_their_profiles_user(rig: Rig) -> None:
    await rig.backend.create(spec())
    assert (await seen(rig))["uid"] == USERS["default"][0]
    other = Key("acme", "two")
    await rig.backend.create(spec(other, profile="agent"))
    assert (await seen(rig, other))["uid"] == USERS["agent"][0]
    assert rig.workspace(other).stat().st_uid == USERS["agent"][0]
