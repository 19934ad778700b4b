"""The one word in which people read how a session is. Pure; `reel.session_states` says the same, and a test compares.

    Starting     it is being made, booted or woken
    Ready        it is up, and nothing runs in it
    Working      it is up, and an exec or a turn of an agent runs in it
    Sleeping     it is stopped, or about to be; its workspace is kept, and it wakes when it is needed
    Recovering   it is up and not heard, or its last boot went wrong: the next turn or a resume boots it anew
    Always-on    it is up, nothing runs in it, and it is pinned: neither idleness nor age stops it

A session that is destroyed, or about to be, has no word.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from sandreel_core.session import Phase

Word: TypeAlias = Literal["Starting", "Ready", "Working", "Sleeping", "Recovering", "Always-on"]

_WORDS: dict[Phase, Word] = {
    "requested": "Starting",
    "provisioning": "Starting",
    "resuming": "Starting",
    "degraded": "Recovering",
    "failed": "Recovering",
    "stopping": "Sleeping",
    "stopped": "Sleeping",
}


def word(phase: Phase, *, pinned: bool, working: bool) -> Word | None:
    """`working`: an exec of it has not ended, or a turn has not finished."""
    if phase == "ready":
        return "Working" if working else "Always-on" if pinned else "Ready"
    return _WORDS.get(phase)
