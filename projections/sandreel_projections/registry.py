"""Every source of the views, and every table that is made of it. Pure."""

from __future__ import annotations

from sandreel_core.contract.subjects import CMD, reel
from sandreel_projections import (
    command_log,
    credential_log,
    event_log,
    execs,
    ledger,
    outcomes,
    sessions,
    stages,
    tables,
    turn_items,
    turns,
)
from sandreel_projections.change import Change, change
from sandreel_projections.source import Append, Fold, Source

SESSIONS = Fold(
    tables.sessions,
    sessions.SessionRow,
    key=sessions.key,
    key_width=2,
    step=stages.step,
    records=tables.session_stages,
    topic="session",
)
EXECS = Fold(
    tables.execs,
    execs.ExecRow,
    key=execs.key,
    key_width=3,
    step=execs.step,
    skip=execs.skip,
    records=tables.exec_blocks,
    topic="exec",
)
OUTCOMES = Fold(tables.command_outcomes, outcomes.OutcomeRow, key=outcomes.key, key_width=3, step=outcomes.step)
EXEC_EVENTS = Fold(
    tables.exec_events, event_log.ExecEventRow, key=event_log.key, key_width=4, step=event_log.step, topic="exec"
)
# A row has up to 30 KB: what was said last, and a plan.
TURNS = Fold(tables.turns, turns.TurnRow, key=turns.key, key_width=3, step=turns.step, topic="turn", remembered=1000)
TURN_ITEMS = Append(tables.turn_items, turn_items.record, topic="turn")
CREDENTIALS = Append(tables.credential_log, credential_log.record, topic="credential")
CALLS = Fold(tables.usage_calls, ledger.CallRow, key=ledger.call_key, key_width=3, step=ledger.call, topic="usage")
RECONCILED = Fold(
    tables.usage_reconciled,
    ledger.ReconciledRow,
    key=ledger.reconciled_key,
    key_width=3,
    step=ledger.reconciled,
    topic="usage",
)
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
        folds=(EXECS, SESSIONS, OUTCOMES, EXEC_EVENTS, TURNS, CALLS, RECONCILED),
        appends=(EVENTS, TURN_ITEMS, CREDENTIALS),
        problem=_problem,
        topic=_topic,
    )


def sources(partitions: int) -> tuple[Source, ...]:
    """All that the projector reads."""
    return (*(reel_source(partition) for partition in range(partitions)), COMMANDS)


def _topic(change: Change) -> str:
    return change.where.aggregate


def _problem(change: Change) -> str:
    """An exec's fold says it itself, for a repeat of what cannot be read is none; but without an ordinal an event of an
    exec is nothing to any fold."""
    if change.where.aggregate != "exec":
        return change.problem
    return "an event of an exec without an ordinal" if change.envelope.n is None else ""
