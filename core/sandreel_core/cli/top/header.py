"""What stands above the table, in pieces that are dropped from the right where there is no room. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sandreel_core.cli.top.columns import duration, number, size
from sandreel_core.cli.top.row import Row
from sandreel_core.cli.top.watch import Status
from sandreel_core.exec import ENDED
from sandreel_core.session import RUNNING

Mood = Literal["", "good", "warn", "bad", "dim"]
# The stream's hold begins at 90 % (design §3); the archive takes anything from 80 %.
_FULL, _FILLING = 0.9, 0.8
_LATE_S = 15.0  # of a projector that has not looked: `reel.projection_lag`
_BEHIND_S = 2.0


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    mood: Mood = ""


def headline(rows: Sequence[Row], lines_per_s: float, status: Status) -> list[Piece]:
    """How much there is, and whether NATS is there."""
    sessions = [row for row in rows if row.is_session]
    ready = sum(row.state in RUNNING for row in sessions)
    execs = [row for row in rows if not row.is_session]
    live = sum(row.state not in ENDED for row in execs)
    pieces = [connection(status)]
    pieces.append(Piece(f"{_count(len(sessions), 'session')}, {ready} ready"))
    pieces.append(Piece(f"{_count(len(execs), 'exec')}, {live} live"))
    pieces.append(Piece(f"{number(lines_per_s)} lines/s"))
    return pieces


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def health(status: Status, *, left_out: int) -> list[Piece]:
    """What is not as it should be stands first."""
    pieces = []
    if left_out:
        pieces.append(Piece(f"over the bound: {left_out} not shown", "warn"))
    if status.missing:
        pieces.append(Piece(f"{status.missing} pieces of the log were gone before they were read", "bad"))
    late = status.behind_s >= _BEHIND_S
    if late:
        pieces.append(
            Piece(f"screen {duration(status.behind_s)} behind ({number(status.behind_events)} events)", "warn")
        )
    pieces += [*_views(status), *(_fill(status))]
    pieces.append(Piece(f"dead {status.dead}", "bad" if status.dead else "dim"))
    if not late:
        pieces.append(Piece(f"screen {duration(status.behind_s)} behind", "dim"))
    return pieces


def connection(status: Status) -> Piece:
    """Whether NATS is there, and everything that was stored before has been read."""
    if status.away_s is not None:
        return Piece(f"○ NATS is away: reconnecting, since {duration(status.away_s)}", "bad")
    return Piece("◌ loading", "warn") if status.loading else Piece("● live", "good")


def _views(status: Status) -> list[Piece]:
    if not status.views:
        return [
            Piece(f"views: {status.views_why}"[:60], "dim" if status.views_why == "Postgres is not set" else "warn")
        ]
    worst = max(status.views, key=lambda each: (each.seconds, each.events))
    quarantined = sum(each.quarantined for each in status.views)
    which = f"of {worst.stream} " if len(status.views) > 1 else ""
    text, mood = f"views {which}{number(worst.events)} events ({duration(worst.seconds)}) behind", "dim"
    looked_s_ago = [each.looked_s_ago for each in status.views if each.looked_s_ago is not None]
    if len(looked_s_ago) < len(status.views):
        text, mood = "views: no projector has looked yet", "warn"
    elif max(looked_s_ago) > _LATE_S:
        text, mood = f"views: the projector is away, since {duration(max(looked_s_ago))}", "warn"
    elif worst.seconds >= _BEHIND_S:
        mood = "warn"
    return [
        Piece(text, "warn" if mood == "warn" else "dim"),
        Piece(f"quarantine {quarantined}", "bad" if quarantined else "dim"),
    ]


def _fill(status: Status) -> list[Piece]:
    pieces = []
    reels = [fill for fill in status.fills if fill.stream.startswith("REEL")]
    others = [fill for fill in status.fills if fill not in reels]
    fullest = max(reels, key=lambda fill: fill.share or 0.0, default=None)
    for fill in ([fullest] if fullest else []) + others:
        share = fill.share or 0.0
        mood: Mood = "bad" if share >= _FULL else "warn" if share >= _FILLING else "dim"
        shown = f"{share:.0%}" if fill.share is not None else size(fill.bytes)
        pieces.append(Piece(f"{fill.stream} {shown}", mood))
    return pieces
