"""A terminal in memory: pyte, with what full-screen programs use and pyte 0.8 lacks (the alternate screen, scrolling
by SU and SD, REP, line drawing), and without what it takes for text (see `_FOREIGN`). Pure.

What it cannot tell: faint text and styled underlines look plain, and colours are those of 24 bits.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any, ClassVar

import pyte
from pyte.screens import Char, Cursor, StaticDefaultDict

from sandreel_core.cli.modes import ALTERNATE

# Sequences that pyte prints in part or takes for others: private ones but h and l, with `>`, `=`, `<`, with
# intermediates; strings (DCS, SOS, PM, APC) and the charsets G2 and G3.
_FOREIGN = re.compile(
    r"\x1b\[\?[0-9;:]*[ -/]*[@-gi-km-~]|\x1b\[[<=>][0-9;:]*[ -/]*[@-~]|\x1b\[[0-9;:]*[ -/]+[@-~]"
    r"|\x1b[PX^_][^\x1b\x9c\x18\x1a]*(?:\x1b\\|\x9c|[\x18\x1a]|(?=\x1b)|\Z)|\x1b[*+./-].",
    re.DOTALL,
)
_COLONS = re.compile(r"\x1b\[[0-9;]*:[0-9;:]*m")
_SOFT_RESET = "\x1b[?25h\x1b[?7h\x1b[4l\x1b[r\x1b[0m"  # DECSTR in what pyte knows
# Before whatever may move all rows, so that no piece takes long.
_PIECES = re.compile(r"(?=[\x1b\x9b\n\v\f])")
_MAX_REPEAT = 10_000  # no terminal is wider (contract/exec.py, Cells)
# What sequences of a few bytes may write in all: as many cells as there are bytes of output at most (picture.py),
# which pyte writes within seconds.
_MAX_CELLS = 256 * 1024


class _Screen(pyte.Screen):
    """`primary`: what the alternate screen covers, with its cursor; None while the primary one is shown.

    overdrawn  sequences wanted more cells than `_MAX_CELLS`; those beyond were left out
    """

    primary: tuple[dict[int, StaticDefaultDict[int, Char]], Cursor] | None = None
    overdrawn = False
    _cells = _MAX_CELLS
    _last = " "

    def _afford(self, cells: int) -> bool:
        if cells > self._cells:
            self.overdrawn = True
            return False
        self._cells -= cells
        return True

    def reset(self) -> None:
        self.primary = None
        super().reset()

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        if kwargs.get("private") and ALTERNATE.intersection(modes) and self.primary is None:
            self.primary = (self.buffer, Cursor(self.cursor.x, self.cursor.y, self.cursor.attrs))
            self.buffer = defaultdict(lambda: StaticDefaultDict[int, Char](self.default_char))
        super().set_mode(*modes, **kwargs)

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        if kwargs.get("private") and ALTERNATE.intersection(modes) and self.primary is not None:
            self.buffer, cursor = self.primary
            self.primary = None
            self.cursor.x, self.cursor.y, self.cursor.attrs = cursor.x, cursor.y, cursor.attrs
            self.ensure_hbounds()
            self.ensure_vbounds()
        super().reset_mode(*modes, **kwargs)

    def draw(self, data: str) -> None:
        self._last = data[-1:] or self._last
        super().draw(data)

    def repeat(self, count: int = 1) -> None:
        """REP, which ncurses uses for runs."""
        count = min(count or 1, _MAX_REPEAT)
        if self._afford(count):
            self.draw(self._last * count)

    def alignment_display(self) -> None:
        """DECALN, a screen full of E."""
        if self._afford(self.columns * self.lines):
            super().alignment_display()

    def scroll_up(self, count: int = 1) -> None:
        """SU."""
        self._scroll(self.index, (self.margins.bottom if self.margins else self.lines - 1), count)

    def scroll_down(self, count: int = 1) -> None:
        """SD."""
        self._scroll(self.reverse_index, (self.margins.top if self.margins else 0), count)

    def _scroll(self, by_one: Any, edge: int, count: int) -> None:
        count = min(count or 1, self.lines)
        if not self._afford((count - 1) * self.lines):
            return
        y, self.cursor.y = self.cursor.y, edge
        for _ in range(count):
            by_one()
        self.cursor.y = y


class _Stream(pyte.Stream):
    csi: ClassVar[dict[str, str]] = pyte.Stream.csi | {"S": "scroll_up", "T": "scroll_down", "b": "repeat"}  # type: ignore[misc]
    events = pyte.Stream.events | {"scroll_up", "scroll_down", "repeat"}


class Emulator:
    """`screen` is what the bytes have made of a terminal of this size.

    enough     asked between sequences: whether to leave out all that follows
    shortened  something was left out, for that or because it would have drawn too much
    """

    def __init__(self, cols: int, rows: int, *, enough: Callable[[], bool] = lambda: False) -> None:
        self._enough = enough
        self._cut = False
        self.screen = _Screen(cols, rows)
        self._stream = _Stream(self.screen)
        # pyte ignores line drawing in UTF-8 mode, as the Linux console does; xterm does not, and ncurses relies on it.
        self._stream.use_utf8 = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> None:
        """Whole sequences: one that is cut at the end of `data` is not known in the next. Never raises: a job prints
        what it likes, and a sequence that pyte stumbles over is left out."""
        text = self._decoder.decode(data).replace("\x1b[!p", _SOFT_RESET)
        text = _COLONS.sub(_plain, _FOREIGN.sub("", text))
        for piece in _PIECES.split(text):
            if self._cut or self._enough():
                self._cut = True
                return
            with contextlib.suppress(Exception):
                self._stream.feed(piece)

    @property
    def shortened(self) -> bool:
        return self._cut or self.screen.overdrawn

    def resize(self, cols: int, rows: int) -> None:
        self.screen.resize(rows, cols)


def _plain(found: re.Match[str]) -> str:
    """SGR with sub-parameters as SGR without: colours keep theirs, a styled underline becomes a plain one."""
    parts = []
    for part in found[0][2:-1].split(";"):
        head, *rest = part.split(":")
        numbers = [number for number in rest if number]
        if head in ("38", "48") and numbers:
            # 38:2:<space>:r:g:b, the space being optional and mostly empty.
            parts.append(";".join([head, numbers[0], *numbers[1:][-3:]]))
        elif not (head == "4" and rest[:1] == ["0"]):
            parts.append(head)
        else:
            parts.append("24")
    return f"\x1b[{';'.join(parts)}m"
