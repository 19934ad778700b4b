"""Moods as styles, in the terminal's own sixteen colours: they suit the operator's theme, and NO_COLOR takes them away."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from sandreel_core.cli.cells import columns_of
from sandreel_core.cli.top.header import Piece

PLAIN = Style()
MOODS = {
    "": PLAIN,
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "dim": Style(dim=True),
}
_STATES = {
    **dict.fromkeys(("ready", "running"), MOODS["good"]),
    **dict.fromkeys(("degraded", "lost"), MOODS["warn"]),
    "failed": MOODS["bad"],
    **dict.fromkeys(("exited", "stopped", "destroyed", "none"), MOODS["dim"]),
}
_BETWEEN = "  "


def style_of(state: str, ending: str) -> Style:
    """An exec that failed stands out from those that went well."""
    if state == "exited" and ending != "0":
        return MOODS["warn"]
    return _STATES.get(state, PLAIN)


def strip_of(pieces: Sequence[Piece], width: int) -> Strip:
    """The pieces side by side, as many as there is room for."""
    segments: list[Segment] = []
    used = 0
    for piece in pieces:
        text = (_BETWEEN if segments else " ") + piece.text
        if segments and used + columns_of(text) > width:
            break
        segments.append(Segment(text, MOODS[piece.mood]))
        used += columns_of(text)
    return Strip(segments).adjust_cell_length(width, PLAIN)
