"""The table. Only the rows that can be seen are drawn, so that a frame costs the same for ten rows and for thousands."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from sandreel_core.cli.cells import fitted
from sandreel_core.cli.top.columns import Column, cells, layout
from sandreel_core.cli.top.order import Order
from sandreel_core.cli.top.row import Row
from sandreel_core.cli.top.screen.paint import MOODS, PLAIN, style_of

_TITLE = Style(bold=True, underline=True)
_CHOSEN = Style(reverse=True)


class Grid(Widget, can_focus=True):
    """The cursor stays on its row, wherever that goes."""

    DEFAULT_CSS = "Grid { height: 1fr; }"
    BINDINGS = [
        Binding("up,k", "move(-1)"),
        Binding("down,j", "move(1)"),
        Binding("pageup", "page(-1)"),
        Binding("pagedown", "page(1)"),
        Binding("home", "move(-1000000)"),
        Binding("end", "move(1000000)"),
        Binding("enter", "open"),
    ]

    class Opened(Message):
        """Enter was pressed on a row. A session stands for its exec that was heard of last."""

        def __init__(self, row: Row) -> None:
            super().__init__()
            self.row = row

    def __init__(self, order: Order) -> None:
        super().__init__()
        self._order = order
        self._rows: Sequence[Row] = ()
        self._columns: list[tuple[Column, int]] = []
        self._at = 0
        self._top = 0
        self._empty = "nothing has been read yet"

    @property
    def chosen(self) -> Row | None:
        return self._rows[self._at] if self._rows else None

    @property
    def place(self) -> str:
        return f"{self._at + 1}/{len(self._rows)}" if self._rows else "0/0"

    def show(self, rows: Sequence[Row], order: Order, *, empty: str) -> None:
        """These rows; what there is to say when there are none."""
        chosen, self._order, self._empty = self.chosen, order, empty
        self._rows = rows
        self._columns = layout(list(rows), self.size.width)
        if chosen is not None:
            at = next((at for at, row in enumerate(rows) if row.key == chosen.key), None)
            if at is not None:
                self._top += at - self._at
                self._at = at
        self._keep_in_sight()
        self.refresh()

    def action_move(self, by: int) -> None:
        self._at += by
        self._keep_in_sight()
        self.refresh()

    def action_page(self, pages: int) -> None:
        self.action_move(pages * max(1, self._height - 1))

    def action_open(self) -> None:
        if self.chosen is not None:
            self.post_message(self.Opened(self.chosen))

    def on_click(self, event: events.Click) -> None:
        """A click chooses, a second one opens."""
        at = self._top + event.y - 1
        if event.y and at < len(self._rows):
            again = at == self._at
            self._at = at
            self.refresh()
            if again:
                self.action_open()

    def on_resize(self, event: events.Resize) -> None:
        self._columns = layout(list(self._rows), event.size.width)
        self._keep_in_sight()

    @property
    def _height(self) -> int:
        return max(1, self.size.height - 1)

    def _keep_in_sight(self) -> None:
        self._at = max(0, min(self._at, len(self._rows) - 1))
        last = max(0, len(self._rows) - self._height)
        self._top = max(0, min(last, max(self._at - self._height + 1, min(self._top, self._at))))

    def render_line(self, y: int) -> Strip:
        """Of Textual's line interface."""
        width = self.size.width
        if y == 0:
            return Strip(self._titles()).adjust_cell_length(width, PLAIN)
        at = self._top + y - 1
        if at >= len(self._rows):
            note = [Segment(f" {self._empty}", MOODS["dim"])] if not self._rows and y == 2 else []
            return Strip(note).adjust_cell_length(width, PLAIN)
        strip = Strip(self._segments(self._rows[at])).adjust_cell_length(width, PLAIN)
        return strip.apply_style(_CHOSEN) if at == self._at and self.has_focus else strip

    def _titles(self) -> list[Segment]:
        segments = []
        for column, width in self._columns:
            text = fitted(column.title, width, right=column.right)
            falls = column.descending is not self._order.reverse
            mark = ("▼" if falls else "▲") if column.name == self._order.by else " "
            segments += [Segment(text, _TITLE), Segment(mark)]
        return segments

    def _segments(self, row: Row) -> list[Segment]:
        base = Style(bold=True) if row.is_session else PLAIN if row.is_live else MOODS["dim"]
        segments = []
        for (column, _), text in zip(self._columns, cells(row, self._columns, tree=self._order.tree), strict=True):
            style = (
                base if column.name == "name" else style_of(row.state, row.ending) if column.name == "state" else PLAIN
            )
            if column.name == "last":
                style = MOODS["bad"] if row.reason else MOODS["dim"] if row.is_session or not row.is_live else PLAIN
            if column.name in ("spool", "beat") and (row.held or (row.beat_age_s or 0.0) > _LATE_S):
                style = MOODS["warn"]
            segments += [Segment(text, style), Segment(" ")]
        return segments


# Three heartbeats of 5 s: the spawner calls a session degraded then (design §6).
_LATE_S = 15.0
