"""Lines of an exec, the newest at the bottom."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from sandreel_core.cli.cells import cut
from sandreel_core.cli.top.screen.paint import MOODS, PLAIN
from sandreel_core.cli.top.transcript import Kind

_KINDS: dict[Kind, Style] = {"stdout": PLAIN, "stderr": MOODS["warn"], "remark": Style(color="cyan", dim=True)}


class Body(Widget, can_focus=True):
    """One line of the terminal a line; what is longer is cut, with `…`."""

    DEFAULT_CSS = "Body { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self._lines: Sequence[tuple[Kind, str]] = ()

    def show(self, lines: Sequence[tuple[Kind, str]]) -> None:
        self._lines = lines
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Of Textual's line interface."""
        width, shown = self.size.width, self._lines[-self.size.height :]
        segments = []
        if y < len(shown):
            kind, text = shown[y]
            mark = {"stdout": "  ", "stderr": "! ", "remark": "· "}[kind]
            segments = [Segment(cut(mark + text, width), _KINDS[kind])]
        return Strip(segments).adjust_cell_length(width, PLAIN)
