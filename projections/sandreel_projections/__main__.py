"""`python -m sandreel_projections`: keeps the views of every source. Any number may run; one writes each."""

from __future__ import annotations

import asyncio
import sys

from sandreel_core.runtime import Role, run_role
from sandreel_projections.follower import Pace
from sandreel_projections.measures import ProjectionMeasures
from sandreel_projections.projector import Projector
from sandreel_projections.queries import required
from sandreel_projections.registry import sources
from sandreel_projections.settings import Projections


async def project(role: Role[Projections]) -> None:
    """Until it is cancelled. Raises Misconfigured when a stream is not the one that the views were made from."""
    settings = role.settings
    dsn = required(settings.postgres.dsn)
    pace = Pace(settings.max_batch_events, settings.max_batch_bytes, settings.look_s)
    measures = ProjectionMeasures(role.metrics, role.health)
    projectors = [
        Projector(role.bus, dsn, source, pace=pace, measures=measures)
        for source in sources(role.installation.partitions)
    ]
    async with asyncio.TaskGroup() as group:
        for projector in projectors:
            group.create_task(projector.run())
        leading = group.create_task(_led(projectors))
        await leading
        role.ready()


async def _led(projectors: list[Projector]) -> None:
    """When each source is written, by us or by the one that we stand by for."""
    for projector in projectors:
        waits = [asyncio.ensure_future(event.wait()) for event in (projector.leading, projector.standby)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


if __name__ == "__main__":
    sys.exit(run_role("projections", Projections, project))
