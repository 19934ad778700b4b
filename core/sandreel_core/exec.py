"""The life of an exec as everybody but its runnerd sees it: accepted → running → exited | lost.

Pure. Fed only with events that `Ordinals` has accepted. (How runnerd itself runs one is
`sandreel_runnerd/exec.py`.)
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from sandreel_core.contract import exec as c
from sandreel_core.contract.message import Envelope

Phase = Literal["none", "accepted", "running", "exited", "lost"]

TRANSITIONS: dict[str, dict[Phase, Phase]] = {
    c.Accepted.type: {"none": "accepted"},
    c.Started.type: {"accepted": "running"},
    # From none where nothing that stands before it could be taken.
    c.Exited.type: {"none": "exited", "accepted": "exited", "running": "exited"},
    # From none as well: a start that a dead boot left unanswered is closed with n = 1.
    c.Lost.type: {"none": "lost", "accepted": "lost", "running": "lost"},
}
ENDED: tuple[Phase, ...] = ("exited", "lost")


class Exec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the log says about one exec."""

    phase: Phase = "none"
    boot_id: str = ""
    accepted_at: datetime | None = None
    ended_at: datetime | None = None
    started: c.Started | None = None
    exited: c.Exited | None = None
    lost: c.Lost | None = None
    lines: dict[str, int] = {}
    bytes: dict[str, int] = {}
    gaps: int = 0

    @property
    def ended(self) -> bool:
        return self.phase in ENDED


def evolve(state: Exec, event: Envelope) -> Exec:
    """Fold one accepted event. Never raises; what does not fit changes nothing."""
    data = event.data
    if isinstance(data, c.Output):
        return replace(
            state,
            lines=state.lines | {data.stream: state.lines.get(data.stream, 0) + data.count},
            bytes=state.bytes | {data.stream: state.bytes.get(data.stream, 0) + size_bytes(data)},
        )
    if isinstance(data, c.Gap):
        state = replace(state, gaps=state.gaps + 1)
        if state.phase == "none" and data.from_n == 1:  # what accepted it is gone with a restored log
            return replace(state, phase="accepted", boot_id=c.writer_of(event.source))
        return state
    phase = TRANSITIONS.get(event.type, {}).get(state.phase)
    if phase is None:
        return state
    match data:
        case c.Accepted():
            return replace(state, phase=phase, boot_id=data.boot_id, accepted_at=event.time)
        case c.Started():
            return replace(state, phase=phase, started=data)
        case c.Exited():
            return replace(state, phase=phase, exited=data, ended_at=event.time)
        case c.Lost():
            return replace(state, phase=phase, lost=data, ended_at=event.time)
    return state


def size_bytes(block: c.Output) -> int:
    """How many bytes of the stream it stands for."""
    text = block.text
    if text is not None:
        return len(text) if text.isascii() else len(text.encode())
    base64 = block.base64 or ""
    return len(base64) // 4 * 3 - base64[-2:].count("=")
