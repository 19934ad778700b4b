"""What is on the screen, as a fold of events and heartbeats. Pure: times are handed in, nothing is read."""

from __future__ import annotations

from collections.abc import Mapping

from sandreel_core import exec as execs
from sandreel_core import session as sessions
from sandreel_core.bus.execs import Recorded
from sandreel_core.cli.top.followed import FollowedExec, FollowedSession
from sandreel_core.cli.top.rate import Rate
from sandreel_core.cli.top.row import Row
from sandreel_core.contract import exec as x
from sandreel_core.contract.runnerd import Heartbeat
from sandreel_core.contract.subjects import EventSubject, parse_event_subject

# So many are followed; what is met beyond is counted, and the screen says so. About 1 KB each; a frame sorts them all.
MAX_EXECS = 4000
MAX_SESSIONS = 4000
# A destroyed session is shown for so long after.
_REMAINS_S = 60.0


class Board:
    """Sessions and execs by name. Of more than the bound, those that ended or came to rest longest ago go first; where all
    live, what is met later is not followed."""

    def __init__(self, *, max_execs: int = MAX_EXECS, max_sessions: int = MAX_SESSIONS) -> None:
        self._sessions: dict[tuple[str, str], FollowedSession] = {}
        self._max_execs = max_execs
        self._max_sessions = max_sessions
        self._execs = 0
        self._newest_ns = 0
        self._rate = Rate()
        self._left_out: set[str] = set()

    @property
    def left_out(self) -> int:
        """How many sessions and execs are not followed, because of the bound; no more than the bound are counted."""
        return len(self._left_out)

    # -- what comes in

    def take(self, recorded: Recorded) -> None:
        """One event that a reader of the log handed out, in order."""
        where = parse_event_subject(recorded.event.subject)
        self._newest_ns = max(self._newest_ns, recorded.time_ns)
        session = self._session(where) if where.aggregate in ("exec", "session") else None
        if session is None:
            return
        if where.aggregate == "session":
            session.take(recorded)
            return
        known = self._exec(session, where)
        if known is not None:
            self._rate.count(known.take(recorded), recorded.time_ns)
            if known.has_ended:
                self._left_out.discard(recorded.event.subject)
        elif isinstance(recorded.event.data, x.Exited | x.Lost):
            self._left_out.discard(recorded.event.subject)

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
        is_known = session is not None and where.key in session.execs
        known = None if session is None else self._exec(session, where)
        if known is not None:
            known.accepted_ns = known.accepted_ns or accepted_ns
            if not is_known:
                known.meet(last, phase, end)

    def beat(self, org: str, session: str, beat: Heartbeat, at_s: float) -> None:
        """A heartbeat, heard at a time of the caller's monotonic clock. One of an unknown session is not kept."""
        known = self._sessions.get((org, session))
        if known is not None:
            known.beat, known.beat_at_s = beat, at_s

    def _session(self, where: EventSubject) -> FollowedSession | None:
        key = (where.org, where.session)
        found = self._sessions.get(key)
        if found is not None:
            return found
        if len(self._sessions) >= self._max_sessions:
            self._forget_sessions()
        if len(self._sessions) >= self._max_sessions:
            self._leave_out(where)
            return None
        return self._sessions.setdefault(key, FollowedSession())

    def _exec(self, session: FollowedSession, where: EventSubject) -> FollowedExec | None:
        found = session.execs.get(where.key)
        if found is not None:
            return found
        if self._execs >= self._max_execs:
            self._forget_execs()
        if self._execs >= self._max_execs:
            self._leave_out(where)
            return None
        self._execs += 1
        self._left_out.discard(str(where))
        return session.execs.setdefault(where.key, FollowedExec())

    def _leave_out(self, where: EventSubject) -> None:
        if len(self._left_out) < self._max_execs:
            self._left_out.add(str(where))

    def _forget_execs(self) -> None:
        """A tenth of what is kept at once, so that this is rare."""
        ended = [
            (known.last_ns, key, exec_id)
            for key, session in self._sessions.items()
            for exec_id, known in session.execs.items()
            if known.has_ended
        ]
        for _, key, exec_id in sorted(ended)[: max(1, self._max_execs // 10)]:
            del self._sessions[key].execs[exec_id]
            self._execs -= 1

    def _forget_sessions(self) -> None:
        rest = [
            (known.last_ns, key)
            for key, known in self._sessions.items()
            if known.state.phase in ("destroyed", "stopped", "failed")
        ]
        for _, key in sorted(rest)[: max(1, self._max_sessions // 10)]:
            self._execs -= len(self._sessions.pop(key).execs)

    # -- what a reader needs to go on

    def next_n(self, partition: int) -> tuple[Mapping[str, int], frozenset[str]]:
        """Of a partition's execs that were read in order: which ordinal comes next, and which have ended; by subject."""
        places: dict[str, int] = {}
        ended = set()
        for (org, session), known in self._sessions.items():
            for exec_id, each in known.execs.items():
                if each.n and each.cursor is not None and each.cursor.partition == partition:
                    subject = str(EventSubject(partition, org, session, "exec", exec_id))
                    places[subject] = each.n + 1
                    if each.has_ended:
                        ended.add(subject)
        return places, frozenset(ended)

    def sessions_running(self) -> list[tuple[str, str]]:
        """(org, session) of those with a sandbox."""
        return [key for key, known in self._sessions.items() if known.state.phase in sessions.RUNNING]

    # -- what is seen. `now_ns` is the wall clock's, in nanoseconds since 1970 (ages are off by what it differs from the
    # server's), `now_s` the monotonic one's.

    def rows(self, now_ns: int, now_s: float) -> list[Row]:
        """Every session, each followed by its execs."""
        now_ns = max(now_ns, self._newest_ns)
        rows: list[Row] = []
        for (org, name), known in self._sessions.items():
            gone = known.state.phase == "destroyed" and (now_ns - known.last_ns) / 1e9 > _REMAINS_S
            if gone or (known.state.phase == "none" and not known.execs):
                continue
            mine = [each.row(org, name, exec_id, now_ns) for exec_id, each in known.execs.items()]
            rows.append(known.row(org, name, mine, now_ns, now_s))
            rows += mine
        return rows

    def row(self, key: tuple[str, str, str], now_ns: int) -> Row | None:
        """One exec, by `Row.key`."""
        org, session, exec_id = key
        known = self._sessions.get((org, session))
        found = None if known is None else known.execs.get(exec_id)
        return None if found is None else found.row(org, session, exec_id, max(now_ns, self._newest_ns))

    def newest_exec(self, org: str, session: str) -> str:
        """The exec of a session that was heard of last, "" for none."""
        known = self._sessions.get((org, session))
        return max(known.execs, key=lambda each: known.execs[each].last_ns, default="") if known else ""

    def lines_per_s(self, now_ns: int) -> float:
        """Of all together."""
        return self._rate.per_s(max(now_ns, self._newest_ns))
