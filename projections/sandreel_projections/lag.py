"""How far the views are behind the log, for screens of other packages (entry point `sandreel.lags`)."""

from __future__ import annotations

from sandreel_core.cli.lag import Lag
from sandreel_projections.queries import select

_WITHIN_S = 5.0
_STATEMENT = "SELECT stream, lag_events, lag_s, looked_s_ago, quarantined_events FROM reel.projection_lag"


async def lags(dsn: str) -> list[Lag]:
    """One a stream that a projector has read. Raises Unavailable when the views cannot be reached, Malformed when they are
    not there."""
    async with select(dsn, _STATEMENT, timeout_s=_WITHIN_S) as answer:
        return [
            Lag(stream=stream, events=events, seconds=seconds, looked_s_ago=looked_s_ago, quarantined=quarantined)
            async for stream, events, seconds, looked_s_ago, quarantined in answer.rows
        ]
