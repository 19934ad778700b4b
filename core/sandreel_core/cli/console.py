"""An exec's terminal on this one: its screen, the keys, the size, and leaving it without touching what runs there."""

from __future__ import annotations

import asyncio
import signal
import termios
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from enum import IntEnum

from sandreel_core.cli.detach import DetachKeys
from sandreel_core.cli.ending import exit_code, remark
from sandreel_core.cli.entry import INTERRUPTED
from sandreel_core.cli.hangup import HUNG_UP
from sandreel_core.cli.modes import Modes
from sandreel_core.cli.picture import Picture, Size
from sandreel_core.cli.tty import Tty, Vanished
from sandreel_core.client.handle import ExecHandle
from sandreel_core.client.items import CaughtUp, Ended, ExecItem, Gap, Output
from sandreel_core.contract import exec as x
from sandreel_core.errors import Refused, Unavailable
from sandreel_core.log import diverted

# A key is taken within milliseconds; the person is told when that takes longer.
_LATE_S = 2.0
_LOOK_S = 0.25
_NOTICE_S = 4.0
# How long a paste waits for room before what does not fit is dropped, and said to be.
_ROOM_WITHIN_S = 2.0
# How long the keys that were pressed just before the detach keys have, to be taken.
_FLUSH_WITHIN_S = 1.0
# How long a screen may take to draw, of which honest output takes one: the program is then asked to draw it itself.
_DRAW_WITHIN_S = 4.0
# A window that is dragged sends a size a frame; each that is sent is an event in the log.
_RESIZE_EVERY_S = 0.1


class Left(IntEnum):
    """Why somebody left a terminal that goes on; the exit code."""

    DETACHED = INTERRUPTED
    HUNG_UP = HUNG_UP
    TERMINATED = 128 + signal.SIGTERM


