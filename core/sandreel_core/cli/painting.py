"""The bytes that draw one terminal's screen on another. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pyte import modes as pyte_modes
from pyte.screens import Char, Cursor, StaticDefaultDict
from wcwidth import wcwidth

from sandreel_core.cli.emulator import Emulator
from sandreel_core.cli.modes import Modes

_COLOURS = ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white")  # pyte's names, in the order of SGR
_STYLES = (("bold", 1), ("italics", 3), ("underscore", 4), ("blink", 5), ("reverse", 7), ("strikethrough", 9))
_CLEAR = "\x1b[0m\x1b(B\x0f\x1b[r\x1b[H\x1b[2J"
_Rows = Mapping[int, StaticDefaultDict[int, Char]]


def paint(emulator: Emulator, modes: Modes, cols: int, rows: int) -> bytes:
    """Everything that a terminal of `cols` × `rows` needs to go on from here: both screens, the cursor, what is
    switched on. What does not fit is cut at the right and at the bottom: the program is told of the size, and draws
    anew. Only the screen: what has scrolled out of it is in the log.
    """
    screen = emulator.screen
    room = min(cols, screen.columns), min(rows, screen.lines)
    out = []
    if screen.primary is not None:
        below, cursor = screen.primary
        out += [_rows(below, *room), _cursor(below, cursor, screen.columns, *room), "\x1b[?1049h"]
    out.append(_rows(screen.buffer, *room))
    if screen.margins is not None and screen.margins.bottom < room[1]:
        out.append(f"\x1b[{screen.margins.top + 1};{screen.margins.bottom + 1}r")
    # Origin mode goes on with the others, and homes the cursor: so they come first.
    out.append(modes.switch_on().decode("ascii"))
    if screen.charset:
        out.append("\x1b)0\x0e")
    out.append(_cursor(screen.buffer, screen.cursor, screen.columns, *room))
    if pyte_modes.IRM in screen.mode:
        out.append("\x1b[4h")
    return "".join(out).encode("utf-8", "replace")


def _cursor(lines: _Rows, cursor: Cursor, columns: int, cols: int, rows: int) -> str:
    """Where the cursor is, and how it writes."""
    x, y = min(cursor.x, cols - 1), min(cursor.y, rows - 1)
    line = lines.get(y)
    if cursor.x < columns or cols < columns or line is None or y < cursor.y:
        return f"\x1b[{y + 1};{x + 1}H{_style(cursor.attrs)}"
    # A full row, whose next character wraps: so that it does there too, its last one is written once more.
    if not line[x].data and x:
        x -= 1
    return f"\x1b[{y + 1};{x + 1}H{_style(line[x])}{glyph(line, x)}{_style(cursor.attrs)}"


def _rows(lines: _Rows, cols: int, rows: int) -> str:
    # Without wrapping, so that the last column of the last row scrolls nothing.
    out = [_CLEAR, "\x1b[?7l"]
    for y in range(rows):
        if lines.get(y):
            out += [f"\x1b[{y + 1};1H", _row(lines[y], cols)]
    return "".join([*out, "\x1b[?7h"])


def _row(line: StaticDefaultDict[int, Char], cols: int) -> str:
    out = []
    style = ""
    blank = Char(" ")
    last = max((x for x in line if x < cols and line[x] != blank), default=-1)
    for x in range(last + 1):
        char = line[x]
        if (wanted := _style(char)) != style:
            out.append(wanted)
            style = wanted
        out.append(glyph(line, x))
    return "".join([*out, "\x1b[0m"])


def glyph(line: StaticDefaultDict[int, Char], x: int) -> str:
    """What stands in a cell: nothing behind a wide character, and a blank for half of one that was written over."""
    data = line[x].data
    if not data:
        return "" if x and _wide(line[x - 1].data) else " "
    return data if not _wide(data) or not line[x + 1].data else " "


def _wide(data: str) -> bool:
    return data != "" and wcwidth(data[0]) == 2


def _style(char: Char) -> str:
    codes = ["0", *(str(code) for name, code in _STYLES if getattr(char, name))]
    codes += _colour(char.fg, 30) + _colour(char.bg, 40)
    return f"\x1b[{';'.join(codes)}m"


def _colour(name: str, base: int) -> list[str]:
    """`base` is 30 for the foreground, 40 for the background."""
    if name == "default":
        return []
    bright, plain = name.startswith(("bright", "bfight")), name.removeprefix("bright").removeprefix("bfight")
    plain = "brown" if plain == "yellow" else plain
    if plain in _COLOURS:
        return [str(base + (60 if bright else 0) + _COLOURS.index(plain))]
    return [str(base + 8), "2", *(str(int(name[at : at + 2], 16)) for at in (0, 2, 4))]
