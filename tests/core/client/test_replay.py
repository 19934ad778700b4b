"""What lies between two points of an exec, and when it is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest

from sandreel_core.client.items import Ended, ExecItem, Gap, Output, entry
from sandreel_core.client.replay import Line, Point, replay
from sandreel_core.contract import exec as x
from sandreel_core.contract.codec import seal
from sandreel_core.contract.cursor import Cursor
from sandreel_core.errors import Malformed

SUBJECT = "evt.0.acme.s1.exec.x1"
SECOND_NS = 1_000_000_000
FIRST_NS = 1_700_000_000 * SECOND_NS


def item(n: int, event: x.ExecEvent, at_s: float = 0) -> ExecItem:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    envelope = seal(event, id=str(n), source="/t", subject=SUBJECT, time=at, n=n)
    return entry(Cursor("e", 0, n * 10), FIRST_NS + int(at_s * SECOND_NS), envelope)


def block(n: int, line: int, text: str, at_s: float = 0, stream: x.Stream = "stdout") -> ExecItem:
    event = x.Output(stream=stream, line=line, count=text.count("\n"), text=text, eol=text.endswith("\n"))
    return item(n, event, at_s)


def recording() -> list[ExecItem]:
    return [
        item(1, x.Accepted(boot_id="b"), 0),
        block(2, 1, "one\ntwo\nth", 1),
        block(3, 1, "error\n", 1.5, "stderr"),
        block(4, 3, "ree\nfour\n", 2),
        block(5, 5, "five\nsix\n", 3),
        item(6, x.Exited(exit_code=0, reason="exited", duration_ms=1), 4),
    ]


async def played(
    start: Point | None = None,
    end: Point | None = None,
    speed: float | None = None,
    items: list[ExecItem] | None = None,
) -> list[ExecItem]:
    async def source() -> AsyncGenerator[ExecItem, None]:
        for one in recording() if items is None else items:
            yield one

    return [one async for one in replay(source(), speed=speed, start=start, end=end)]


def stdout(items: list[ExecItem]) -> bytes:
    return b"".join(one.data for one in items if isinstance(one, Output) and one.stream == "stdout")


async def test_without_points_everything_is_shown() -> None:
    assert await played() == recording()


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (Line(1), None, b"one\ntwo\nthree\nfour\nfive\nsix\n"),
        (Line(2), None, b"two\nthree\nfour\nfive\nsix\n"),
        (Line(3), None, b"three\nfour\nfive\nsix\n"),
        (Line(4), None, b"four\nfive\nsix\n"),
        (Line(5), None, b"five\nsix\n"),
        (Line(7), None, b""),
        (None, Line(1), b"one\n"),
        (None, Line(3), b"one\ntwo\nthree\n"),
        (None, Line(4), b"one\ntwo\nthree\nfour\n"),
        (None, Line(99), b"one\ntwo\nthree\nfour\nfive\nsix\n"),
        (Line(2), Line(2), b"two\n"),
        (Line(3), Line(5), b"three\nfour\nfive\n"),
        (Line(5), Line(2), b""),
        (timedelta(seconds=2), timedelta(seconds=2.5), b"ree\nfour\n"),
        (datetime.fromtimestamp(FIRST_NS / SECOND_NS + 3, UTC), None, b"five\nsix\n"),
        (None, datetime.fromtimestamp(FIRST_NS / SECOND_NS + 1, UTC), b"one\ntwo\nth"),
        (None, Cursor("e", 0, 40), b"one\ntwo\nthree\nfour\n"),
    ],
)
async def test_points_cut_exactly(start: Point | None, end: Point | None, expected: bytes) -> None:
    shown = await played(start, end)

    assert stdout(shown) == expected
    for one in shown:
        if isinstance(one, Output) and one.stream == "stdout" and one.data:
            assert one.count == one.data.count(b"\n")
            assert one.eol == one.data.endswith(b"\n")


async def test_a_line_of_stderr_opens_the_window_for_both_streams() -> None:
    shown = await played(Line(1, "stderr"))

    assert isinstance(shown[0], Output)
    assert shown[0].data == b"error\n"
    assert stdout(shown) == b"ree\nfour\nfive\nsix\n"


async def test_a_cut_block_says_which_line_it_begins_with() -> None:
    first = (await played(Line(3)))[0]

    assert isinstance(first, Output)
    assert (first.line, first.data) == (3, b"th")


async def test_the_end_of_the_exec_is_shown_although_the_start_never_came() -> None:
    shown = await played(Line(1000))

    assert [type(one) for one in shown] == [Ended]


async def test_a_gap_is_always_shown() -> None:
    gap = Gap(Cursor("e", 0, 1), "purged")

    assert await played(Line(1000), items=[gap]) == [gap]


async def test_the_pace_is_that_of_the_server_times_the_speed() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()

    await played(speed=20)

    assert 0.19 <= loop.time() - began < 2


@pytest.mark.parametrize("name", ["start", "end"])
async def test_an_instant_without_a_time_zone_is_refused_before_anything_is_read(name: str) -> None:
    async def untouched() -> AsyncGenerator[ExecItem, None]:
        raise AssertionError("it was read")
        yield

    naive = datetime(2026, 1, 1)  # noqa: DTZ001
    start, end = (naive, None) if name == "start" else (None, naive)
    with pytest.raises(Malformed, match="time zone"):
        await anext(replay(untouched(), speed=None, start=start, end=end))
