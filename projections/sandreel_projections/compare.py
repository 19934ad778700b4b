"""Whether two schemas hold the same rows, and where they first differ.

Both servers' sides are read in the order of the table's key, a key and a digest of the row at a time, so that tables
of any size are compared in bounded memory; only of the first rows that differ the values are fetched.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Integer, Table, Text

from sandreel_projections.database import Connection, translated
from sandreel_projections.tables import columns, key_of

# Differences whose values are fetched, of each table; all are counted.
NAMED = 10
_PAGE_ROWS = 2000
# What says the place of a record in a table that has no primary key: one event makes at most one.
_PLACE = ("stream", "partition", "sequence")

Keyed = tuple[tuple[Any, ...], int]


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs. `column` is empty for a row that only one side has; then the value of the side that has
    it is its key."""

    table: str
    key: dict[str, Any]
    column: str
    live: Any
    rebuilt: Any


@dataclass(slots=True)
class Comparison:
    """What was found in one table: `rows` are those of the live side, `differing` counts every row that differs."""

    table: str
    rows: int = 0
    differing: int = 0
    first: list[Difference] = field(default_factory=list)


def order_of(table: Table) -> tuple[str, ...]:
    """The columns that tell its rows apart: its primary key, else the place of the event, else all that could."""
    sure = [column for column in table.columns if not column.nullable]
    place = tuple(column.name for column in sure if column.name in _PLACE)
    return (
        key_of(table)
        or (place if "sequence" in place else ())
        or tuple(column.name for column in sure if isinstance(column.type, Text | Integer))
    )


async def compare(live: Connection, rebuilt: Connection, table: Table) -> Comparison:
    """Row by row. Both connections are in a transaction of their own that sees one moment.

    Raises as `translated` does.
    """
    found = Comparison(table.name)
    theirs, ours = _digests(live, table), _digests(rebuilt, table)
    async with aclosing(theirs), aclosing(ours):
        left, right = await anext(theirs, None), await anext(ours, None)
        while left is not None or right is not None:
            key = _smaller(left, right)
            has_left = left is not None and left[0] == key
            has_right = right is not None and right[0] == key
            if not (has_left and has_right and left == right):
                found.differing += 1
                if found.differing <= NAMED:
                    found.first += await _differences(live, rebuilt, table, key)
            if has_left:
                found.rows += 1
                left = await anext(theirs, None)
            if has_right:
                right = await anext(ours, None)
    return found


def _smaller(left: Keyed | None, right: Keyed | None) -> tuple[Any, ...]:
    keys = [side[0] for side in (left, right) if side is not None]
    return min(keys)


async def _digests(connection: Connection, table: Table) -> AsyncGenerator[Keyed, None]:
    names = order_of(table)
    # In the order that Python has too; and digests are made before the rows are sorted, so that no row is.
    order = [f'{name} COLLATE "C"' if isinstance(table.columns[name].type, Text) else name for name in names]
    statement = (
        f"SELECT * FROM (SELECT {', '.join(names)}, hash_record_extended(ROW({', '.join(columns(table))}), 0) AS digest"  # noqa: S608 - names of our own tables
        f" FROM {table.name} OFFSET 0) AS t ORDER BY {', '.join(order)}, digest"
    )
    with translated():
        async for record in connection.cursor(statement, prefetch=_PAGE_ROWS):
            values = tuple(record)
            yield values[:-1], values[-1]


async def _differences(live: Connection, rebuilt: Connection, table: Table, key: Sequence[Any]) -> list[Difference]:
    names = order_of(table)
    where = " AND ".join(f"{name} = ${i}" for i, name in enumerate(names, 1))
    statement = f"SELECT {', '.join(columns(table))} FROM {table.name} WHERE {where}"  # noqa: S608 - our own tables
    with translated():
        rows = [await connection.fetchrow(statement, *key) for connection in (live, rebuilt)]
    place = dict(zip(names, key, strict=True))
    theirs, ours = rows
    if theirs is None or ours is None:
        present = ", ".join(map(str, key))
        return [Difference(table.name, place, "", present if theirs else None, present if ours else None)]
    return [
        Difference(table.name, place, name, theirs[name], ours[name])
        for name in columns(table)
        if theirs[name] != ours[name]
    ]
