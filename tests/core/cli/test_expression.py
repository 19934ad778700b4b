"""Expressions that would run for ever, and what people type."""

from __future__ import annotations

import random
import time

import pytest

from sandreel_core.cli.expression import MAX_PROGRAM, matcher
from sandreel_core.errors import Malformed
from sandreel_core.linewise import MAX_LINE_BYTES

LINE = b"a" * MAX_LINE_BYTES + b"b"


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)*c", "^(a*)*(a*)*c$", "(x+x+)+y", "([ab]*a){10}[ab]{100}c"])
def test_what_backtracks_for_ever_elsewhere_ends_here(pattern: str) -> None:
    began = time.process_time()

    assert not matcher(pattern)(LINE)

    # A backtracking matcher takes longer than the universe; what was measured is below 0.3 s.
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("pattern", "line", "matches"),
    [
        ("FAILED", b"test FAILED", True),
        ("failed", b"test FAILED", False),
        ("^test .*ED$", b"test FAILED", True),
        (r"a . b", "a é b".encode(), True),
        ("é", b"\xff \xc3\xa9", True),
        ("", b"", True),
        (r"\d{3}", b"line 12", False),
    ],
)
def test_lines_match_by_their_bytes(pattern: str, line: bytes, matches: bool) -> None:
    assert matcher(pattern)(line) is matches


def test_case_can_be_ignored() -> None:
    assert matcher("failed", ignore_case=True)(b"test FAILED")


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)", "a{1001}", "(?:a?){900}a{900}$", "x" * 1001, "\udcff"])
def test_what_cannot_be_kept_in_bounds_is_refused(pattern: str) -> None:
    with pytest.raises(Malformed, match="--grep"):
        matcher(pattern)


def test_the_worst_that_is_taken_ends_in_time() -> None:
    """Its automaton has more states than RE2 keeps, so that every byte meets every instruction."""
    line = bytes(random.Random(1).choices(b"ab", k=MAX_LINE_BYTES)) + b"c"
    with pytest.raises(Malformed, match=str(MAX_PROGRAM)):
        matcher("(a|b)*a(a|b){340}d")
    began = time.process_time()

    assert not matcher("(a|b)*a(a|b){240}d")(line)

    # Measured: 0.3 s.
    assert time.process_time() - began < 10
