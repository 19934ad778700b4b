"""What the rebuilt views have in common with the live ones, which of them cannot be compared, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Table

from sandreel_projections import schemas, tables
from sandreel_projections.compare import Comparison, compare
from sandreel_projections.database import Connection, connected, translated
from sandreel_projections.order import Order, Uncompared
from sandreel_projections.replay import Replay
from sandreel_projections.report import Report
from sandreel_projections.schemas import FRESH
from sandreel_projections.swap import live_cursors
from sandreel_projections.tables import SCHEMA
from sandreel_projections.writer import Reached


@dataclass(frozen=True, slots=True)
class Verdict:
    """compared    one for each table of which both sides are of the same stream
    uncompared  live tables with rows that there is nothing to compare with
    only_live, only_rebuilt  events that are in quarantine on one side alone
    """

    compared: list[Comparison]
    uncompared: list[Uncompared]
    only_live: int
    only_rebuilt: int

    def lets(self, order: Order) -> bool:
        """Whether the rebuilt views may take the place of the live ones: what is not known to be the same needs an
        operator's word, for each of the two reasons its own."""
        differing = any(each.differing for each in self.compared)
        return not (
            order.compare_only
            or (differing and not order.accept_differences)
            or (self.uncompared and not order.accept_uncompared)
        )


async def judge(
    dsn: str, replays: Sequence[Replay], report: Report, *, whole: bool, moved: Callable[[], None]
) -> Verdict:
    """Both sides at exactly the same cursors: the live one as of one moment, the other brought to it.

    whole  every view is rebuilt, and with them the quarantine
    moved  called after each table
    """
    written = {table.name: table for replay in replays for table in replay.source.tables}
    wanted = [*written.values(), tables.quarantine] if whole else [*written.values()]
    async with connected(dsn, "rebuild compares", SCHEMA) as live:
        with translated():
            await live.transaction(isolation="repeatable_read", readonly=True).start()
        there = await schemas.columns_of(live, SCHEMA)
        cursors = await live_cursors(live)
        others = [replay for replay in replays if not is_of(cursors, replay)]
        for replay in replays:
            if replay not in others:
                reached = cursors[replay.source.stream]
                await replay.to(reached.sequence, reached.at)
        # What is made of other streams alone is compared all the same. Every stream writes to the quarantine.
        unlike = {table.name for each in others for table in each.source.tables}
        unlike |= {tables.quarantine.name} if others else set()
        found, uncompared = [], []
        async with connected(dsn, "rebuild compares", FRESH) as rebuilt:
            with translated():
                await rebuilt.transaction(isolation="repeatable_read", readonly=True).start()
            for table in wanted:
                if table.name not in there:
                    report.say(
                        "not_there",
                        f"{SCHEMA}.{table.name} is not there: nothing to compare with",
                        table=table.name,
                    )
                elif table.name not in unlike:
                    found.append(await compare(live, rebuilt, table))
                elif await _has_rows(live, table):
                    uncompared.append(Uncompared(table.name, _why(cursors, others)))
                moved()
            counts = await _quarantined(rebuilt) if tables.quarantine.name in there else (0, 0)
    return Verdict(found, uncompared, *counts)


def is_of(cursors: dict[str, Reached], replay: Replay) -> bool:
    """Whether the live views are made of the same stream."""
    reached = cursors.get(replay.source.stream)
    return reached is not None and reached.epoch == replay.epoch


def _why(cursors: dict[str, Reached], others: Sequence[Replay]) -> str:
    """For people, of all streams that the live views are not of."""
    said = []
    for replay in others:
        stream, reached = replay.source.stream, cursors.get(replay.source.stream)
        what = "no live cursor says what they were made from" if reached is None else f"made from epoch {reached.epoch}"
        said.append(f"{stream} is of epoch {replay.epoch}, {what}")
    return "; ".join(said)


async def _has_rows(live: Connection, table: Table) -> bool:
    with translated():
        return bool(await live.fetchval(f"SELECT EXISTS (SELECT FROM {table.name})"))  # noqa: S608 - our own


async def _quarantined(rebuilt: Connection) -> tuple[int, int]:
    """Events up to the rebuild's cursors that are in quarantine only on the live side, and only on the rebuilt one."""
    with translated():
        [row] = await rebuilt.fetch(_QUARANTINED)
    return row[0], row[1]


_QUARANTINED = f"""
WITH live AS (
    SELECT q.stream, q.epoch, q.sequence FROM {SCHEMA}.quarantine AS q
    JOIN {FRESH}.cursors AS c ON c.stream = q.stream AND c.epoch = q.epoch AND q.sequence <= c.sequence
), rebuilt AS (SELECT stream, epoch, sequence FROM {FRESH}.quarantine)
SELECT (SELECT count(*) FROM (TABLE live EXCEPT TABLE rebuilt) AS a),
       (SELECT count(*) FROM (TABLE rebuilt EXCEPT TABLE live) AS b)"""  # noqa: S608 - our own
