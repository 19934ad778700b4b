"""One line to type into, above the keys."""

from __future__ import annotations

from textual.binding import Binding
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input


class Prompt(Input):
    """Not there until it is opened. What it asks for is told by its `purpose`."""

    DEFAULT_CSS = """
    Prompt { height: 1; border: none; padding: 0 1; display: none; background: ansi_default; }
    Prompt:focus { border: none; background: ansi_default; }
    """
    BINDINGS = [Binding("escape", "leave")]

    class Left(Message):
        """Escape was pressed."""

    def __init__(self, purpose: str) -> None:
        super().__init__(placeholder=purpose, compact=True)
        self.display = False
        self._back: Widget | None = None

    def open(self, text: str = "", *, back: Widget) -> None:
        """Show it, with this text, ready to be typed into; `back` has the keys after it."""
        self._back = back
        self.display = True
        self.value = text
        self.screen.set_focus(self)  # at once: the next key is for it

    async def action_submit(self) -> None:
        self._close()
        await super().action_submit()

    def action_leave(self) -> None:
        self._close()
        self.post_message(self.Left())

    def _close(self) -> None:
        """At once: the next key is not for it any more."""
        self.display = False
        if self._back is not None:
            self.screen.set_focus(self._back)
