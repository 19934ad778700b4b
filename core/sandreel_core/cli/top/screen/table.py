"""The first screen: every session and exec."""

from __future__ import annotations

import time
from dataclasses import replace

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Input

from sandreel_core.cli.top.columns import COLUMNS
from sandreel_core.cli.top.header import Piece, headline, health
from sandreel_core.cli.top.order import Filter, Order, arrange
from sandreel_core.cli.top.screen.bar import Bar, keys
from sandreel_core.cli.top.screen.grid import Grid
from sandreel_core.cli.top.screen.pace import Pace
from sandreel_core.cli.top.screen.player import Player
from sandreel_core.cli.top.screen.prompt import Prompt
from sandreel_core.cli.top.watch import Watch
from sandreel_core.client import Client
from sandreel_core.errors import SandreelError

_KEYS = keys(
    *(
        ("↵", "open"),
        ("q", "quit"),  # what a narrow window cuts off is not the way out
        ("/", "filter"),
        ("s/S", "sort"),
        ("r", "reverse"),
        ("t", "tree"),
        ("a", "all/live"),
    )
)
_TYPING = keys(("↵", "keep the filter"), ("^u", "empty"), ("esc", "no filter"))


class Table(Screen[None]):
    """It keeps no state of the log: each frame is worked out anew from the board."""

    BINDINGS = [
        Binding("q", "app.quit"),
        Binding("s", "sort(1)"),
        Binding("S", "sort(-1)"),
        Binding("r", "reverse"),
        Binding("t", "tree"),
        Binding("a", "live"),
        Binding("slash", "filter"),
        Binding("escape", "clear"),
    ]

    def __init__(self, client: Client, watch: Watch, order: Order, wanted: Filter) -> None:
        super().__init__()
        self._client = client
        self._watch = watch
        self._order = order
        self._wanted = wanted
        self._wrong = ""
        self._said_of: tuple[str, str, str] | None = (
            None  # the session of which it is said that it has no exec, while chosen
        )
        self._pace = Pace()
        self._head = Bar(((), ()))
        self._grid = Grid(order)
        self._prompt = Prompt("word, /regex/, org:…, state:…, name:…")
        self._foot = Bar((_KEYS,))

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._grid
        yield self._prompt
        yield self._foot

    def on_mount(self) -> None:
        self.set_focus(self._grid)
        self.set_interval(Pace.EVERY_S, self._tick)

    def on_screen_resume(self) -> None:
        self.draw()

    def _tick(self) -> None:
        if self.is_current and self._pace.begin():
            self.draw()
            self._pace.end()

    def draw(self) -> None:
        """One frame."""
        now_ns, now_s = time.time_ns(), time.monotonic()
        board, status = self._watch.board, self._watch.status(now_s)
        rows = board.rows(now_ns, now_s)
        self._head.say((headline(rows, board.lines_per_s(now_ns), status), health(status, left_out=board.left_out)))
        empty = "nothing is like this filter" if rows else "loading" if status.loading else "no sessions"
        self._grid.show(arrange(rows, self._order, self._wanted), self._order, empty=empty)
        self._foot.say((self._footing(),))

    def _footing(self) -> list[Piece]:
        if self._wrong:
            return [Piece(self._wrong, "bad")]
        if self._prompt.display:
            return _TYPING
        pieces = [Piece(self._grid.place)]
        chosen = self._grid.chosen
        if chosen is None or chosen.key != self._said_of:
            self._said_of = None
        else:
            pieces.append(Piece(f"{chosen.session} has no exec to open", "warn"))
        if self._wanted.text:
            pieces.append(Piece(f"filter: {self._wanted.text}", "warn"))
        if self._order.live:
            pieces.append(Piece("live only", "warn"))
        return [*pieces, *_KEYS]

    def _arrange(self, order: Order) -> None:
        self._order = order
        self.draw()

    def action_sort(self, by: int) -> None:
        names = [column.name for column in COLUMNS]
        at = (names.index(self._order.by) + by) % len(names)
        self._arrange(replace(self._order, by=names[at], reverse=False))

    def action_reverse(self) -> None:
        self._arrange(replace(self._order, reverse=not self._order.reverse))

    def action_tree(self) -> None:
        self._arrange(replace(self._order, tree=not self._order.tree))

    def action_live(self) -> None:
        self._arrange(replace(self._order, live=not self._order.live))

    def action_filter(self) -> None:
        self._prompt.open(self._wanted.text, back=self._grid)
        self.draw()

    def action_clear(self) -> None:
        self._filter("")
        self.draw()

    def _filter(self, text: str) -> None:
        try:
            self._wanted, self._wrong = Filter.parse(text), ""
        except SandreelError as error:
            self._wrong = " ".join(str(error).split())

    def on_input_changed(self, event: Input.Changed) -> None:
        self._filter(event.value)
        self.draw()

    def on_input_submitted(self) -> None:
        self._leave()

    def on_prompt_left(self) -> None:
        self._filter("")
        self._leave()

    def _leave(self) -> None:
        self._wrong = ""
        self.draw()

    def on_grid_opened(self, event: Grid.Opened) -> None:
        row = event.row
        opened = row.exec or self._watch.board.newest_exec(row.org, row.session)
        if opened:
            self.app.push_screen(Player(self._client, self._watch, (row.org, row.session, opened)))
        else:
            self._said_of = row.key
            self.draw()
