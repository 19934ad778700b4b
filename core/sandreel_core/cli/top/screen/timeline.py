"""A slider over the time of an exec, from its first event to its last."""

from __future__ import annotations

from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from sandreel_core.cli.top.screen.paint import MOODS, PLAIN

_MARGIN = 1


class Timeline(Widget):
    """`share` 0 to 1. A click jumps there."""

    DEFAULT_CSS = "Timeline { height: 1; }"

    class Clicked(Message):
        def __init__(self, share: float) -> None:
            super().__init__()
            self.share = share

    def __init__(self) -> None:
        super().__init__()
        self._share = 1.0
        self._is_live = True

    def show(self, share: float, *, live: bool) -> None:
        if (share, live) != (self._share, self._is_live):
            self._share, self._is_live = share, live
            self.refresh()

    def on_click(self, event: events.Click) -> None:
        self.post_message(self.Clicked((event.x - _MARGIN) / max(1, self._length - 1)))

    @property
    def _length(self) -> int:
        return max(2, self.size.width - 2 * _MARGIN)

    def render_line(self, y: int) -> Strip:
        """Of Textual's line interface."""
        at = round(self._share * (self._length - 1))
        mood = MOODS["good"] if self._is_live else MOODS["warn"]
        segments = [Segment(" " * _MARGIN), Segment("━" * at, mood), Segment("●", mood)]
        segments.append(Segment("─" * (self._length - 1 - at), MOODS["dim"]))
        return Strip(segments).adjust_cell_length(self.size.width, PLAIN)
