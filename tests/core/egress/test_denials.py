"""Refusals are told at once, then counted, and none goes missing."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sandreel_core.egress.denials import MAX_KINDS, OTHERS, Tally, Verdict

NO = Verdict(org="acme", session="s1", host="10.0.0.1", port=443, code="address", why="private", denied=True)


def test_the_first_is_told_at_once_and_its_repeats_as_one_with_their_count() -> None:
    tally = Tally(window_s=10)
    tally.add(NO)
    assert tally.due(100.0) == [(NO, 1)]
    for _ in range(500):
        tally.add(NO)
    assert tally.due(109.9) == []
    assert tally.due(110.0) == [(NO, 500)]
    assert tally.due(120.0) == []
    tally.add(NO)
    assert tally.due(120.1) == [(NO, 1)], "after a quiet window it is a first one again"


def test_a_scan_is_bounded_and_told_as_a_count() -> None:
    tally = Tally(window_s=10)
    for port in range(1, 1001):
        tally.add(replace(NO, port=port))
    tally.add(replace(NO, session="s2"))
    told = tally.due(0.0)
    assert sum(count for _, count in told) == 1001
    assert len(told) == MAX_KINDS + 2
    others = [(verdict, count) for verdict, count in told if verdict.host == OTHERS]
    assert [(verdict.session, count) for verdict, count in others] == [("s1", 1000 - MAX_KINDS)]
    assert others[0][0].denied


def test_what_is_allowed_takes_no_room_from_what_is_refused() -> None:
    tally = Tally()
    for port in range(1, 200):
        tally.add(replace(NO, port=port, denied=False, why="", code="allowed"))
    tally.add(NO)
    assert (NO, 1) in tally.due(0.0)


@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0, 7)), max_size=200))
def test_nothing_goes_missing(asked: list[tuple[int, float]]) -> None:
    tally, told, now = Tally(window_s=5), Counter[str](), 0.0
    for port, wait_s in asked:
        now += wait_s
        tally.add(replace(NO, port=port))
        for verdict, count in tally.due(now):
            told[verdict.session] += count
    for verdict, count in tally.rest().items():
        told[verdict.session] += count
    assert sum(told.values()) == len(asked)
    assert tally.untold == 0
    tally.due(now + 100)
    tally.due(now + 200)
    assert tally._counts == {}
    assert tally._kinds == {}
