"""Boots that do not come up, ends that fail, a backend that does not answer."""

from __future__ import annotations

import asyncio

import pytest

from sandreel_core.contract import session as s
from sandreel_core.contract.boot import NO_ROOM, UNWRITABLE
from sandreel_core.errors import Unavailable
from sandreel_core.spawner.reconcile import Rules
from tests.support.backend import FakeBackend
from tests.support.spawner import ONE, Hand, plan, ready, running


async def test_a_backend_that_fails_to_create_is_asked_again_and_then_the_session_fails(
    hand: Hand, backend: FakeBackend
) -> None:
    backend.create_error = Unavailable("no memory", retry_after_s=0.05)
    rules = Rules(installation="ours", node="here", boot_within_s=1.5)
    async with running(hand.bus, backend, plan(rules=rules, sweep_s=0.2)):
        await hand.create()
        failed = await hand.until(s.Failed)
        assert (failed.stage, failed.code) == ("provision", "BOOT_TIMEOUT")
        assert failed.message.endswith("in time: no memory"), "what it waited for is told"
        assert backend.calls.count("create 1-1") >= 2
        backend.create_error = None
        await hand.send(s.Resume())
        await hand.until(s.Provisioned, where=lambda event: event.boot == 2)
        assert backend.specs[-1].fresh, "it has never had a workspace"


@pytest.mark.parametrize(
    ("exit_code", "code", "says"),
    [
        (UNWRITABLE, "WORKSPACE_UNWRITABLE", "cannot write its workspace"),
        (NO_ROOM, "NO_SPACE", "no room"),
        (1, "RUNNERD_EXITED", "before it was ready: exit code 1; is runnerd the entrypoint of image mine:1?"),
        (None, "RUNNERD_EXITED", "before it was ready"),
    ],
)
async def test_a_runnerd_that_could_not_begin_says_why_by_its_exit_code(
    hand: Hand, backend: FakeBackend, spawner: None, exit_code: int | None, code: str, says: str
) -> None:
    await hand.create(image="mine:1")
    await hand.until(s.Provisioned)
    backend.die(ONE, "exited", exit_code)
    failed = await hand.until(s.Failed)
    assert (failed.stage, failed.code) == ("boot", code)
    assert says in failed.message


async def test_a_boot_that_is_not_ready_in_time_fails_and_leaves_nothing(hand: Hand, backend: FakeBackend) -> None:
    async with running(hand.bus, backend, plan()):
        await hand.create()
        await hand.until(s.Provisioned)
    rules = Rules(installation="ours", node="here", boot_within_s=0.1)
    async with running(hand.bus, backend, plan(rules=rules, sweep_s=0.1)):
        failed = await hand.until(s.Failed)
        assert (failed.stage, failed.code) == ("boot", "BOOT_TIMEOUT")
        async with asyncio.timeout(10):
            while backend.workspaces:
                await asyncio.sleep(0.01)


async def test_a_failed_resume_keeps_the_files(hand: Hand, backend: FakeBackend) -> None:
    async with running(hand.bus, backend, plan()):
        await ready(hand)
        await hand.send(s.Stop())
        await hand.until(s.Stopped)
    rules = Rules(installation="ours", node="here", boot_within_s=0.5)
    async with running(hand.bus, backend, plan(rules=rules, sweep_s=0.1)):
        await hand.send(s.Resume())
        await hand.until(s.Failed)
        assert ONE in backend.workspaces
        assert "destroy" not in backend.calls


async def test_a_stop_that_fails_is_tried_again(hand: Hand, backend: FakeBackend, spawner: None) -> None:
    await ready(hand)
    backend.stop_error = Unavailable("it survives", retry_after_s=0.05)
    await hand.send(s.Stop())
    async with asyncio.timeout(10):
        while backend.calls.count("stop 1-1") < 3:
            await asyncio.sleep(0.01)
    assert (await hand.types())[-1] == "stopping"
    backend.stop_error = None
    await hand.until(s.Stopped)


async def test_nothing_is_concluded_from_a_silent_backend(hand: Hand, backend: FakeBackend, spawner: None) -> None:
    await ready(hand)
    backend.silent = True
    backend.die(ONE)
    await asyncio.sleep(0.5)
    assert (await hand.types())[-1] == "ready"
    backend.silent = False
    assert (await hand.until(s.Stopped)).reason == "killed"
