"""However a session's container ends, the log has the end of its execs and the cause within two seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract.session import Limits
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker_plan import container_name
from tests.support import rigs
from tests.support.engine import docker
from tests.support.mark import OURS
from tests.support.rigs import KEY, Rig, seen, spec
from tests.support.spawner import Hand, plan, running
from tests.support.unix_proxy import proxied

# The promise is two seconds; this machine may be busy with other tests.
PROMISED_S, BUSY_S = 2.0, 4.0


@asynccontextmanager
async def ready(rig: Rig) -> AsyncGenerator[Hand, None]:
    """A session whose runnerd (the stand-in, for which the test speaks) has an exec open."""
    bus = MemoryBus()
    await ensure_installation(bus)
    hand = Hand(bus, timeout_s=30)
    base = plan(sweep_s=60)
    mine = replace(
        base,
        terms=replace(base.terms, installation=OURS),
        rules=replace(base.rules, installation=OURS, backend="docker"),
    )
    async with running(bus, rig.backend, mine):
        await hand.create(KEY, limits=Limits(memory_bytes=64 << 20))
        await hand.until(s.Provisioned)
        await hand.bootstrap()
        begun = await hand.send(x.Start(exec="open", argv=["true"]))
        await hand.say(x.Accepted(boot_id="1-1"), id="open", n=1, cause=begun)
        await seen(rig)
        yield hand
    await bus.close()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("kill",), "killed"),
        (("rm", "-f"), "killed"),
        (("kill", "-s", "USR1"), "oom"),
        (("kill", "-s", "TERM"), "killed"),
    ],
    ids=["killed", "removed", "out of memory", "asked to leave"],
)
async def test_law_2_a_container_that_ends_is_told_at_once(rig: Rig, words: tuple[str, ...], reason: str) -> None:
    async with ready(rig) as hand:
        sandbox = await rig.backend.inspect(KEY)
        assert sandbox is not None
        began = time.monotonic()
        await asyncio.to_thread(docker, *words, sandbox.ref)
        stopped = await hand.until(s.Stopped)
        lost = await hand.until(x.Lost, aggregate="exec", id="open")
        took_s = time.monotonic() - began
        assert (stopped.reason, lost.cause) == (reason, "oom" if reason == "oom" else "runnerd_died")
        assert took_s < BUSY_S, f"promised is {PROMISED_S:g} s"


async def test_what_ended_while_the_engine_was_away_is_known_when_it_answers(tmp_path: Path) -> None:
    async with proxied(tmp_path / "engine.sock") as proxy, rigs.docker(tmp_path, url=proxy.url) as rig:
        sandbox = await rig.backend.create(spec())
        await seen(rig)
        async with aclosing(rig.backend.watch()) as watch:
            assert await anext(watch) == KEY  # what was there already
            proxy.cut()
            told = asyncio.ensure_future(anext(watch))
            await asyncio.to_thread(docker, "kill", sandbox.ref)
            assert not told.done()
            proxy.back()
            async with asyncio.timeout(BUSY_S):
                assert await told == KEY
        assert (await rig.backend.stop(KEY, "1-1", grace_s=1)).cause == "killed"


async def test_nothing_is_concluded_while_the_engine_is_away(tmp_path: Path) -> None:
    async with proxied(tmp_path / "engine.sock") as proxy, rigs.docker(tmp_path, url=proxy.url) as rig:
        async with ready(rig) as hand:
            proxy.cut()
            await hand.send(s.Stop())
            await hand.until(s.Stopping)
            await asyncio.sleep(1.5)  # a sweep and some attempts
            assert "stopped" not in await hand.types()
            proxy.back()
            assert (await hand.until(s.Stopped)).reason == "asked"


async def test_orphans_are_found_by_label_and_those_of_others_are_left(rig: Rig) -> None:
    """A container of which the log knows nothing is ended, its files stay; another installation's is not even seen."""
    orphan = Key("acme", "orphan")
    await rig.backend.create(spec(orphan))
    await seen(rig, orphan)
    bus = MemoryBus()
    await ensure_installation(bus)
    base = plan(sweep_s=0.2)
    for installation, survives in (("theirs", True), (OURS, False)):
        rules = replace(base.rules, installation=installation, orphan_after_s=0)
        mine = replace(base, terms=replace(base.terms, installation=installation), rules=rules)
        async with running(bus, rig.backend, mine):
            if not survives:
                await _until(lambda: _state(orphan) == "exited")
        assert (_state(orphan) == "running") is survives
    assert (rig.workspace(orphan) / "seen.json").exists()
    await bus.close()


async def _until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(what):
            await asyncio.sleep(0.05)


def _state(key: Key) -> str:
    return docker("inspect", "-f", "{{.State.Status}}", container_name(OURS, key, "1-1"))
