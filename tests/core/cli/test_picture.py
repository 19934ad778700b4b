"""A screen that was drawn from the log is the screen that was there."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandreel_core.cli.emulator import Emulator
from sandreel_core.cli.modes import Modes
from sandreel_core.cli.painting import glyph, paint
from sandreel_core.cli.picture import MAX_BYTES, Picture
from sandreel_core.client.items import Entry, entry
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Envelope

COLS, ROWS = 30, 8
PIECES = [
    *(b"words", b" and more words than fit", b"\r\n", b"\n", b"\t", b"\b", "日本語".encode(), "é́".encode()),
    *(b"\x1b[H", b"\x1b[3;5H", b"\x1b[8;30H", b"\x1b[2J", b"\x1b[K", b"\x1b[2L", b"\x1b[M", b"\x1b[3P", b"\x1b[4@"),
    *(b"\x1b[2;6r", b"\x1b[r", b"\x1bM", b"\x1bD", b"\x1b[2S", b"\x1b[T", b"x\x1b[5b", b"\x1b(0qqx\x1b(B"),
    *(b"\x1b[1;31m", b"\x1b[44m", b"\x1b[0m", b"\x1b[7m", b"\x1b[38;5;200m", b"\x1b[48;2;1;2;3m", b"\x1b[4:3m"),
    *(b"\x1b[97m", b"\x1b[104m", b"\x1b[103;33m", b"\x1b[38:2::9:8:7m"),
    *(b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25l", b"\x1b[?25h", b"\x1b[?7l", b"\x1b[?7h", b"\x1b[4h", b"\x1b[4l"),
    *(b"\x1b[>4;2m", b"\x1b[?4m", b"\x1b[!p", b"\x1bP1$r0m\x1b\\", b"\x1b]0;title\x07", b"\x1b[6n", b"\x9b\xff"),
]


def seen(emulator: Emulator) -> list[object]:
    screen = emulator.screen
    lines = [screen.buffer[y] for y in range(screen.lines)]
    cells = [[line[x]._replace(data=glyph(line, x)) for x in range(screen.columns)] for line in lines]
    return [cells, (screen.cursor.x, screen.cursor.y, screen.cursor.attrs, screen.cursor.hidden), screen.margins]


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=40))
@settings(max_examples=50, deadline=None)
def test_a_painted_screen_is_the_screen_and_goes_on_like_it(pieces: list[bytes]) -> None:
    first, modes = Emulator(COLS, ROWS), Modes()
    data = b"".join(pieces)
    first.feed(data)
    modes.feed(data)

    second = Emulator(COLS, ROWS)
    second.feed(paint(first, modes, COLS, ROWS))

    assert seen(second) == seen(first)
    for more in (b"next", b"\x1b[?1049l", b"z"):
        first.feed(more)
        second.feed(more)
        assert seen(second)[0] == seen(first)[0]


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=30), cuts=st.sets(st.integers(1, 300)))
@settings(max_examples=50, deadline=None)
def test_modes_are_the_same_in_any_chunking_and_all_are_switched_off(pieces: list[bytes], cuts: set[int]) -> None:
    data = b"".join(pieces)
    whole, cut = Modes(), Modes()
    whole.feed(data)
    places = sorted({0, len(data), *(place for place in cuts if place < len(data))})
    for start, end in itertools.pairwise(places):
        cut.feed(data[start:end])

    assert cut.switch_on() == whole.switch_on()
    cut.feed(cut.switch_off())
    assert (cut.private, cut.region, cut.switch_on()) == ({}, b"", b"")


def test_what_a_program_switches_on_is_switched_off() -> None:
    modes = Modes()
    modes.feed(b"\x1b[?1049;2004h\x1b[?1000h\x1b[?25l\x1b[?7h\x1b=\x1b[>1u\x1b[>4;2m\x1b[5 q\x1b[2;9r")

    assert modes.alternate
    off = modes.switch_off()
    for sequence in (b"?1049l", b"?2004l", b"?1000l", b"?25h", b"[<1u", b"[>4m", b"[0 q", b"\x1b>", b"\x1b[r"):
        assert sequence in off
    assert b"?7" not in off
    assert Modes().switch_off() == b"\x1b[4l\x1b[0m\x1b(B\x0f"


def item(event: x.ExecEvent, n: int = 1) -> Entry:
    at = datetime(2026, 11, 25, tzinfo=UTC)
    made = entry(
        Cursor("e", 0, n), 0, Envelope(specversion="1.0", id="1", source="/t", subject="s", time=at, data=event, n=n)
    )
    assert isinstance(made, Entry)
    return made


def output(data: str) -> Entry:
    return item(x.Output(stream="stdout", line=1, count=0, text=data))


def test_a_picture_follows_the_sizes_that_the_terminal_had() -> None:
    picture = Picture()
    assert picture.size is None
    picture.take(item(x.Started(cwd="/", pid=1, tty=x.Terminal(cols=10, rows=4))))  # type: ignore[arg-type]
    picture.take(output("0123456789ab"))  # type: ignore[arg-type]
    picture.take(item(x.Resized(cols=20, rows=4)))  # type: ignore[arg-type]
    picture.take(output("cdefghijklmnop"))  # type: ignore[arg-type]

    second = Emulator(20, 4)
    second.feed(picture.painted(20, 4))
    assert picture.size == (20, 4)
    assert [row.rstrip() for row in second.screen.display] == ["0123456789", "abcdefghijklmnop", "", ""]


def test_of_much_output_the_end_is_drawn_and_modes_are_of_all() -> None:
    picture = Picture()
    picture.take(item(x.Started(cwd="/", pid=1, tty=x.Terminal(cols=20, rows=4))))  # type: ignore[arg-type]
    picture.take(output("\x1b[?2004h"))  # type: ignore[arg-type]
    for number in range(3 * MAX_BYTES // 10_000):
        picture.take(output(f"line {number:4d}\r\n" * (10_000 // 11)))  # type: ignore[arg-type]

    painted = picture.painted(20, 4)
    assert picture.shortened
    assert b"\x1b[?2004h" in painted
    assert painted.count(b"line   77") == 3


@pytest.mark.parametrize("cols", [1, 5, 30, 200])
@pytest.mark.parametrize("rows", [1, 3, 50])
def test_a_smaller_or_larger_terminal_is_never_scrolled(cols: int, rows: int) -> None:
    first = Emulator(COLS, ROWS)
    first.feed(b"\r\n".join(b"%d" % n * 30 for n in range(8)))

    second = Emulator(cols, rows)
    second.feed(paint(first, Modes(), cols, rows))
    shown = [row.rstrip() for row in second.screen.display]
    assert shown[: min(rows, ROWS)] == [(f"{n}" * 30)[:cols] for n in range(min(rows, ROWS))]


@pytest.mark.parametrize("some", ["\x1b[9999b", "\x1b#8", "\x1b[9999S"])
def test_a_few_bytes_cannot_ask_for_more_than_a_bounded_number_of_cells(some: str) -> None:
    """Of ever so many, most are left out; what comes then is drawn all the same."""
    picture = Picture()
    picture.take(item(x.Started(cwd="/", pid=1, tty=x.Terminal(cols=600, rows=600))))  # type: ignore[arg-type]
    picture.take(output("#" + some * 200 + "\x1b[H\x1b[2Jend"))  # type: ignore[arg-type]

    second = Emulator(600, 600)
    second.feed(picture.painted(600, 600))
    assert picture.shortened
    assert second.screen.display[0].rstrip() == "end"


def test_a_drawing_ends_when_it_has_taken_long_enough() -> None:
    picture = Picture()
    picture.take(item(x.Started(cwd="/", pid=1, tty=x.Terminal(cols=20, rows=4))))  # type: ignore[arg-type]
    picture.take(output("one\ntwo\x1b[2Bthree\x1b[2J"))  # type: ignore[arg-type]
    answers = iter([False, False, True])

    painted = picture.painted(20, 4, enough=lambda: next(answers))
    assert picture.shortened
    assert b"one" in painted
    assert b"two" in painted
    assert b"three" not in painted


@pytest.mark.parametrize("string", ["\x1bPq never ended", "\x1b_x\x18"])
def test_a_string_that_is_not_ended_hides_nothing_behind_it(string: str) -> None:
    emulator = Emulator(20, 4)
    emulator.feed(string.encode() + b"\x1b[1mshown")
    assert emulator.screen.display[0].rstrip() == "shown"
