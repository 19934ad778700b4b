"""The application: it reads beside what it draws, and draws no more than the reading leaves time for."""

from __future__ import annotations

import asyncio

from textual import events
from textual.app import App
from textual.binding import Binding

from sandreel_core.cli.top.order import Filter, Order
from sandreel_core.cli.top.screen.keystrokes import Keystrokes
from sandreel_core.cli.top.screen.table import Table
from sandreel_core.cli.top.watch import Watch
from sandreel_core.client import Client

_AT_ONCE = ("ctrl+c", "ctrl+q")


class Top(App[None]):
    """`failure` is what ended the reading, if anything did."""

    ENABLE_COMMAND_PALETTE = False
    CSS = "Screen { background: ansi_default; color: ansi_default; }"
    BINDINGS = [Binding("ctrl+c", "quit", priority=True), Binding("ctrl+q", "quit")]

    def __init__(self, client: Client, watch: Watch, order: Order, wanted: Filter) -> None:
        super().__init__(ansi_color=True)
        self._client = client
        self._watch = watch
        self._table = Table(client, watch, order, wanted)
        self._keys = Keystrokes(self, super().on_event, lambda: self.focused or self.screen, self.bell)
        self._reading: asyncio.Task[None] | None = None
        self.failure: BaseException | None = None

    async def on_event(self, event: events.Event) -> None:
        """Keys wait for each other, except for what ends it all."""
        if not isinstance(event, events.Key | events.Paste) or event.is_forwarded:
            await super().on_event(event)
        elif isinstance(event, events.Key) and event.key in _AT_ONCE:
            self._keys.forget()
            await super().on_event(event)
        else:
            await self._keys.take(event)

    async def on_mount(self) -> None:
        self._reading = asyncio.create_task(self._watch.run())
        self._reading.add_done_callback(self._ended)
        await self.push_screen(self._table)

    def on_resize(self, event: events.Resize) -> None:
        """At once, to every screen. Textual waits with it for a timer, which never comes if the machine stalls for 8 ms
        while it is set (seen in 8.2.8: `Timer._run` skips what is late, and with it the only time), and then no
        later resize comes either."""
        for screen in self.screen_stack:
            screen.post_message(events.Resize(event.size, event.virtual_size))

    async def on_unmount(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    def _ended(self, reading: asyncio.Task[None]) -> None:
        if not reading.cancelled() and (error := reading.exception()) is not None:
            self.failure = error
            self.exit()
