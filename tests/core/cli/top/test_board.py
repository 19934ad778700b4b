"""The fold behind `sandreel top`: nothing is counted twice, and everything has a bound."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest

from sandreel_core.bus.execs import Recorded
from sandreel_core.cli.top.behind import Behind
from sandreel_core.cli.top.board import Board
from sandreel_core.cli.top.columns import state
from sandreel_core.cli.top.rate import Rate
from sandreel_core.cli.top.row import MAX_LINE, Row
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract.codec import seal
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Event, Owner
from sandreel_core.contract.runnerd import Heartbeat
from sandreel_core.contract.subjects import EventSubject, SessionSubjects

SECOND = 10**9
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
BEGAN_NS = int(BEGAN.timestamp()) * SECOND


class Log:
    """Events in order, with sequences of their own."""

    def __init__(self) -> None:
        self._sequence = 0
        self._n: dict[str, int] = {}

    def event(
        self, data: Event, session: str = "s1", exec: str = "x1", *, org: str = "acme", at_s: float = 0.0
    ) -> Recorded:
        subjects = SessionSubjects(org, session)
        in_exec = isinstance(data, x.ExecEvent)
        subject = subjects.exec(exec) if in_exec else subjects.event("session")
        self._sequence += 1
        n = None
        if in_exec:
            n = self._n[subject] = self._n.get(subject, 0) + 1
        at = BEGAN + timedelta(seconds=at_s)
        event = seal(data, id=str(self._sequence), source="/test", subject=subject, time=at, n=n)
        return Recorded(event, Cursor("e", 0, self._sequence), BEGAN_NS + int(at_s * SECOND), 1)


def block(text: str, line: int, stream: x.Stream = "stdout") -> x.Output:
    return x.Output(stream=stream, line=line, count=text.count("\n"), text=text, eol=text.endswith("\n"))


def requested(incarnation: int = 1) -> s.Requested:
    owner = Owner(type="user", id="u")
    fields = {"ttl_s": 60.0, "idle_timeout_s": 60.0, "expires_at": BEGAN}
    return s.Requested(incarnation=incarnation, profile="default", owner=owner, **fields)  # type: ignore[arg-type]


def exited(code: int = 0) -> x.Exited:
    return x.Exited(exit_code=code, reason="exited", duration_ms=1)


def rows(board: Board, at_s: float = 0.0) -> dict[str, Row]:
    return {row.name: row for row in board.rows(BEGAN_NS + int(at_s * SECOND), at_s)}


def test_a_session_and_its_exec_from_beginning_to_end() -> None:
    log, board = Log(), Board()
    board.take(log.event(requested()))
    board.take(log.event(x.Accepted(boot_id="b"), at_s=1))
    board.take(log.event(x.Started(cwd="/", pid=1), at_s=1))
    board.take(log.event(block("one\ntwo\n", 1), at_s=2))
    board.take(log.event(block("bad\n", 1, "stderr"), at_s=2))
    board.take(log.event(block("thr", 3), at_s=3))
    board.take(log.event(block("ee\nfo", 3), at_s=3))
    row = rows(board, 4)["x1"]
    assert (row.state, row.lines, row.last_line, row.age_s, row.quiet_s) == ("running", 4, "fo", 3, 1)
    session = rows(board, 4)["s1"]
    assert (session.state, session.lines, session.last_line, session.execs) == ("requested", 4, "fo", 1)
    assert session.lines_per_s == row.lines_per_s > 0
    board.take(log.event(exited(3), at_s=5))
    ended = rows(board, 100)["x1"]
    assert (ended.state, ended.ending, ended.lines, ended.lines_per_s, ended.is_live) == ("exited", "3", 4, 0, False)


def test_a_session_that_runs_without_a_fence_is_shown_so() -> None:
    log, board = Log(), Board(max_sessions=10, max_execs=10)
    provisioned = s.Provisioned(
        boot=1, boot_id="1-1", backend="docker", ref="r", node="n", fence="unfenced", commands_after=0
    )
    for event in (requested(), provisioned):
        board.take(log.event(event))
    assert state(rows(board)["s1"]) == "provisioning"
    board.take(log.event(s.Ready(boot_id="1-1", runnerd_version="0", contract_version=1)))
    assert state(rows(board)["s1"]) == "ready unfenced"
    board.take(log.event(s.Stopped(reason="killed", commands_until=1)))
    assert state(rows(board)["s1"]) == "stopped killed"


def test_a_line_that_comes_in_pieces_is_the_last_line_as_a_whole() -> None:
    log, board = Log(), Board()
    board.take(log.event(block("one\ntw", 1)))
    board.take(log.event(block("o and a ha", 2)))
    board.take(log.event(block("lf", 2)))
    assert rows(board)["x1"].last_line == "two and a half"


def test_a_last_line_has_a_bound_and_is_found_in_base64_as_well() -> None:
    log, board = Log(), Board()
    board.take(log.event(block("x" * 10_000, 1)))
    assert rows(board)["x1"].last_line == "x" * MAX_LINE
    raw = b"\xff" * 9_999 + b"\nthe end\n"
    coded = base64.b64encode(raw).decode()
    board.take(log.event(x.Output(stream="stdout", line=1, count=2, base64=coded, eol=True)))
    assert rows(board)["x1"].last_line == "the end"


def test_what_was_met_by_its_newest_event_is_not_counted_again_when_it_goes_on() -> None:
    log, board = Log(), Board()
    newest = log.event(block("100\n", 100))
    where = EventSubject(0, "acme", "s1", "exec", "x1")
    board.meet(where, newest, "running", None, BEGAN_NS - 10 * SECOND)
    assert (rows(board)["x1"].lines, rows(board)["x1"].lines_per_s, rows(board)["x1"].age_s) == (100, 0, 10)
    board.take(log.event(block("101\n", 101)))
    assert rows(board)["x1"].lines == 101
    assert rows(board)["x1"].lines_per_s == pytest.approx(1, abs=0.3)
    board.meet(where, newest, "running", None, None)
    assert rows(board)["x1"].lines == 101


def test_where_to_go_on_is_told_of_what_was_read_in_order_alone() -> None:
    log, board = Log(), Board()
    board.take(log.event(x.Accepted(boot_id="b")))
    board.take(log.event(x.Accepted(boot_id="b"), exec="x2"))
    board.take(log.event(exited(), exec="x2"))
    board.meet(
        EventSubject(0, "acme", "s1", "exec", "x3"), log.event(block("1\n", 1), exec="x3"), "running", None, None
    )
    next_n, ended = board.next_n(0)
    subjects = SessionSubjects("acme", "s1")
    assert next_n == {subjects.exec("x1"): 2, subjects.exec("x2"): 3}
    assert ended == {subjects.exec("x2")}
    assert board.next_n(1) == ({}, frozenset())


def test_heartbeats_of_sessions_that_are_known() -> None:
    log, board = Log(), Board()
    board.beat("acme", "s1", Heartbeat(boot_id="b", live_execs=1, idle_s=0), 0.0)
    board.take(log.event(requested()))
    board.beat("acme", "s1", Heartbeat(boot_id="b", live_execs=2, idle_s=0, spool_bytes=7, held=True), 1.0)
    row = rows(board, 3)["s1"]
    assert (row.live_execs, row.spool_bytes, row.held, row.beat_age_s) == (2, 7, True, 2.0)


def test_of_too_many_execs_the_ended_go_first_and_the_rest_is_counted() -> None:
    log, board = Log(), Board(max_execs=3)
    for number in range(3):
        board.take(log.event(x.Accepted(boot_id="b"), exec=f"x{number}", at_s=number))
    board.take(log.event(exited(), exec="x1", at_s=4))
    board.take(log.event(x.Accepted(boot_id="b"), exec="x3", at_s=5))
    assert set(rows(board)) == {"s1", "x0", "x2", "x3"}
    assert board.left_out == 0
    board.take(log.event(x.Accepted(boot_id="b"), exec="x4", at_s=6))
    assert board.left_out == 1
    board.take(log.event(exited(), exec="x4", at_s=7))
    assert board.left_out == 0
    assert len(rows(board)) == 4


def test_of_too_many_sessions_those_at_rest_go_first() -> None:
    log, board = Log(), Board(max_sessions=2)
    for session in ("a", "b"):
        board.take(log.event(requested(), session))
    board.take(log.event(requested(), "c"))
    assert (set(rows(board)), board.left_out) == ({"a", "b"}, 1)


def test_a_destroyed_session_stays_for_a_minute() -> None:
    log, board = Log(), Board()
    board.take(log.event(requested()))
    board.take(log.event(s.Destroying(until=BEGAN)))
    board.take(log.event(s.Destroyed(commands_until=0)))
    assert rows(board, 59)["s1"].state == "destroyed"
    assert rows(board, 61) == {}


def test_a_steady_rate_is_told_from_the_first_seconds_on_and_dies_away() -> None:
    rate = Rate()
    for tenth in range(20):
        rate.count(100, BEGAN_NS + tenth * SECOND // 10)
    assert rate.per_s(BEGAN_NS + 2 * SECOND) == pytest.approx(1000, rel=0.1)
    assert rate.per_s(BEGAN_NS + 60 * SECOND) == 0


def test_behind_is_as_old_as_the_oldest_end_that_was_not_reached() -> None:
    behind = Behind()
    behind.saw(10, 1.0)
    behind.saw(20, 2.0)
    assert (behind.seconds(5.0), behind.events()) == (4.0, 20)
    behind.reached(15)
    assert (behind.seconds(5.0), behind.events()) == (3.0, 5)
    behind.reached(20)
    behind.saw(20, 6.0)
    assert (behind.seconds(7.0), behind.events()) == (0.0, 0)
