"""Every message type there is, by its CloudEvents type. A new message is listed here and nowhere else."""

from __future__ import annotations

from sandreel_core.contract import agent as a
from sandreel_core.contract import credential as c
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract import turn as t
from sandreel_core.contract import usage as u
from sandreel_core.contract import workspace as w
from sandreel_core.contract.message import Command, Event

CONTRACT_VERSION = 1

COMMANDS: dict[str, type[Command]] = {
    kind.type: kind
    for kind in (
        *(s.Create, s.Stop, s.Resume, s.Destroy, s.Pin, s.Unpin, s.Extend),
        *(x.Start, x.WriteStdin, x.Signal, x.Cancel, x.Resize, x.Keepalive, w.PatchEnv),
        *(c.Grant, c.Ungrant, c.Revoke),
        *(t.StartTurn, t.Steer, t.Interrupt, t.Approve, t.Reject),
    )
}

EVENTS: dict[str, type[Event]] = {
    kind.type: kind
    for kind in (
        *(s.Requested, s.Provisioned, s.Ready, s.Degraded, s.Recovered, s.Stopping, s.Stopped, s.Resuming),
        *(s.Destroying, s.Destroyed, s.Failed, s.Pinned, s.Unpinned, s.Extended),
        *(s.CommandRefused, s.CommandSettled),
        *(x.Accepted, x.Started, x.Output, x.Progress, x.StdinWritten, x.Signalled, x.Resized, x.Truncated, x.Gap),
        *(x.Throttled, x.Exited, x.Lost),
        *(w.EnvPatched, w.FileWritten, w.FileDeleted),
        *(c.Granted, c.Leased, c.LeaseRefused, c.Revoked, c.Outlived),
        *(t.TurnRequested, t.TurnPreparing, t.TurnStarted, t.TurnInterrupting, t.TurnFinished, t.Checkpoint),
        *(t.SteerQueued, t.SteerDelivered, t.SteerConsumed, t.SteerRequeued),
        *(t.PlanProposed, t.PlanApproved, t.PlanRejected),
        *(a.RunStarted, a.AgentText, a.ToolUse, a.ToolResult, a.AgentUsage, a.AgentResult, a.AgentError),
        *(a.TaskStarted, a.TaskSettled, a.AgentRaw),
        *(u.UsageRecorded, u.UsageReconciled, u.EgressDenied),
    )
}

# `command.refused` and `command.settled` answer a command on whatever subject its role decides on.
ANSWERS = (s.CommandRefused, s.CommandSettled)


def belongs(kind: type[Event], aggregate: str) -> bool:
    """Whether an event of this type may stand on a subject of this aggregate."""
    return kind in ANSWERS or kind.aggregate == aggregate
