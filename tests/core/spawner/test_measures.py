"""What the spawner shows of sessions and of their recorders, whose heartbeats are all that it hears of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from sandreel_core.bus import measures as commands
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.errors import Unavailable
from sandreel_core.health import Health
from sandreel_core.health_reading import Reading, samples
from sandreel_core.metrics import Metrics
from sandreel_core.spawner import hold
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.reconcile import Rules
from tests.support.backend import FakeBackend
from tests.support.spawner import ONE, TWO, Hand, plan, ready, running

LIMIT_S = 20


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandreel_core.spawner.service.TICK_S", 0.05)


class Watched:
    """What a spawner is given to tell of itself."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.health = Health("spawner", version="1", pid=1, monotonic=time.monotonic)

    @property
    def given(self) -> dict[str, Any]:
        return {"metrics": self.metrics, "health": self.health}

    async def until(self, holds: Callable[[Reading], bool]) -> Reading:
        """What is served, as soon as it is so."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                reading = Reading(self.health.report(), samples(self.metrics.render()))
                if holds(reading):
                    return reading
                await asyncio.sleep(0.01)


async def test_sessions_by_phase_and_what_heartbeats_add_up_to(hand: Hand) -> None:
    told = Watched()
    async with running(hand.bus, FakeBackend(), plan(), **told.given):
        await ready(hand)
        await ready(hand, TWO)
        shape: dict[str, Any] = {"spool_bytes": 30, "spool_capacity_bytes": 100, "window_messages": 2}
        await hand.beat(key=ONE, live_execs=2, sent_messages=10, resends=1, **shape)
        await hand.beat(key=TWO, live_execs=1, sent_messages=5, held=True, **shape | {"window_messages": 7})
        # A stranger, and a boot that is none of the session's: neither counts.
        await hand.beat(key=Key("acme", "nobody"), live_execs=9)
        shown = await told.until(lambda shown: shown.total("sandreel_execs_open") == 3)
        assert shown.total("sandreel_sessions", phase="ready") == 2
        assert shown.total("sandreel_runnerd_spool_bytes") == 60
        assert shown.total("sandreel_runnerd_spool_used_ratio") == 0.3
        assert shown.total("sandreel_runnerd_window_messages") == 9
        assert shown.total("sandreel_runnerd_window_greatest_messages") == 7
        assert shown.total("sandreel_runnerd_held") == 1
        assert shown.total("sandreel_runnerd_messages_sent_total") == 15
        assert shown.total("sandreel_runnerd_resends_total") == 1
        await hand.beat(key=ONE, sent_messages=12, gaps=1)
        shown = await told.until(lambda shown: shown.total("sandreel_runnerd_messages_sent_total") == 17)
        assert shown.total("sandreel_runnerd_gaps_total") == 1


async def test_a_new_boot_counts_from_0_and_a_new_spawner_from_where_it_is(hand: Hand) -> None:
    backend = FakeBackend()
    told = Watched()
    async with running(hand.bus, backend, plan(), **told.given):
        await ready(hand)
        await hand.beat(sent_messages=100)
        await told.until(lambda shown: shown.total("sandreel_runnerd_messages_sent_total") == 100)
        backend.die(ONE)
        await hand.until(s.Stopped)
        await hand.send(s.Resume())
        await hand.until(s.Provisioned, where=lambda event: event.boot == 2)
        await hand.bootstrap("1-2")
        await hand.beat("1-2", sent_messages=7)
        await told.until(lambda shown: shown.total("sandreel_runnerd_messages_sent_total") == 107)
    next_one = Watched()
    async with running(hand.bus, backend, plan(), **next_one.given):
        # What the boot has sent before this spawner was there is not what it has sent since.
        await hand.beat("1-2", sent_messages=7, window_messages=1)
        shown = await next_one.until(lambda shown: shown.total("sandreel_runnerd_window_messages") == 1)
        assert shown.total("sandreel_runnerd_messages_sent_total") == 0
        await hand.beat("1-2", sent_messages=9)
        await next_one.until(lambda shown: shown.total("sandreel_runnerd_messages_sent_total") == 2)


async def test_late_heartbeats_are_counted_and_stop_being_late(hand: Hand) -> None:
    told = Watched()
    rules = Rules(installation="ours", node="here", late_s=0.3)
    async with running(hand.bus, FakeBackend(), plan(rules=rules), **told.given):
        await ready(hand)
        await hand.beat()
        shown = await told.until(lambda shown: shown.total("sandreel_heartbeats_late") == 1)
        assert shown.total("sandreel_heartbeat_oldest_seconds") >= 0.3
        await hand.until(s.Degraded)
        async with asyncio.timeout(LIMIT_S):
            while (await told.until(lambda shown: True)).total("sandreel_heartbeats_late"):
                await hand.beat()
                await asyncio.sleep(0.01)


async def test_refusals_count_by_code_whoever_of_the_role_has_refused(hand: Hand) -> None:
    told = Watched()
    async with running(hand.bus, FakeBackend(), plan(), **told.given):
        await hand.refusal(await hand.send(x.Start(exec="e", argv=["true"])))
        await hand.refusal(await hand.send(s.Stop()))
        counter = told.metrics.counter(commands.REFUSED)
        await told.until(lambda shown: counter.total("SESSION_NOT_FOUND") == 2)
        assert told.metrics.counter(commands.ANSWERED).total() == 2
        assert told.metrics.histogram(commands.OUTCOME_S).count == 2


async def test_streams_are_shown_and_a_full_one_degrades_and_never_fails(hand: Hand) -> None:
    told = Watched()
    told.health.ready()
    real = hand.bus.state
    async with running(hand.bus, FakeBackend(), plan(), **told.given):
        shown = await told.until(lambda shown: len(shown.named("sandreel_stream_max_bytes")) == 3)
        assert {each.labels["stream"] for each in shown.named("sandreel_stream_bytes")} == {"REEL-0", "CMD", "DEAD"}
        full = [True]

        async def state(stream: str) -> Any:
            found = await real(stream)
            return replace(found, bytes=950, max_bytes=1000) if stream == "CMD" and full else found

        hand.bus.state = state  # type: ignore[method-assign]
        shown = await told.until(lambda shown: shown.report.status == "degraded")
        assert [reason.part for reason in shown.report.reasons] == ["stream CMD"]
        full.clear()
        await told.until(lambda shown: shown.report.status == "ok")


async def test_a_backend_that_cannot_be_asked_is_said(hand: Hand) -> None:
    told = Watched()
    told.health.ready()
    backend = FakeBackend()
    async with running(hand.bus, backend, plan(sweep_s=0.05), **told.given):
        await ready(hand)
        backend.silent = True
        shown = await told.until(lambda shown: shown.report.status == "degraded")
        assert shown.report.reasons[0].text == "what runs the sessions cannot be asked"
        backend.silent = False
        await told.until(lambda shown: shown.report.status == "ok")


async def test_streams_that_cannot_be_looked_at_end_nothing(hand: Hand) -> None:
    told = Watched()
    real = hand.bus.state
    refuse = [True]

    async def state(stream: str) -> Any:
        if stream == "DEAD" and refuse:
            raise Unavailable("away")
        return await real(stream)

    hand.bus.state = state  # type: ignore[method-assign]
    async with running(hand.bus, FakeBackend(), plan(), **told.given):
        await ready(hand)
        assert (await told.until(lambda shown: True)).named("sandreel_stream_bytes", stream="DEAD") == []
        refuse.clear()
        await told.until(lambda shown: bool(shown.named("sandreel_stream_bytes", stream="DEAD")))
    assert hold.NEARLY_FULL == 0.9, "the sentence of /healthz says 90 %"
