"""What is on the screen, as a fold of events and heartbeats. Pure: times are handed in, nothing is read.

Every number is absolute in the log (a block of output says its line number), so that what is taken twice, or after a
reconnect, or without what was before it, is never counted twice.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from sandreel_core import exec as execs
from sandreel_core import session as sessions
from sandreel_core.bus.execs import Recorded
from sandreel_core.cli.top.rate import Rate
from sandreel_core.cli.top.row import Row
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.requests import Heartbeat
from sandreel_core.contract.subjects import EventSubject, parse_event_subject

# So many are followed; what is met beyond is counted, and the screen says so. About 1 KB each; a frame sorts them all.
MAX_EXECS = 4000
MAX_SESSIONS = 4000
MAX_LINE = 240
# A destroyed session is shown for so long after.
_REMAINS_S = 60.0
_TAIL = 4 * MAX_LINE  # characters of a block's end in which its last line is looked for; a multiple of 4 (base64)


class _Exec:
    __slots__ = ("accepted_ns", "cursor", "ending", "last_line", "last_ns", "lines", "n", "open", "phase", "rate")

    def __init__(self) -> None:
        self.phase: execs.Phase = "none"
        self.ending = ""
        self.lines: dict[x.Stream, int] = {}
        self.open: dict[x.Stream, str] = {}
        self.last_line = ""
        self.rate = Rate()
        self.accepted_ns: int | None = None
        self.last_ns = 0
        self.n = 0
        self.cursor: Cursor | None = None


class _Session:
    __slots__ = ("beat", "beat_at_s", "boot_execs", "cursor", "execs", "last_ns", "state")

    def __init__(self) -> None:
        self.state = sessions.Session()
        self.cursor: Cursor | None = None
        self.last_ns = 0
        self.beat: Heartbeat | None = None
        self.beat_at_s = 0.0
        self.execs: dict[str, _Exec] = {}


class Board:
    """`left_out` names execs and sessions that are beyond the bound, as long as the bound is met."""

    def __init__(self, *, max_execs: int = MAX_EXECS, max_sessions: int = MAX_SESSIONS) -> None:
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._max_execs = max_execs
        self._max_sessions = max_sessions
        self._execs = 0
        self._newest_ns = 0
        self.rate = Rate()
        self.events = 0
        self.left_out: set[tuple[str, str, str]] = set()

    # -- what comes in

    def take(self, recorded: Recorded) -> None:
        """One event that a reader of the log handed out, in order."""
        where = parse_event_subject(recorded.event.subject)
        self.events += 1
        self._newest_ns = max(self._newest_ns, recorded.time_ns)
        if where.aggregate == "exec":
            self._take_exec(where, recorded)
        elif where.aggregate == "session":
            self._take_session(where, recorded)

    def meet(
        self,
        where: EventSubject,
        last: Recorded,
        phase: execs.Phase,
        end: x.Exited | x.Lost | None,
        accepted_ns: int | None,
    ) -> None:
        """An exec of which only the newest event was looked at, not all before it. Of one that is known only when it was
        accepted is taken."""
        session = self._session(where)
        if session is None:
            return
        is_known = where.key in session.execs
        known = self._exec(session, where)
        if known is None:
            return
        known.accepted_ns = known.accepted_ns or accepted_ns
        if is_known:
            return
        known.phase = phase
        known.cursor, known.last_ns = last.cursor, last.time_ns
        if isinstance(last.event.data, x.Output):
            _print(known, last.event.data)
        if end is not None:
            known.ending = _ending(end)
        if isinstance(end, x.Exited):
            known.lines = dict(end.lines)

    def beat(self, org: str, session: str, beat: Heartbeat, at_s: float) -> None:
        """A heartbeat, heard at a time of the caller's monotonic clock. One of an unknown session is not kept."""
        known = self._sessions.get((org, session))
        if known is not None:
            known.beat, known.beat_at_s = beat, at_s

    def _take_session(self, where: EventSubject, recorded: Recorded) -> None:
        session = self._session(where)
        if session is None:
            return
        session.state = sessions.evolve(session.state, recorded.event)
        session.cursor, session.last_ns = recorded.cursor, recorded.time_ns
        if session.state.commands_after is None:
            session.beat = None

    def _take_exec(self, where: EventSubject, recorded: Recorded) -> None:
        session = self._session(where)
        known = None if session is None else self._exec(session, where)
        if known is None:
            return
        event, data = recorded.event, recorded.event.data
        known.cursor, known.last_ns, known.n = recorded.cursor, recorded.time_ns, event.n or known.n
        if isinstance(data, x.Output):
            if known.phase == "none":
                known.phase = "running"
            lines = _print(known, data)
            known.rate.count(lines, recorded.time_ns)
            self.rate.count(lines, recorded.time_ns)
            return
        phase = execs.TRANSITIONS.get(event.type, {}).get(known.phase)
        if isinstance(data, x.Accepted):
            known.accepted_ns = recorded.time_ns
        if isinstance(data, x.Exited | x.Lost):
            phase = "exited" if isinstance(data, x.Exited) else "lost"
            known.ending, known.open = _ending(data), {}
        known.phase = phase or ("running" if known.phase == "none" else known.phase)

    def _session(self, where: EventSubject) -> _Session | None:
        key = (where.org, where.session)
        found = self._sessions.get(key)
        if found is None and len(self._sessions) >= self._max_sessions:
            self._forget_sessions()
        if found is None and len(self._sessions) < self._max_sessions:
            found = self._sessions[key] = _Session()
        if found is None:
            self._leave_out(where.org, where.session, "")
        return found

    def _exec(self, session: _Session, where: EventSubject) -> _Exec | None:
        found = session.execs.get(where.key)
        if found is None and self._execs >= self._max_execs:
            self._forget_execs()
        if found is None and self._execs < self._max_execs:
            found = session.execs[where.key] = _Exec()
            self._execs += 1
            self.left_out.discard((where.org, where.session, where.key))
        if found is None:
            self._leave_out(where.org, where.session, where.key)
        return found

    def _leave_out(self, *key: str) -> None:
        if len(self.left_out) < self._max_execs:
            self.left_out.add(key)  # type: ignore[arg-type]

    def _forget_execs(self) -> None:
        """Those that ended longest ago: a tenth of what is kept, so that this is rare."""
        ended = [
            (known.last_ns, key, exec_id)
            for key, session in self._sessions.items()
            for exec_id, known in session.execs.items()
            if known.phase in execs.ENDED
        ]
        for _, key, exec_id in sorted(ended)[: max(1, self._max_execs // 10)]:
            del self._sessions[key].execs[exec_id]
            self._execs -= 1

    def _forget_sessions(self) -> None:
        """Those that have come to rest, longest ago first."""
        rest = [
            (known.last_ns, key)
            for key, known in self._sessions.items()
            if known.state.phase in ("destroyed", "stopped", "failed")
        ]
        for _, key in sorted(rest)[: max(1, self._max_sessions // 10)]:
            self._execs -= len(self._sessions.pop(key).execs)

    # -- what is seen

    def next_n(self, partition: int) -> tuple[Mapping[str, int], frozenset[str]]:
        """Of a partition's execs that were read in order: which ordinal comes next, and which have ended."""
        places: dict[str, int] = {}
        ended = set()
        for (org, session), known in self._sessions.items():
            for exec_id, each in known.execs.items():
                if each.n and each.cursor is not None and each.cursor.partition == partition:
                    subject = str(EventSubject(partition, org, session, "exec", exec_id))
                    places[subject] = each.n + 1
                    if each.phase in execs.ENDED:
                        ended.add(subject)
        return places, frozenset(ended)

    def sessions_running(self) -> list[tuple[str, str]]:
        """(org, session) of those with a sandbox."""
        return [key for key, known in self._sessions.items() if known.state.phase in sessions.RUNNING]

    def rows(self, now_ns: int, now_s: float) -> list[Row]:
        """Every session, each followed by its execs. `now_ns` is the wall clock's, in nanoseconds since 1970 (ages are off by
        what it differs from the server's), `now_s` the monotonic one's."""
        now_ns = max(now_ns, self._newest_ns)
        rows: list[Row] = []
        for (org, name), known in self._sessions.items():
            gone = known.state.phase in sessions.ABSENT and (now_ns - known.last_ns) / 1e9 > _REMAINS_S
            if gone or (known.state.phase == "none" and not known.execs):
                continue
            mine = [_exec_row(org, name, exec_id, each, now_ns) for exec_id, each in known.execs.items()]
            rows.append(_session_row(org, name, known, mine, now_ns, now_s))
            rows += mine
        return rows

    def lines_per_s(self, now_ns: int) -> float:
        return self.rate.per_s(max(now_ns, self._newest_ns))


def _session_row(org: str, name: str, known: _Session, mine: list[Row], now_ns: int, now_s: float) -> Row:
    state, beat = known.state, known.beat
    newest = min((row for row in mine if row.last_line), key=lambda row: row.quiet_s or 0.0, default=None)
    failure = f"{state.failure.stage}: {state.failure.message}" if state.failure and state.phase == "failed" else ""
    created_ns = state.created_at.timestamp() * 1e9 if state.created_at else None
    return Row(
        org=org,
        session=name,
        state=state.phase,
        ending=(state.stop_reason or "") if state.phase == "stopped" else "",
        reason=failure or state.degraded_reason,
        lines=sum(row.lines for row in mine),
        lines_per_s=sum(row.lines_per_s for row in mine),
        last_line=newest.last_line if newest else "",
        age_s=max(0.0, (now_ns - created_ns) / 1e9) if created_ns else None,
        quiet_s=min([(now_ns - known.last_ns) / 1e9, *(row.quiet_s or 0.0 for row in mine)]),
        execs=len(mine),
        live_execs=beat.live_execs if beat else sum(row.is_live for row in mine),
        spool_bytes=beat.spool_bytes if beat else None,
        held=beat.held if beat else False,
        beat_age_s=now_s - known.beat_at_s if beat else None,
        cursor=str(known.cursor or ""),
    )


def _exec_row(org: str, session: str, exec_id: str, known: _Exec, now_ns: int) -> Row:
    return Row(
        org=org,
        session=session,
        exec=exec_id,
        state=known.phase,
        ending=known.ending,
        lines=sum(known.lines.values()),
        lines_per_s=known.rate.per_s(now_ns),
        last_line=known.last_line,
        age_s=None if known.accepted_ns is None else (now_ns - known.accepted_ns) / 1e9,
        quiet_s=(now_ns - known.last_ns) / 1e9,
        cursor=str(known.cursor or ""),
    )


def _print(known: _Exec, block: x.Output) -> int:
    """Take a block's end as the last line; how many lines it completed that were not counted before."""
    if block.text is not None:
        tail = block.text[-_TAIL:]
    else:
        coded = (block.base64 or "")[-_TAIL:]
        try:
            tail = base64.b64decode(coded).decode("utf-8", "replace")
        except ValueError:
            tail = ""
    if not block.count:
        tail = (known.open.get(block.stream, "") + tail)[-_TAIL:]
    last = tail.rstrip("\n").rpartition("\n")[2][-MAX_LINE:]
    known.open[block.stream] = "" if block.eol else last
    if last.strip():
        known.last_line = last
    before = known.lines.get(block.stream)
    known.lines[block.stream] = block.line + block.count - 1
    return block.count if before is None else max(0, known.lines[block.stream] - before)


def _ending(end: x.Exited | x.Lost) -> str:
    if isinstance(end, x.Lost):
        return end.cause
    if end.reason == "spawn_failed":
        return "spawn_failed"
    return (end.signal or "") if end.exit_code is None else str(end.exit_code)
