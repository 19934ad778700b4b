"""What happens to sessions when the engine itself is restarted, killed or out of room: really, with an engine of its own."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.errors import Unavailable
from tests.docker.test_deaths import BUSY_S, PROMISED_S, ready
from tests.support import own_engine
from tests.support.own_engine import OwnEngine, own_rig
from tests.support.rigs import KEY, seen, spec, status

pytestmark = [
    pytest.mark.skipif(own_engine.missing() is not None, reason=str(own_engine.missing())),
    pytest.mark.timeout(180),
    # The SDK forgets to close a socket with which it could not connect.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_law_2_a_restart_of_the_engine_ends_what_ran_with_that_cause(tmp_path: Path, how: signal.Signals) -> None:
    async with own_rig(tmp_path) as (engine, rig), ready(rig) as hand:
        await engine.end(how)
        await engine.start()
        began = time.monotonic()
        stopped = await hand.until(s.Stopped)
        lost = await hand.until(x.Lost, aggregate="exec", id="open")
        took_s = time.monotonic() - began
        assert (stopped.reason, lost.cause) == ("engine", "container_exit")
        assert took_s < BUSY_S, f"promised is {PROMISED_S:g} s after it answers"
        # And the files are there for the next boot.
        (rig.workspace(KEY) / "seen.json").unlink()
        await hand.send(s.Resume())
        await hand.until(s.Provisioned, where=lambda event: event.boot == 2)
        await seen(rig)


async def test_a_full_disk_is_said_leaves_nothing_and_passes(tmp_path: Path) -> None:
    async with own_rig(tmp_path) as (engine, rig):
        await rig.backend.create(spec())  # caches and the network are there
        await seen(rig)
        other = KEY._replace(session="two")
        before = engine.left()
        with filled(engine):
            with pytest.raises(Unavailable, match=r"the engine's disk is full: .*no space left on device") as full:
                await rig.backend.create(spec(other))
            assert "\n" not in str(full.value)
        assert engine.left() == before
        assert await status(rig) == "running"
        await rig.backend.create(spec(other))
        await seen(rig, other)


@contextmanager
def filled(engine: OwnEngine) -> Iterator[None]:
    """No byte is free on its disk."""
    ballast = engine.disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        yield
    finally:
        ballast.unlink()
