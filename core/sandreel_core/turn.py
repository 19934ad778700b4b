"""The life of an agent turn: requested → running → finished. Pure.

The table is what the session sweep and the views need to know; how a turn is driven belongs to the bridge.
"""

from __future__ import annotations

from typing import Literal

from sandreel_core.contract import turn as c

Phase = Literal["none", "requested", "running", "finished"]

TRANSITIONS: dict[str, dict[Phase, Phase]] = {
    c.TurnRequested.type: {"none": "requested"},
    c.TurnStarted.type: {"requested": "running"},
    c.TurnFinished.type: {"requested": "finished", "running": "finished"},
}


def evolve(phase: Phase, event_type: str) -> Phase:
    """The phase after an event of this type; what does not fit changes nothing."""
    return TRANSITIONS.get(event_type, {}).get(phase, phase)
