"""One exec, and one session, as far as the screen follows them. Pure: times are handed in."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from sandreel_core import exec as execs
from sandreel_core import session as sessions
from sandreel_core.bus.execs import Recorded
from sandreel_core.cli.top.rate import Rate
from sandreel_core.cli.top.row import MAX_LINE, Row
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.runnerd import Heartbeat

# Characters of a block's end in which its last line is looked for; a multiple of 4, so that base64 can be cut there.
_TAIL = 4 * MAX_LINE


class FollowedExec:
    """Fed with its events in order, or with the newest alone. Numbers are absolute in the log (a block of output says its
    line number), so that nothing is counted twice. `n` is 0 until it is read in order."""

    __slots__ = ("_lines", "_open", "accepted_ns", "cursor", "ending", "last_line", "last_ns", "n", "phase", "rate")

    def __init__(self) -> None:
        self.phase: execs.Phase = "none"
        self.ending = ""
        self.last_line = ""
        self.rate = Rate()
        self.accepted_ns: int | None = None
        self.last_ns = 0
        self.n = 0
        self.cursor: Cursor | None = None
        self._lines: dict[x.Stream, int] = {}
        self._open: dict[x.Stream, str] = {}

    @property
    def has_ended(self) -> bool:
        return self.phase in execs.ENDED

    def meet(self, last: Recorded, phase: execs.Phase, end: x.Exited | x.Lost | None) -> None:
        """Its newest event, before any other."""
        self.phase = phase
        self.cursor, self.last_ns = last.cursor, last.time_ns
        if isinstance(last.event.data, x.Output):
            self._print(last.event.data)
        if end is not None:
            self.ending = _ending(end)
        if isinstance(end, x.Exited):
            self._lines = dict(end.lines)

    def take(self, recorded: Recorded) -> int:
        """Its next event; how many lines that completed."""
        event, data = recorded.event, recorded.event.data
        self.cursor, self.last_ns, self.n = recorded.cursor, recorded.time_ns, event.n or self.n
        if isinstance(data, x.Output):
            if self.phase in ("none", "accepted"):
                self.phase = "running"
            lines = self._print(data)
            self.rate.count(lines, recorded.time_ns)
            return lines
        if isinstance(data, x.Accepted):
            self.accepted_ns = recorded.time_ns
        if isinstance(data, x.Exited | x.Lost):
            self.phase = "exited" if isinstance(data, x.Exited) else "lost"
            self.ending, self._open = _ending(data), {}
            return 0
        phase = execs.TRANSITIONS.get(event.type, {}).get(self.phase)
        self.phase = phase or ("running" if self.phase == "none" else self.phase)
        return 0

    def row(self, org: str, session: str, exec_id: str, now_ns: int) -> Row:
        """As it is at that time, in nanoseconds since 1970."""
        return Row(
            org=org,
            session=session,
            exec=exec_id,
            state=self.phase,
            ending=self.ending,
            lines=sum(self._lines.values()),
            lines_per_s=self.rate.per_s(now_ns),
            last_line=self.last_line,
            age_s=None if self.accepted_ns is None else (now_ns - self.accepted_ns) / 1e9,
            quiet_s=(now_ns - self.last_ns) / 1e9,
            cursor=str(self.cursor or ""),
        )

    def _print(self, block: x.Output) -> int:
        """Take a block's end as the last line; how many lines it completed that were not counted before."""
        tail = _tail(block)
        if not block.count:
            tail = (self._open.get(block.stream, "") + tail)[-_TAIL:]
        last = tail.rstrip("\n").rpartition("\n")[2][-MAX_LINE:]
        self._open[block.stream] = "" if block.eol else last
        if last.strip():
            self.last_line = last
        before = self._lines.get(block.stream)
        after = self._lines[block.stream] = block.line + block.count - 1
        return block.count if before is None else max(0, after - before)


class FollowedSession:
    """`beat` is the last heartbeat of the boot that runs, heard at `beat_at_s` of the caller's monotonic clock."""

    __slots__ = ("beat", "beat_at_s", "cursor", "execs", "last_ns", "state")

    def __init__(self) -> None:
        self.state = sessions.Session()
        self.cursor: Cursor | None = None
        self.last_ns = 0
        self.beat: Heartbeat | None = None
        self.beat_at_s = 0.0
        self.execs: dict[str, FollowedExec] = {}

    def take(self, recorded: Recorded) -> None:
        """The next event of its own subject."""
        self.state = sessions.evolve(self.state, recorded.event)
        self.cursor, self.last_ns = recorded.cursor, recorded.time_ns
        if self.state.commands_after is None:
            self.beat = None

    def row(self, org: str, name: str, execs_rows: Sequence[Row], now_ns: int, now_s: float) -> Row:
        """With what its execs sum up to. `now_s` is of the monotonic clock."""
        state, beat = self.state, self.beat
        newest = min((row for row in execs_rows if row.last_line), key=lambda row: row.quiet_s or 0.0, default=None)
        failure = f"{state.failure.stage}: {state.failure.message}" if state.failure and state.phase == "failed" else ""
        created_ns = state.created_at.timestamp() * 1e9 if state.created_at else None
        return Row(
            org=org,
            session=name,
            state=state.phase,
            ending=(state.stop_reason or "") if state.phase == "stopped" else "",
            fence=state.fence if state.phase in sessions.RUNNING else "",
            reason=failure or state.degraded_reason,
            lines=sum(row.lines for row in execs_rows),
            lines_per_s=sum(row.lines_per_s for row in execs_rows),
            last_line=newest.last_line if newest else "",
            age_s=None if created_ns is None else max(0.0, (now_ns - created_ns) / 1e9),
            quiet_s=min([(now_ns - self.last_ns) / 1e9, *(row.quiet_s or 0.0 for row in execs_rows)]),
            execs=len(execs_rows),
            live_execs=beat.live_execs if beat else sum(row.is_live for row in execs_rows),
            spool_bytes=beat.spool_bytes if beat else None,
            held=beat.held if beat else False,
            beat_age_s=now_s - self.beat_at_s if beat else None,
            cursor=str(self.cursor or ""),
        )


def _tail(block: x.Output) -> str:
    if block.text is not None:
        return block.text[-_TAIL:]
    try:
        return base64.b64decode((block.base64 or "")[-_TAIL:]).decode("utf-8", "replace")
    except ValueError:
        return ""


def _ending(end: x.Exited | x.Lost) -> str:
    if isinstance(end, x.Lost):
        return end.cause
    if end.reason == "spawn_failed":
        return "spawn_failed"
    return (end.signal or "") if end.exit_code is None else str(end.exit_code)
