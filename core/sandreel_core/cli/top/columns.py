"""The columns of the table: what each shows, how wide it is, what it sorts by. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sandreel_core.cli.cells import fitted, plain, spelt
from sandreel_core.cli.top.row import Row

_GAP = 1
_MIN_NAME, _MAX_NAME, _MIN_TEXT = 14, 40, 16
# What needs attention or works stands before what rests.
_STATES = (
    *("degraded", "failed", "ready", "running", "accepted", "requested", "provisioning", "resuming", "stopping"),
    *("destroying", "lost", "exited", "stopped", "destroyed", "none"),
)
_STATE_PLACE = {state: place for place, state in enumerate(_STATES)}


@dataclass(frozen=True, slots=True)
class Column:
    """`width` in columns of the terminal, 0 for what takes the room that is left. `priority`: on a narrow terminal the
    columns with the greatest go first; 0 stays. `sort_key` of a row; `descending` is how one wants it first."""

    name: str
    title: str
    width: int
    priority: int
    show: Callable[[Row], str]
    sort_key: Callable[[Row], Any]
    right: bool = True
    descending: bool = True


def duration(seconds: float | None) -> str:
    """In at most five characters: `0.4s`, `59s`, `12m`, `3h40`, `12d`."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60:02}"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}"
    return f"{whole // 86_400}d"


def number(value: float | None) -> str:
    """In at most six characters: `0`, `9.5`, `1234`, `12.3k`, `4.56M`."""
    if value is None:
        return ""
    for limit, divisor, unit in ((99_999.5, 1, ""), (9.9995e6, 1e3, "k"), (9.9995e9, 1e6, "M")):
        if value < limit:
            digits = 1 if unit or (0 < value < 9.95 and value != int(value)) else 0
            return f"{value / divisor:.{digits}f}{unit}"
    return f"{value / 1e9:.1f}G"


def size(value: int | None) -> str:
    """Bytes in at most five characters, 1024 a step."""
    if value is None:
        return ""
    for limit, divisor, unit in ((1024, 1, "B"), (1024**2, 1024, "K"), (1024**3, 1024**2, "M")):
        if value < limit:
            return f"{value // divisor}{unit}"
    return f"{value // 1024**3}G"


def state(row: Row) -> str:
    """With how it ended: `exited 3`, `exited SIGKILL`, `lost node_gone`, `stopped idle`; or `ready unfenced`."""
    more = row.ending or (row.fence if row.fence == "unfenced" else "")
    return f"{row.state} {more}" if more else row.state


def _execs(row: Row) -> str:
    return f"{row.live_execs or 0}/{row.execs or 0}" if row.is_session else ""


def _spool(row: Row) -> str:
    return size(row.spool_bytes) + ("!" if row.held else "")


def _last(row: Row) -> str:
    return spelt(row.reason) if row.reason else plain(row.last_line)


def _or(value: float | None, absent: float) -> float:
    return absent if value is None else value


COLUMNS: tuple[Column, ...] = (
    Column("name", "NAME", 0, 0, lambda row: row.name, lambda row: row.name, right=False, descending=False),
    Column("org", "ORG", 10, 7, lambda row: row.org, lambda row: row.org, right=False, descending=False),
    Column(
        *("state", "STATE", 14, 0, state),
        lambda row: (_STATE_PLACE.get(row.state, 99), row.ending),
        right=False,
        descending=False,
    ),
    Column("rate", "LINES/S", 7, 0, lambda row: number(row.lines_per_s), lambda row: row.lines_per_s),
    Column("lines", "LINES", 6, 6, lambda row: number(row.lines), lambda row: row.lines),
    Column("execs", "EXECS", 6, 3, _execs, lambda row: (_or(row.live_execs, -1), _or(row.execs, -1))),
    Column("spool", "SPOOL", 5, 5, _spool, lambda row: (row.held, _or(row.spool_bytes, -1))),
    Column("beat", "BEAT", 5, 4, lambda row: duration(row.beat_age_s), lambda row: _or(row.beat_age_s, -1)),
    Column("age", "AGE", 5, 1, lambda row: duration(row.age_s), lambda row: _or(row.age_s, 1e18), descending=False),
    Column("quiet", "QUIET", 5, 8, lambda row: duration(row.quiet_s), lambda row: _or(row.quiet_s, 1e18)),
    Column("last", "LAST LINE", 0, 0, _last, _last, right=False, descending=False),
)
BY_NAME = {column.name: column for column in COLUMNS}


def layout(rows: list[Row], width: int) -> list[tuple[Column, int]]:
    """The columns that have room, each with its width. The organisation is shown where there are several."""
    shown = [column for column in COLUMNS if column.name != "org" or len({row.org for row in rows}) > 1]
    longest = max((len(row.name) + (0 if row.is_session else 2) for row in rows), default=0)
    name_width = min(_MAX_NAME, max(_MIN_NAME, longest + 1))
    while width - _fixed(shown) - _MIN_NAME < _MIN_TEXT and any(column.priority for column in shown):
        shown.remove(max(shown, key=lambda column: column.priority))
    room = max(0, width - _fixed(shown))
    name_width = max(_MIN_NAME, min(name_width, room // 2))
    widths = {"name": name_width, "last": max(0, room - name_width)}
    return [(column, widths.get(column.name, column.width)) for column in shown]


def _fixed(columns: list[Column]) -> int:
    """What the columns of a given width take, with every gap."""
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)


def cells(row: Row, columns: list[tuple[Column, int]], *, tree: bool) -> list[str]:
    """The row's texts, each exactly as wide as its column."""
    texts = []
    for column, width in columns:
        text = column.show(row)
        if column.name == "name" and tree and not row.is_session:
            text = f"  {text}"
        texts.append(fitted(text, width, right=column.right))
    return texts
