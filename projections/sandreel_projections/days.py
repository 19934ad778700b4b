"""Tables that are partitioned by day: one range partition each, made before the first row of a day comes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from sqlalchemy import Table

from sandreel_projections.database import Connection, translated
from sandreel_projections.source import Record
from sandreel_projections.tables import columns

# Made ahead of the newest day, so that midnight costs nothing.
AHEAD = 2
# Any number that no other advisory lock uses: "days" in ASCII.
_LOCK = 0x64617973


class Days:
    """Which days are known to have their partition, in the schema of the connection's search path."""

    def __init__(self) -> None:
        self._known: dict[str, set[date]] = {}

    async def ensure(self, connection: Connection, table: Table, records: Iterable[Record]) -> None:
        """The days of these records, if the table has days. Outside of a transaction. A few milliseconds for a new
        day, nothing for one that is known.

        Attached rather than created in place: that does not wait for the analysts who are reading.
        """
        at = day_column(table)
        if at is None:
            return
        place = columns(table).index(at)
        known = self._known.setdefault(table.name, set())
        new = {record[place].date() for record in records} - known
        if not new:
            return
        newest = max(new)
        wanted = new | {_after(newest, ahead) for ahead in range(1, AHEAD + 1)}
        with translated():
            for day in sorted(wanted - known):
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                    await _make(connection, table.name, at, day)
        known |= wanted


def day_column(table: Table) -> str | None:
    """The column by whose day (UTC) the table is partitioned; None for one that is not."""
    by: str | None = table.dialect_options["postgresql"]["partition_by"]
    return by.removeprefix("RANGE (").removesuffix(")") if by else None


def _after(day: date, days: int) -> date:
    return day + timedelta(days=days) if day < date(9999, 12, 1) else day


async def _make(connection: Connection, table: str, at: str, day: date) -> None:
    name = f"{table}_{day:%Y%m%d}" if day.year > 999 else f"{table}_{day.year:04}{day:%m%d}"
    if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", name):
        return
    begin, end = day.isoformat(), _after(day, 1).isoformat()
    await connection.execute(
        f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL);"
        f"COMMENT ON TABLE {name} IS 'rows of reel.{table} with {at} on {begin} (UTC)';"
        f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{begin} 00:00+00') TO ('{end} 00:00+00')"
    )
