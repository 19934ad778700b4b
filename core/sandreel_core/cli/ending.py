"""How an exec's end becomes this process's exit code, and a sentence where the code alone would mislead."""

from __future__ import annotations

import signal

from sandreel_core.contract import exec as x

LOST = 125  # how the job ended is not known: the code that docker keeps for itself
NOT_STARTED = 126  # the shell's code for what was found and could not be run
_UNKNOWN_SIGNAL = 128 + 15  # behaviour §1: a signal without a number counts as SIGTERM


def exit_code(end: x.Exited | x.Lost) -> int:
    """The job's own code; 128 + n for signal n; LOST; NOT_STARTED."""
    if isinstance(end, x.Lost):
        return LOST
    if end.exit_code is not None:
        return end.exit_code
    if end.signal is not None:
        return 128 + signal.Signals[end.signal] if end.signal in signal.Signals.__members__ else _UNKNOWN_SIGNAL
    return NOT_STARTED


def remark(end: x.Exited | x.Lost) -> str | None:
    """What a person should hear beside the exit code; None for a job that ended by itself."""
    if isinstance(end, x.Lost):
        return f"the job is lost ({end.cause.replace('_', ' ')}): how it ended is not known (exit code {LOST})"
    if end.oom:
        return "the job ran out of memory"
    match end.reason:
        case "exited":
            return None
        case "spawn_failed":
            return f"the job could not be started: {end.message or 'no reason given'}"
        case "deadline":
            return "the job took longer than its --timeout"
        case "no_output":
            return "the job printed nothing for longer than its --no-output-timeout"
        case "orphaned":
            return "the job was ended because nobody kept it alive"
        case "cancelled":
            return "the job was cancelled"
        case "stopped":
            return "the job was ended because its session stopped"
