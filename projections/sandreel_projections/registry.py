"""Every source of the views, and every table that is made of it. Pure."""

from __future__ import annotations

from sandreel_core.contract.subjects import CMD, reel
from sandreel_projections import command_log, event_log, execs, ops, outcomes, sessions, stages, tables
from sandreel_projections.change import Change, change
from sandreel_projections.source import Append, Fold, Source

SESSIONS = Fold(
    tables.sessions,
    sessions.SessionRow,
    key=sessions.key,
    key_width=2,
    step=stages.step,
    records=tables.session_stages,
)
EXECS = Fold(
    tables.execs,
    execs.ExecRow,
    key=execs.key,
    key_width=3,
    step=execs.step,
    skip=execs.skip,
    records=tables.exec_blocks,
)
OUTCOMES = Fold(tables.command_outcomes, outcomes.OutcomeRow, key=outcomes.key, key_width=3, step=outcomes.step)
EXEC_EVENTS = Fold(tables.exec_events, event_log.ExecEventRow, key=event_log.key, key_width=4, step=event_log.step)
OPS = Fold(tables.ops, ops.OpRow, key=ops.key, key_width=3, step=ops.step)
EVENTS = Append(tables.event_log, event_log.event)
COMMANDS = Source(
    CMD,
    ("cmd.>",),
    None,
    decode=command_log.asked,
    folds=(Fold(tables.command_log, command_log.CommandRow, key=command_log.key, key_width=3, step=command_log.step),),
    forgets=True,
)


def reel_source(partition: int) -> Source:
    """One partition of the log."""
    return Source(
        reel(partition),
        (f"evt.{partition}.>",),
        partition,
        decode=change,
        folds=(EXECS, SESSIONS, OUTCOMES, EXEC_EVENTS, OPS),
        appends=(EVENTS,),
        problem=_problem,
    )


def sources(partitions: int) -> tuple[Source, ...]:
    """All that the projector reads."""
    return (*(reel_source(partition) for partition in range(partitions)), COMMANDS)


def _problem(change: Change) -> str:
    """An exec's fold says it itself, for a repeat of what cannot be read is none; but without an ordinal an event of an
    exec is nothing to any fold."""
    if change.where.aggregate != "exec":
        return change.problem
    return "an event of an exec without an ordinal" if change.envelope.n is None else ""
