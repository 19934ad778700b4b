"""The days of `reel.exec_blocks`: one range partition each, made before the first row of a day comes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from sandreel_projections.database import Connection, translated

# Made ahead of the newest day, so that midnight costs nothing.
AHEAD = 2
# Any number that no other advisory lock uses.
_LOCK = 0x64617973


class Days:
    """Which days are known to have their partition."""

    def __init__(self) -> None:
        self._known: set[date] = set()

    async def ensure(self, connection: Connection, days: Iterable[date]) -> None:
        """Outside of a transaction. A few milliseconds for a new day, nothing for one that is known.

        Attached rather than created in place: that does not wait for the analysts who are reading.
        """
        new = set(days) - self._known
        if not new:
            return
        newest = max(new)
        wanted = new | {_after(newest, ahead) for ahead in range(1, AHEAD + 1)}
        with translated():
            for day in sorted(wanted - self._known):
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                    await _make(connection, day)
        self._known |= wanted


def _after(day: date, days: int) -> date:
    return day + timedelta(days=days) if day < date(9999, 12, 1) else day


async def _make(connection: Connection, day: date) -> None:
    name = f"exec_blocks_{day:%Y%m%d}" if day.year > 999 else f"exec_blocks_{day.year:04}{day:%m%d}"
    if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"reel.{name}"):
        return
    begin, end = day.isoformat(), _after(day, 1).isoformat()
    await connection.execute(
        f"CREATE TABLE reel.{name} (LIKE reel.exec_blocks INCLUDING ALL);"
        f"COMMENT ON TABLE reel.{name} IS 'blocks of reel.exec_blocks that were stored on {begin} (UTC)';"
        f"ALTER TABLE reel.exec_blocks ATTACH PARTITION reel.{name}"
        f" FOR VALUES FROM ('{begin} 00:00+00') TO ('{end} 00:00+00')"
    )
