"""Late heartbeats, and the sweep: what it stops, and whom it spares."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract.requests import Done
from sandreel_core.errors import NotFound, Unavailable
from sandreel_core.spawner import actions as a
from sandreel_core.spawner.commands import Limits
from sandreel_core.spawner.reconcile import Rules
from tests.support.backend import FakeBackend
from tests.support.spawner import ONE, Hand, plan, ready, running


async def test_a_late_heartbeat_degrades_and_the_next_recovers(hand: Hand, backend: FakeBackend) -> None:
    rules = Rules(installation="ours", node="here", late_s=0.3)
    async with running(hand.bus, backend, plan(rules=rules)):
        await ready(hand)
        await hand.until(s.Degraded)
        for _ in range(40):
            await hand.beat()
            await asyncio.sleep(0.05)
        await hand.until(s.Recovered)
        assert "stop 1-1" not in backend.calls


def drained(asked: list[str], **answer: object) -> Callable[[str, bytes], Awaitable[bytes]]:
    """A runnerd that is asked to drain, and says so."""

    async def handler(subject: str, body: bytes) -> bytes:
        verb = subject.rsplit(".", 1)[1]
        if verb != "hold":
            asked.append(verb)
        says = {"live_execs": [], "idle_s": 5.0} | answer
        return msgspec.json.encode(says if verb == "drain" else Done())

    return handler


async def test_the_sweep_stops_what_is_idle_after_a_drain(hand: Hand, backend: FakeBackend) -> None:
    asked: list[str] = []

    async def beats() -> None:
        while True:
            await hand.beat(idle_s=5)
            await asyncio.sleep(0.05)

    async with running(hand.bus, backend, plan(limits=Limits(max_idle_s=1), sweep_s=0.1)):
        await ready(hand)
        async with hand.bus.serve("req.runnerd.acme.one.*", drained(asked)):
            beating = asyncio.create_task(beats())
            assert (await hand.until(s.Stopping)).reason == "idle"
            assert (await hand.until(s.Stopped)).reason == "idle"
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
    assert asked == ["drain"]
    assert "destroy" not in backend.calls
    assert ONE in backend.workspaces


@pytest.mark.parametrize(
    ("open_exec", "answer", "asked"),
    [
        (False, {"live_execs": ["e"]}, ["drain", "lift"]),
        (True, {}, []),
        (False, None, []),
        (False, {"idle_s": 0.2}, ["drain", "lift"]),
        (False, {"idle_s": None}, ["drain", "lift"]),
    ],
)
async def test_the_sweep_spares_what_lives_what_was_used_since_and_what_does_not_answer(
    hand: Hand, backend: FakeBackend, open_exec: bool, answer: dict[str, object] | None, asked: list[str]
) -> None:
    heard: list[str] = []
    async with running(hand.bus, backend, plan(limits=Limits(max_idle_s=1))) as spawner:
        await ready(hand)
        if open_exec:
            await hand.say(x.Accepted(boot_id="1-1"), id="e", n=1)
        subject = "req.runnerd.acme.one.*" if answer is not None else "req.runnerd.acme.nobody.*"
        async with hand.bus.serve(subject, drained(heard, **(answer or {}))):
            assert not await spawner._sweeper.sweep(a.Sweep(ONE, "idle"))
        assert (await hand.types())[-1] == "ready"
    assert heard == asked


async def test_an_expired_session_is_stopped_however_recently_it_was_used(hand: Hand, backend: FakeBackend) -> None:
    asked: list[str] = []
    async with running(hand.bus, backend, plan()) as spawner:
        await ready(hand, ttl_s=1e-3)
        async with hand.bus.serve("req.runnerd.acme.one.*", drained(asked, idle_s=0.0)):
            assert await spawner._sweeper.sweep(a.Sweep(ONE, "ttl"))
        assert (await hand.until(s.Stopped)).reason == "ttl"


@pytest.mark.parametrize("meanwhile", [s.Extend(ttl_s=600), s.Pin()])
async def test_what_is_extended_or_pinned_during_a_sweep_is_spared(
    hand: Hand, backend: FakeBackend, meanwhile: s.SessionCommand
) -> None:
    asked: list[str] = []
    answer = drained(asked)

    async def somebody_is_quicker(subject: str, body: bytes) -> bytes:
        if subject.endswith("drain"):
            await hand.until(s.Extended | s.Pinned, cause=await hand.send(meanwhile))  # type: ignore[arg-type]
        return await answer(subject, body)

    async with running(hand.bus, backend, plan()) as spawner:
        await ready(hand, ttl_s=1e-3)
        async with hand.bus.serve("req.runnerd.acme.one.*", somebody_is_quicker):
            assert not await spawner._sweeper.sweep(a.Sweep(ONE, "ttl"))
        assert "stopping" not in await hand.types()
    assert asked == ["drain", "lift"]


async def test_a_new_spawner_that_has_heard_nothing_yet_spares_an_expired_session_that_works(
    hand: Hand, backend: FakeBackend
) -> None:
    """Behaviour 66, cold: no heartbeat, and an exec of which the log knows nothing is told by the drain."""
    asked: list[str] = []
    async with running(hand.bus, backend, plan()):
        await ready(hand, ttl_s=1e-3)
    async with hand.bus.serve("req.runnerd.acme.one.*", drained(asked, live_execs=["e"])):
        async with running(hand.bus, backend, plan()):
            async with asyncio.timeout(10):
                while "lift" not in asked:
                    await asyncio.sleep(0.01)
            assert "stopping" not in await hand.types()
    assert asked == ["drain", "lift"]


async def test_the_sweep_spares_the_pinned_and_stops_them_when_unpinned(hand: Hand, backend: FakeBackend) -> None:
    async with running(hand.bus, backend, plan(limits=Limits(max_ttl_s=0.3), sweep_s=0.1)):
        await ready(hand)
        await hand.until(s.Pinned, cause=await hand.send(s.Pin()))
        asked: list[str] = []
        async with hand.bus.serve("req.runnerd.acme.one.*", drained(asked)):
            await asyncio.sleep(0.8)
            assert (asked, (await hand.types())[-1]) == ([], "pinned")
            await hand.send(s.Unpin())
            assert (await hand.until(s.Stopping)).reason == "ttl"


@pytest.mark.parametrize("ending", [None, s.Stop(), s.Destroy()])
async def test_what_was_decided_about_a_boot_that_is_over_does_nothing_to_the_next(
    hand: Hand, backend: FakeBackend, ending: s.SessionCommand | None
) -> None:
    async with running(hand.bus, backend, plan()) as spawner:
        await ready(hand)
        backend.die(ONE)
        await hand.until(s.Stopped)
        await hand.send(s.Resume())
        await hand.until(s.Provisioned, where=lambda event: event.boot == 2)
        await hand.bootstrap("1-2")
        if ending is not None:
            backend.stop_error = Unavailable("it does not end", retry_after_s=9)
            await hand.send(ending)
            await hand.until(s.Stopping if isinstance(ending, s.Stop) else s.Destroying)
            backend.stop_error = NotFound("there is no boot 1-1")
        before = await hand.types()
        # Another spawner, which was slow, still has this on its list.
        late = a.Remove(ONE, "1-1") if isinstance(ending, s.Destroy) else a.Halt(ONE, "1-1", None)
        await spawner._effects.perform(late)
        assert await hand.types() == before
        assert backend.sandboxes[ONE].status == "running"
