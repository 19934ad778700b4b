"""A stream that fills up: output is held while lifecycle events still fit, children wait, the archive brings space back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sandreel_core.errors import Refused
from tests.support.program import sandreel
from tests.support.system import ORG, STREAM, Site, open_site, until
from tests.support.system_readers import reading

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("full"), pytest.mark.timeout(180)]
MAX_BYTES, SPOOL_BYTES = 32 << 20, 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with open_site(
        SANDREEL_BUS_REEL_MAX_BYTES=str(MAX_BYTES), SANDREEL_SPAWNER_RUNNERD_SPOOL_BYTES=str(SPOOL_BYTES)
    ) as site:
        yield site


async def share(site: Site) -> float:
    """How full the stream is."""
    return (await site.client.bus.state(STREAM)).bytes / MAX_BYTES


async def fill(site: Site, session: str, name: str, upto: float) -> None:
    """A job that fills the stream up to this share of it, and ends."""
    job = await site.job(session, name, wave=500, pause_s=0.01)

    async def filled() -> bool:
        return await share(site) >= upto

    await until(filled, f"the stream is {upto:.0%} full", timeout_s=60)
    job.enough()
    watcher = site.watcher(job)
    async with reading(watcher):
        pass
    assert watcher.wrong == []
    await site.projected()  # what the views have not read is not archived


async def archive_all(site: Site) -> str:
    """What `sandreel archive --all` says."""
    done = await sandreel(site.data, "archive", "--all")
    assert done.code == 0, done.said
    return done.said


async def test_at_ninety_percent_output_is_held_and_the_archive_brings_space_back(site: Site) -> None:
    session = await site.session()
    await fill(site, session, "filler", 0.86)
    job = await site.job(session, "held", pause_s=0.05)
    watcher = site.watcher(job)
    async with reading(watcher):
        await site.heartbeat(session, lambda beat: beat.held, timeout_s=60)
        job.faster()
        await site.waits(job)
        assert await share(site) < 1, "it was held too late"
        assert (await site.client.pin(ORG, session)).state.pinned, "lifecycle events do not fit"
        stuck = watcher.size
        said = await archive_all(site)
        assert "1 execs" in said
        assert await share(site) < 0.5
        await watcher.seen(stuck + 2 * SPOOL_BYTES)  # more than had been spooled
        job.enough()

    await site.check_job(job, (watcher,))
    with pytest.raises(Refused, match="DUPLICATE_EXEC"):
        await site.job(session, "filler")


async def test_a_stream_that_is_full_makes_the_child_wait_and_loses_nothing(site: Site) -> None:
    session = await site.session()
    await archive_all(site)
    await fill(site, session, "filler", 0.8)
    job = await site.job(session, "flood", pause_s=0, wave=1000)
    watcher = site.watcher(job)
    async with reading(watcher):
        await site.waits(job)
        assert await share(site) > 0.89
        stuck = watcher.size
        await site.kill("spawner", "projector")
        await archive_all(site)
        await watcher.seen(stuck + 2 * SPOOL_BYTES, timeout_s=80)
        job.enough()

    await site.check_job(job, (watcher,))
