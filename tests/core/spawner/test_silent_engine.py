"""An engine that does not answer: what was asked for waits, fails in time or says what it waits for, and nothing is left undone."""

from __future__ import annotations

import asyncio

import pytest

from sandreel_core.client import Client
from sandreel_core.contract import session as s
from sandreel_core.errors import Unavailable
from sandreel_core.spawner.commands import Limits
from sandreel_core.spawner.reconcile import Rules
from tests.support.backend import FakeBackend
from tests.support.spawner import Hand, plan, ready, running


async def test_an_end_that_cannot_be_reached_in_time_says_what_it_waits_for_and_is_reached_afterwards(
    hand: Hand, backend: FakeBackend
) -> None:
    async with running(hand.bus, backend, plan(limits=Limits(stop_within_s=0.3))):
        await ready(hand)
        backend.silent = True
        await hand.send(s.Stop())
        waits = await hand.until(s.Stopping, where=lambda event: bool(event.waits_for))
        assert (waits.reason, waits.waits_for) == ("asked", "the engine does not answer")
        with pytest.raises(Unavailable, match=r"but stopping \(the engine does not answer\)"):
            await Client(hand.bus, answer_timeout_s=5).stop("acme", "one", timeout_s=0.5)
        # Another cause is said as well, and then a destroy has to wait.
        backend.silent, backend.stop_error = False, Unavailable("it survives SIGKILL", retry_after_s=0.05)
        await hand.until(s.Stopping, where=lambda event: event.waits_for == "it survives SIGKILL")
        await hand.send(s.Destroy())
        await hand.until(s.Destroying, where=lambda event: event.waits_for == "it survives SIGKILL")
        backend.stop_error = None
        await hand.until(s.Destroyed)
    told = [kind for kind in await hand.types() if not kind.startswith("command.")]
    assert told == ["requested", "provisioned", "ready", *["stopping"] * 3, *["destroying"] * 2, "destroyed"]


async def test_what_cannot_be_started_because_nobody_answers_fails_and_what_comes_up_after_all_is_ended(
    hand: Hand, backend: FakeBackend
) -> None:
    rules = Rules(installation="ours", node="here", boot_within_s=0.5)
    async with running(hand.bus, backend, plan(rules=rules)):  # no sweep for a minute
        backend.silent = True
        await hand.create()
        failed = await hand.until(s.Failed)
        assert (failed.stage, failed.code) == ("provision", "BOOT_TIMEOUT")
        assert failed.message == "the session could not be started in time: the engine does not answer"
        await hand.send(s.Destroy())
        await hand.until(s.Destroying)
        backend.silent = False
        await hand.until(s.Destroyed)


async def test_what_was_asked_for_while_nobody_answered_starts_as_soon_as_somebody_does(
    hand: Hand, backend: FakeBackend
) -> None:
    async with running(hand.bus, backend, plan()):  # no sweep for a minute
        backend.silent = True
        await hand.create()
        await hand.until(s.Requested)
        await asyncio.sleep(0.1)
        backend.silent = False
        await hand.until(s.Provisioned)
