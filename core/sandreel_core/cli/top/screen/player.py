"""One exec, live; or as it was at any place of its history, drawn from the log."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Input

from sandreel_core.cli.top.columns import duration, number, size
from sandreel_core.cli.top.header import Piece, connection
from sandreel_core.cli.top.recording import Mark, Recording, Target, when
from sandreel_core.cli.top.screen.bar import Bar, keys
from sandreel_core.cli.top.screen.body import Body
from sandreel_core.cli.top.screen.pace import Pace
from sandreel_core.cli.top.screen.prompt import Prompt
from sandreel_core.cli.top.screen.timeline import Timeline
from sandreel_core.cli.top.scrub import page
from sandreel_core.cli.top.transcript import Transcript
from sandreel_core.cli.top.watch import Watch
from sandreel_core.client import Client
from sandreel_core.contract.cursor import Cursor
from sandreel_core.errors import SandreelError, Unavailable

# Higher than any terminal: the live view keeps so many lines, whatever the job prints.
_MAX_HEIGHT = 1000
_AGAIN_S = 0.5
_BREATHE = 64
_KEYS = keys(
    *(("esc", "back"), ("l", "live"), ("←→", "event"), ("↑↓", "line"), ("pgup/dn", "page"), ("g", "go to")),
    *(("[ ]", "5 %"), ("0-9", "×10 %")),
)
_TYPING = keys(("↵", "go there"), ("esc", "stay"))


class Player(Screen[None]):
    """`_target` None: live."""

    BINDINGS = [
        Binding("escape,q", "back"),
        Binding("left", "event(-1)"),
        Binding("right", "event(1)"),
        Binding("up", "line(-1)"),
        Binding("down", "line(1)"),
        Binding("pageup", "page(-1)"),
        Binding("pagedown", "page(1)"),
        Binding("left_square_bracket", "share(-0.05)"),
        Binding("right_square_bracket", "share(0.05)"),
        Binding("home", "to(0.0)"),
        *(Binding(str(tenth), f"to({tenth / 10})") for tenth in range(10)),
        Binding("end,l", "live"),
        Binding("space", "pause"),
        Binding("g", "go"),
    ]

    def __init__(self, client: Client, watch: Watch, place: tuple[str, str, str]) -> None:
        super().__init__()
        self._client = client
        self._watch = watch
        self._place = place
        self._recording = Recording()
        self._live = Transcript(_MAX_HEIGHT)
        self._target: Target | None = None
        self._shown: Mark | None = None
        self._changed = False
        self._wrong = ""
        self._pace = Pace()
        self._reading: asyncio.Task[None] | None = None
        self._turning: asyncio.Task[None] | None = None
        self._head = Bar(((), ()))
        self._body = Body()
        self._timeline = Timeline()
        self._prompt = Prompt("45%, 90s, +LINE, #EVENT, 2026-01-31T12:00Z, or a cursor")
        self._foot = Bar((_KEYS,))

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._body
        yield self._timeline
        yield self._prompt
        yield self._foot

    def on_mount(self) -> None:
        self.set_focus(self._body)
        self._reading = asyncio.create_task(self._read())
        self.set_interval(Pace.EVERY_S, self._tick)

    async def on_unmount(self) -> None:
        for task in (self._reading, self._turning):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    async def _read(self) -> None:
        """All of it, once, and then what comes."""
        after: Cursor | None = None
        while not self._recording.ended:
            try:
                async with aclosing(self._client.follow(*self._place, after=after)) as items:
                    count = 0
                    async for item in items:
                        after, count = item.cursor, count + 1
                        self._recording.add(item)
                        self._live.add(item)
                        self._changed = True
                        if not count % _BREATHE:
                            await asyncio.sleep(0)
            except Unavailable:
                await asyncio.sleep(_AGAIN_S)
            except SandreelError as error:
                self._wrong = " ".join(str(error).split())
                return

    # -- drawing

    def _tick(self) -> None:
        if self._pace.begin():
            self.draw()
            self._pace.end()

    def draw(self) -> None:
        """One frame. Of a place in the past only what is around it changes."""
        if self._target is None:
            if self._changed:
                self._body.show(self._live.lines())
                self._changed = False
            self._shown = self._recording.last
        self._head.say((self._title(), self._where()))
        if self._shown is not None:
            self._timeline.show(self._recording.share(self._shown), live=self._target is None)
        said = _TYPING if self._prompt.display else _KEYS
        self._foot.say(([Piece(self._wrong, "bad")] if self._wrong else said,))

    def _title(self) -> list[Piece]:
        org, session, exec_id = self._place
        row = self._watch.board.row(self._place, time.time_ns())
        pieces = [Piece(f"{org} / {session} / {exec_id}")]
        if row is not None:
            pieces.append(Piece(f"{row.state} {row.ending}".strip(), "good" if row.is_live else "dim"))
            pieces.append(Piece(f"{number(row.lines_per_s)} lines/s"))
        status = self._watch.status(time.monotonic())
        return [connection(status), *pieces] if status.away_s is not None else pieces

    def _where(self) -> list[Piece]:
        recording, shown = self._recording, self._shown
        if recording.first is None or recording.last is None or shown is None:
            return [Piece("reading what is stored", "warn")]
        at = Piece("live", "good") if self._target is None else Piece(f"at {recording.share(shown):.0%}", "warn")
        if self._target is None and recording.ended:
            at = Piece("at its end", "good")
        if not recording.caught_up:
            at = Piece("reading what is stored", "warn")
        since_s = (shown.stored_ns - recording.first.stored_ns) / 1e9
        return [
            at,
            Piece(f"+{duration(since_s)}"),
            Piece(when(shown)),
            Piece(f"line {shown.lines:,} of {recording.last.lines:,}"),
            Piece(f"event {shown.n:,} of {recording.last.n:,}", "dim"),
            Piece(size(recording.bytes), "dim"),
            Piece(str(shown.cursor), "dim"),
        ]

    # -- moving

    def _turn_to(self, target: Target) -> None:
        """The newest wish counts; a page that is still being read for an older one is given up."""
        self._target, self._wrong = target, ""
        if self._turning is not None:
            self._turning.cancel()
        self._turning = asyncio.create_task(self._turn(target))

    async def _turn(self, target: Target) -> None:
        try:
            found = await page(self._client, self._place, self._recording, target, max(1, self._body.size.height))
        except SandreelError as error:
            self._wrong = " ".join(str(error).split())
            return
        if found is not None:
            self._shown = found.mark
            self._body.show(found.lines)
        self.draw()

    def action_event(self, by: int) -> None:
        if self._shown is not None:
            self._turn_to(Target("n", max(1, self._shown.n + by)))

    def action_line(self, by: int) -> None:
        if self._shown is not None:
            self._turn_to(Target("line", max(0, self._shown.lines + by)))

    def action_page(self, pages: int) -> None:
        self.action_line(pages * max(1, self._body.size.height - 1))

    def action_share(self, by: float) -> None:
        if self._shown is not None:
            self._turn_to(self._recording.at_share(self._recording.share(self._shown) + by))

    def action_to(self, share: float) -> None:
        self._turn_to(self._recording.at_share(share))

    def on_timeline_clicked(self, event: Timeline.Clicked) -> None:
        self.action_to(event.share)

    def action_live(self) -> None:
        self._target, self._changed, self._wrong = None, True, ""
        if self._turning is not None:
            self._turning.cancel()
        self.draw()

    def action_pause(self) -> None:
        if self._target is not None:
            self.action_live()
        elif self._shown is not None:
            self._turn_to(Target("n", self._shown.n))

    def action_go(self) -> None:
        self._wrong = ""
        self._prompt.open(back=self._body)
        self.draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        try:
            if event.value.strip():
                self._turn_to(self._recording.parse(event.value))
        except SandreelError as error:
            self._wrong = " ".join(str(error).split())
        self.draw()

    def action_back(self) -> None:
        self.dismiss()
