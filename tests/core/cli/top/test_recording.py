"""Scrubbing: any place of an exec is drawn from the log, whatever was kept of it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from sandreel_core.cli.top.recording import Recording, Target
from sandreel_core.cli.top.transcript import Transcript
from sandreel_core.client.items import Ended, ExecItem, Gap, Output, entry
from sandreel_core.contract import exec as x
from sandreel_core.contract.codec import seal
from sandreel_core.contract.cursor import Cursor
from sandreel_core.errors import Malformed

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
BEGAN_NS = int(BEGAN.timestamp()) * 10**9


def items(blocks: int) -> Iterator[ExecItem]:
    """Accepted, one line a second, the end; sequences are ten times the ordinals."""
    datas: list[x.ExecEvent] = [x.Accepted(boot_id="b")]
    datas += [x.Output(stream="stdout", line=n, count=1, text=f"line {n}\n", eol=True) for n in range(1, blocks + 1)]
    datas.append(x.Exited(exit_code=0, reason="exited", duration_ms=1))
    for n, data in enumerate(datas, 1):
        at = BEGAN + timedelta(seconds=n - 1)
        event = seal(data, id=str(n), source="/t", subject="evt.0.a.s.exec.x", time=at, n=n)
        yield entry(Cursor("e", 0, 10 * n), BEGAN_NS + (n - 1) * 10**9, event)


def recording(blocks: int = 100, *, max_marks: int = 4096) -> Recording:
    made = Recording(max_marks=max_marks)
    for item in items(blocks):
        made.add(item)
    return made


def test_marks_have_a_bound_and_every_place_can_be_read_from_one_before_it() -> None:
    made = recording(5000, max_marks=16)
    assert made.ended
    assert made.last is not None
    assert (made.last.n, made.last.lines) == (5002, 5000)
    for target in (Target("n", 4000), Target("line", 3999), Target("sequence", 40_000), made.at_share(0.8)):
        mark = made.before(target, 20)
        assert mark is not None
        assert mark.n < 4000 - 20 + 1
        assert mark.n > 2500  # far from the beginning: a short read


def test_from_the_beginning_where_nothing_stands_before_it() -> None:
    made = recording()
    assert made.before(Target("n", 1), 20) is None
    assert made.before(Target("line", 5), 20) is None


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("0%", Target("time", BEGAN_NS)),
        ("50%", Target("time", BEGAN_NS + 50_500_000_000)),
        ("1m30s", Target("time", BEGAN_NS + 90 * 10**9)),
        ("+12", Target("line", 12)),
        ("#7", Target("n", 7)),
        ("2026-01-01T00:00:10Z", Target("time", BEGAN_NS + 10 * 10**9)),
        ("2026-01-01T00:00:10", Target("time", BEGAN_NS + 10 * 10**9)),
        ("e:0:70", Target("sequence", 70)),
    ],
)
def test_places_as_people_type_them(text: str, target: Target) -> None:
    assert recording().parse(text) == target


@pytest.mark.parametrize("text", ["", "half", "5%%", "other:0:70", "e:1:70", "-1", "+"])
def test_places_that_are_none(text: str) -> None:
    with pytest.raises(Malformed):
        recording().parse(text)


def test_the_share_of_a_place_leads_back_to_it() -> None:
    made = recording()
    assert made.first is not None
    assert made.last is not None
    assert (made.share(made.first), made.share(made.last)) == (0, 1)
    assert made.at_share(made.share(made.last)).value == made.last.stored_ns


def output(text: str, stream: x.Stream = "stdout") -> Output:
    coded = base64.b64encode(text.encode()).decode()
    data = x.Output(stream=stream, line=1, count=text.count("\n"), base64=coded, eol=text.endswith("\n"))
    event = seal(data, id="1", source="/t", subject="evt.0.a.s.exec.x", time=BEGAN, n=1)
    made = entry(Cursor("e", 0, 1), BEGAN_NS, event)
    assert isinstance(made, Output)
    return made


def test_blocks_are_joined_to_lines_and_streams_kept_apart() -> None:
    transcript = Transcript(10)
    for text, stream in (("a\nb", "stdout"), ("c\n", "stdout"), ("no\n", "stderr"), ("\x1b[2Jd", "stdout")):
        transcript.add(output(text, stream))  # type: ignore[arg-type]
    assert list(transcript.lines()) == [("stdout", "a"), ("stdout", "bc"), ("stderr", "no"), ("stdout", "d")]


@pytest.mark.parametrize("lines", [1, 3, 4, 5, 6, 100])
def test_the_last_lines_stay_without_a_hole_however_long_a_block_is(lines: int) -> None:
    transcript = Transcript(5)
    transcript.add(output("before\n"))
    transcript.add(output("".join(f"{number}\n" for number in range(lines))))
    want = ["before", *map(str, range(lines))][-5:]
    assert [text for _, text in transcript.lines()] == want


def test_a_block_is_cut_behind_a_line() -> None:
    transcript = Transcript(10)
    transcript.add(output("a\rb\nc\nd\n"), newlines=2)
    assert [text for _, text in transcript.lines()] == ["b", "c"]


def test_what_is_missing_and_how_it_ended_is_said() -> None:
    transcript = Transcript(10)
    transcript.add(Gap(Cursor("e", 0, 1), "events 1 to 7 were archived"))
    end = list(items(1))[-1]
    assert isinstance(end, Ended)
    transcript.add(end)
    (_, missing), (kind, ended) = transcript.lines()
    assert missing == "missing: events 1 to 7 were archived"
    assert (kind, ended) == ("remark", "exited with code 0 (exited) after 0.0 s")
