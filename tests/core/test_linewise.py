"""Whole lines out of blocks, however they were cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandreel_core.linewise import MAX_LINE_BYTES, Line, Lines


def fed(lines: Lines, blocks: list[bytes]) -> list[Line]:
    found, number = [], 1
    for block in blocks:
        found += lines.feed(block, number, 0)
        number += block.count(b"\n")
    return found


@given(st.lists(st.sampled_from([b"a", b"bc", b"\n", b"d\n", b"\n\n", b"e\nf"]).map(bytes), max_size=30))
def test_any_cutting_gives_the_same_lines(blocks: list[bytes]) -> None:
    lines = Lines()

    found = fed(lines, blocks) + lines.release(ended=True)

    expected = b"".join(blocks).split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert found == [Line(number, data) for number, data in enumerate(expected, 1)]


def test_what_has_not_ended_is_held_since_its_first_byte_came() -> None:
    lines = Lines()

    assert lines.feed(b"one\ntw", 1, 5.0) == [Line(1, b"one")]
    assert (lines.held, lines.held_since_s) == (Line(2, b"tw", ended=False), 5.0)
    assert lines.feed(b"o", 2, 6.0) == []
    assert lines.held_since_s == 5.0
    assert lines.feed(b"\n", 2, 7.0) == [Line(2, b"two")]
    assert lines.held is None


def test_pieces_say_what_they_lack() -> None:
    lines = Lines()
    lines.feed(b"on", 1, 0)

    assert lines.release() == [Line(1, b"on", ended=False)]
    assert lines.feed(b"e\ntwo\n", 1, 0) == [Line(1, b"e", begun=False), Line(2, b"two")]


def test_a_line_without_end_comes_in_pieces_of_bounded_size() -> None:
    lines = Lines()

    found = fed(lines, [b"x" * 50_000] * 4 + [b"\n"])

    assert [(len(line.data), line.begun, line.ended) for line in found] == [
        (100_000, True, False),
        (100_000, False, False),
        (0, False, True),
    ]
    assert max(len(line.data) for line in found) < MAX_LINE_BYTES + 50_000


def test_a_line_whose_rest_is_missing_is_not_joined_with_another() -> None:
    lines = Lines()
    lines.feed(b"on", 1, 0)

    assert lines.feed(b"five\n", 5, 0) == [Line(1, b"on", ended=False), Line(5, b"five")]