class Console:
    """`session` as the user named it and `options` (see `options_of`) are for the sentence that tells how to come back.
    `run` once."""

    def __init__(self, handle: ExecHandle, tty: Tty, session: str, *, detach: bytes, options: str = "") -> None:
        self._options = options
        self._handle = handle
        self._tty = tty
        self._session = session
        self._detach = DetachKeys(detach)
        self._keyboard = handle.keyboard()
        self._modes = Modes()
        self._size: Size | None = None  # that the job's terminal has, as far as we know
        self._told: Size | None = None  # of this terminal: told once, whatever others make of it then
        self._resized = asyncio.Event()
        self._again = asyncio.Event()  # draw it anew: we have written on its screen
        self._notice: str | None = None
        self._notice_until = 0.0
        self._heard: str | None = None
        self._dropped = 0
        self._left: asyncio.Future[Left] = asyncio.get_running_loop().create_future()
        self._end: x.Exited | x.Lost | None = None

    async def run(self, *, size: Size | None = None) -> int:
        """Until the exec ends, or the person leaves; the exit code.

        size  what the exec has been started with just now; None for one that is there already, whose screen is drawn
        Raises Refused (BAD_REQUEST: the exec has no terminal), NotFound, Unavailable, Malformed.
        """
        self._size = self._told = size
        try:
            with diverted(self._hear), self._signals(), self._tty.raw():
                try:
                    await self._together(redraw=size is None)
                finally:
                    await self._tty.farewell(self._modes.switch_off())
        except Vanished:
            self._leave(Left.HUNG_UP)
        what = remark(self._end) if self._end is not None else self._way_back()
        if what is not None:
            await self._tty.farewell(f"\nsandreel: {what}\n".encode())
        return exit_code(self._end) if self._end is not None else self._left.result()

    def _way_back(self) -> str:
        dropped = f"; {self._keyboard.waiting} typed bytes were not taken" if self._keyboard.waiting else ""
        back = f"sandreel attach -it {self._session} {self._handle.id}{self._options}"
        return f"detached; the job goes on{dropped}: {back}"

    async def _together(self, *, redraw: bool) -> None:
        async with asyncio.TaskGroup() as group:
            view = group.create_task(self._view(redraw=redraw))
            others = [
                group.create_task(work) for work in (self._read(), self._type(), self._follow_size(), self._look())
            ]
            left = group.create_task(_outcome(self._left))
            await asyncio.wait([view, left], return_when=asyncio.FIRST_COMPLETED)
            for task in (view, left, *others):
                task.cancel()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGWINCH: self._resized.set,
            signal.SIGHUP: lambda: self._leave(Left.HUNG_UP),
            signal.SIGTERM: lambda: self._leave(Left.TERMINATED),
            signal.SIGINT: lambda: self._leave(Left.DETACHED),  # somebody's kill: Ctrl-C is a key like any other
            signal.SIGCONT: self._come_back,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _come_back(self) -> None:
        with suppress(termios.error):  # it has vanished, which who reads it is told
            self._tty.make_raw()
        self._again.set()

    def _leave(self, left: Left) -> None:
        if not self._left.done():
            self._left.set_result(left)

    # Its output.

    async def _view(self, *, redraw: bool) -> None:
        """Until it ends. The screen is drawn anew whenever we have spoilt it."""
        while self._end is None:
            show = asyncio.ensure_future(self._show(redraw=redraw))
            again = asyncio.ensure_future(self._again.wait())
            try:
                await asyncio.wait([show, again], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (show, again):
                    task.cancel()
                await asyncio.wait([show, again])
            if not show.cancelled():
                show.result()
            self._again.clear()
            redraw = True

    async def _show(self, *, redraw: bool) -> None:
        try:
            async with aclosing(self._handle.follow()) as items:
                if redraw:
                    await self._draw(items)
                async for item in items:
                    await self._write(item)
        except Vanished:
            self._leave(Left.HUNG_UP)
            await asyncio.Event().wait()  # for the end of all, which is near
        except Unavailable as error:
            await asyncio.sleep(error.retry_after_s)

    async def _draw(self, items: AsyncGenerator[ExecItem, None]) -> None:
        """The screen as it is now; `items` go on exactly behind it."""
        picture = Picture()
        async for item in items:
            picture.take(item)
            if isinstance(item, Ended):
                self._end = item.event.data
            if isinstance(item, CaughtUp | Ended):
                break
        if picture.size is None:
            raise Refused("BAD_REQUEST", f"exec {self._handle.id} has no terminal: attach to it without -it")
        self._size = picture.size
        cols, rows = self._tty.size
        try:
            # In a thread, for it may take a second, in which keys are still to be read.
            until = time.monotonic() + _DRAW_WITHIN_S
            drawn = await asyncio.to_thread(
                picture.painted, cols, rows, enough=lambda: self._left.done() or time.monotonic() > until
            )
        except ImportError:
            drawn = b"\x1b[0m\x1b[H\x1b[2J" + (b"\x1b[?1049h" if picture.modes.alternate else b"")
            drawn += picture.modes.switch_on()
            picture.shortened = True
        # What has to be switched off again is known before it is on: the write may be cut anywhere.
        off, self._modes = self._modes.switch_off(), picture.modes
        await self._tty.write(off + drawn)
        if picture.shortened and self._end is None and self._size == (cols, rows):
            await self._nudge(cols, rows)
        self._resized.set()

    async def _write(self, item: ExecItem) -> None:
        if isinstance(item, Output):
            self._modes.feed(item.data)
            await self._tty.write(item.data)
        elif isinstance(item, Gap):
            await self._say(f"a part of the output is missing: {item.why}")
        elif isinstance(item, Ended):
            self._end = item.event.data
        elif not isinstance(item, CaughtUp) and isinstance(item.event.data, x.Resized):
            self._size = (item.event.data.cols, item.event.data.rows)

    # Its size.

    async def _nudge(self, cols: int, rows: int) -> None:
        """Another size and back: a program that draws the whole screen does so again."""
        other = (cols, rows - 1 if rows > 1 else rows + 1)
        self._size, self._told = other, None  # so that the way back is tried again if it fails
        await self._resize(*other)
        if await self._resize(cols, rows):
            self._size = (cols, rows)

    async def _follow_size(self) -> None:
        """Whenever this terminal has another size, so has the job's. Of two that are attached the last one counts."""
        while True:
            await self._resized.wait()
            self._resized.clear()
            size = self._tty.size
            if self._size is not None and size != self._told and (size == self._size or await self._resize(*size)):
                self._told = size
            await asyncio.sleep(_RESIZE_EVERY_S)

    async def _resize(self, cols: int, rows: int) -> bool:
        """False when it has to be tried again, and will be."""
        try:
            await self._handle.resize(cols, rows)
        except Refused:
            return True  # it has just ended
        except Unavailable:
            self._resized.set()
            return False
        return True

    # Its keys.

    async def _read(self) -> None:
        try:
            async with aclosing(self._tty.read()) as typed:
                async for data in typed:
                    await self._put(*self._detach.take(data))
        except Vanished:
            self._leave(Left.HUNG_UP)

    async def _put(self, data: bytes, leave: bool) -> None:
        within_s = _ROOM_WITHIN_S if not self._dropped else 0.0
        dropped = len(data) - await self._keyboard.put_all(data, within_s=within_s)
        self._dropped = self._dropped + dropped if dropped else 0
        if dropped:
            await self._say(f"{self._dropped} typed bytes were dropped: {self._keyboard.waiting} wait already")
        if leave:
            await self._keyboard.flush(within_s=_FLUSH_WITHIN_S)
            self._leave(Left.DETACHED)

    async def _type(self) -> None:
        try:
            await self._keyboard.run()
        except Refused as refusal:
            if refusal.code != "EXEC_NOT_FOUND":  # else its end is on its way to the view
                await self._say(f"keys are not taken any more: {refusal.message}")

    # What there is to say.

    async def _look(self) -> None:
        """Say what a person should know who looks at a screen that does not move, and wipe it away again."""
        shared = False
        while True:
            await asyncio.sleep(_LOOK_S)
            now = asyncio.get_running_loop().time()
            heard, self._heard = self._heard, None
            if self._keyboard.waits_s > _LATE_S:
                why = "no connection" if self._keyboard.trouble else "the job does not read"
                await self._say(f"{why}: {self._keyboard.waiting} typed bytes are kept until they are taken")
            elif heard is not None:
                await self._say(heard)
            elif self._keyboard.others and not shared:
                await self._say("others typed here within the last minute: all keys go in")
            elif self._notice is not None and now > self._notice_until:
                self._notice = None
                self._again.set()
            shared = bool(self._keyboard.others)

    def _hear(self, warning: str) -> None:
        """What would stand on stderr, which is the job's screen now."""
        self._heard = warning

    async def _say(self, sentence: str) -> None:
        """On the last row, over whatever is there; drawn anew when it has been seen."""
        cols, rows = self._tty.size
        self._notice_until = asyncio.get_running_loop().time() + _NOTICE_S
        if sentence == self._notice:
            return
        self._notice = sentence
        text = f"sandreel: {sentence}"[: cols - 1].ljust(cols - 1)
        try:
            await self._tty.write(f"\x1b7\x1b[{rows};1H\x1b[0;7m{text}\x1b[0m\x1b8".encode())
        except Vanished:
            self._leave(Left.HUNG_UP)


async def _outcome(left: asyncio.Future[Left]) -> None:
    await asyncio.shield(left)
