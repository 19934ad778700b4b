"""The life of a grant: none → granted → leased → revoked. Pure; leases and recipes belong to the broker."""

from __future__ import annotations

from typing import Literal

from sandreel_core.contract import credential as c

Phase = Literal["none", "granted", "leased", "revoked"]

TRANSITIONS: dict[str, dict[Phase, Phase]] = {
    c.Granted.type: {"none": "granted", "revoked": "granted"},
    c.Leased.type: {"granted": "leased", "leased": "leased"},
    c.Revoked.type: {"granted": "revoked", "leased": "revoked"},
}


def evolve(phase: Phase, event_type: str) -> Phase:
    """The phase after an event of this type; what does not fit changes nothing."""
    return TRANSITIONS.get(event_type, {}).get(phase, phase)
