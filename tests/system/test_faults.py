"""SIGKILL of everything that is not the recorder, in the middle of the output: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.system import Site, open_site
from tests.support.system_readers import reading

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("faults"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with open_site() as site:
        yield site


@pytest.mark.parametrize(
    "victims",
    [
        ("spawner",),
        ("projector",),
        ("nats",),
        ("postgres",),
        ("spawner", "projector"),
        ("spawner", "nats"),
        ("projector", "nats"),
        ("projector", "postgres"),
        ("nats", "postgres"),
    ],
    ids="+".join,
)
async def test_killed_in_the_middle_of_the_output(site: Site, victims: tuple[str, ...]) -> None:
    job = await site.job(await site.session())
    watcher, attached = site.watcher(job), site.attached(job)
    async with reading(watcher, attached):
        await asyncio.gather(watcher.more(), attached.more())
        await site.kill(*victims)
        await asyncio.gather(watcher.more(), attached.more())
        job.enough()

    await site.check_job(job, (watcher, attached))
