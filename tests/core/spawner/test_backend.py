"""What every backend promises. Run over each of them; a new one joins by a factory in `BACKENDS`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path

import pytest

from sandreel_core.contract.boot import BOOT_MARKER
from sandreel_core.errors import AlreadyExists, Conflict, Denied, NotFound, SandreelError
from sandreel_core.spawner import bubble, census
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.process import USERS
from tests.support import engine, rigs
from tests.support.mark import OURS
from tests.support.rigs import KEY, Rig, seen, spec, status

WITHIN_S = 2  # a death is told

BACKENDS: dict[str, Callable[[Path], AbstractAsyncContextManager[Rig]]] = {
    "plain": lambda data: rigs.process(data, False),
    "boxed": lambda data: rigs.process(data, True),
    "docker": rigs.docker,
}


@pytest.fixture(params=list(BACKENDS))
async def rig(request: pytest.FixtureRequest, data: Path) -> AsyncGenerator[Rig, None]:
    if request.param == "boxed" and (why := bubble.works()):
        pytest.skip(f"this machine lacks bubblewrap: {why}")
    if request.param == "docker" and (why := engine.missing()):
        pytest.skip(why)
    async with BACKENDS[request.param](data) as rig:
        yield rig


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
    assert rig.left() == []


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
    (rig.workspace(KEY) / "seen.json").unlink(missing_ok=True)
    await rig.backend.create(next_)
    await seen(rig)  # PID 1 of a box does not hear SIGTERM before it listens, and would have its whole grace
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
    with monkeypatch.context() as patch:
        rig.refusing(patch)
        with pytest.raises(SandreelError):
            await rig.backend.create(spec())
        assert not rig.workspace(KEY).parent.exists()
    await rig.backend.create(spec())
    await seen(rig)
    death = await rig.backend.stop(KEY, "1-1", grace_s=10)
    before = await rig.backend.inspect(KEY)
    with monkeypatch.context() as patch:
        rig.refusing(patch)
        with pytest.raises(SandreelError):
            await rig.backend.create(spec(boot=2))
    assert (rig.workspace(KEY) / "seen.json").exists()
    assert await rig.backend.inspect(KEY) == before
    assert await rig.backend.stop(KEY, "1-1", grace_s=10) == death


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
    async with aclosing(rig.backend.watch()) as watch, asyncio.timeout(WITHIN_S):
        await rig.kill(sandbox)
        assert await anext(watch) == KEY
    assert await status(rig) in ("exited", "dead")
    death = await rig.backend.stop(KEY, "1-1", grace_s=10)
    assert (death.cause, death.exit_code) == ("killed", 137)


async def test_another_spawner_finds_what_runs_and_watches_it(rig: Rig) -> None:
    sandbox = await rig.backend.create(spec())
    await seen(rig)
    async with rig.again() as other:
        assert await other.list() == [sandbox]
        async with aclosing(other.watch()) as watch, asyncio.timeout(WITHIN_S):
            await rig.kill(sandbox)
            assert await anext(watch) == KEY
        cause = "killed" if rig.remembers else "exited"
        assert (await other.stop(KEY, "1-1", grace_s=10)).cause == cause


async def test_what_nobody_has_is_not_found(rig: Rig) -> None:
    with pytest.raises(NotFound):
        await rig.backend.stop(KEY, "1-1", grace_s=0)
    await rig.backend.create(spec())
    with pytest.raises(NotFound):
        await rig.backend.stop(KEY, "1-2", grace_s=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_sessions_of_root_run_as_their_profiles_user(rig: Rig) -> None:
    await rig.backend.create(spec())
    assert (await seen(rig))["uid"] == USERS["default"][0]
    other = Key("acme", "two")
    await rig.backend.create(spec(other, profile="agent"))
    assert (await seen(rig, other))["uid"] == USERS["agent"][0]
    assert rig.workspace(other).stat().st_uid == USERS["agent"][0]
