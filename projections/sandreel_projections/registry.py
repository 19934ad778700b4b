"""Every source of the views, and every table that is made of it. Pure."""

from __future__ import annotations

from sandreel_core.contract.subjects import reel
from sandreel_projections import execs, sessions, tables
from sandreel_projections.change import Change, change
from sandreel_projections.source import Fold, Source

SESSIONS = Fold(tables.sessions, sessions.SessionRow, key=sessions.key, key_width=2, step=sessions.step)
EXECS = Fold(
    tables.execs,
    execs.ExecRow,
    key=execs.key,
    key_width=3,
    step=execs.step,
    skip=execs.skip,
    records=tables.exec_blocks,
)


def reel_source(partition: int) -> Source:
    """One partition of the log."""
    return Source(
        reel(partition),
        (f"evt.{partition}.>",),
        partition,
        decode=change,
        folds=(EXECS, SESSIONS),
        problem=_problem,
    )


def sources(partitions: int) -> tuple[Source, ...]:
    """All that the projector reads."""
    return tuple(reel_source(partition) for partition in range(partitions))


def _problem(change: Change) -> str:
    """An exec's fold says it itself: a repeat of what cannot be read is none."""
    return "" if change.where.aggregate == "exec" else change.problem
