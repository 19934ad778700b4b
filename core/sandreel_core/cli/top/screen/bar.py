"""Lines of pieces: what stands above and below."""

from __future__ import annotations

from collections.abc import Sequence

from textual.strip import Strip
from textual.widget import Widget

from sandreel_core.cli.top.header import Piece
from sandreel_core.cli.top.screen.paint import strip_of


class Bar(Widget):
    """As high as its lines."""

    DEFAULT_CSS = "Bar { height: 1; }"

    def __init__(self, lines: Sequence[Sequence[Piece]], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines = lines
        self.styles.height = len(lines)

    def say(self, lines: Sequence[Sequence[Piece]]) -> None:
        """Another text, of as many lines."""
        self._lines = lines
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Of Textual's line interface."""
        return strip_of(self._lines[y] if y < len(self._lines) else (), self.size.width)


def keys(*pairs: tuple[str, str]) -> list[Piece]:
    """Which key does what."""
    return [Piece(f"{key} {what}", "dim") for key, what in pairs]
