"""An exec's events as an asciicast, read back by a strict reader."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sandreel_core.asciicast import Asciicast
from sandreel_core.contract import exec as x
from sandreel_core.contract.codec import seal
from sandreel_core.contract.message import Event
from tests.support import asciicast
from tests.support.asciicast import Recording
from tests.support.script import blocks

SUBJECT = "evt.0.acme.s1.exec.x1"
BEGAN_NS = 1_700_000_000_250_000_000


def recorded(*events: tuple[float, Event], idle_limit_s: float | None = None) -> Recording:
    """Of events with the seconds at which they were stored."""
    cast = Asciicast("a title", signals={"SIGKILL": 9}, idle_limit_s=idle_limit_s)
    lines = []
    for n, (at_s, event) in enumerate(events, 1):
        sealed = seal(event, id=str(n), source="/t", subject=SUBJECT, time=datetime(2026, 1, 1, tzinfo=UTC), n=n)
        lines += cast.take(sealed, BEGAN_NS + round(at_s * 1e9))
    lines += cast.rest()
    recording = asciicast.parse("".join(f"{line}\n" for line in lines))
    assert len(recording.events) == cast.events
    return recording


def started(tty: x.Terminal | None = None) -> x.Started:
    return x.Started(argv=["sh", "-c", "echo 'a b'"], cwd="/workspace", pid=1, tty=tty)


def text(data: str, stream: x.Stream = "stdout") -> x.Output:
    return x.Output(stream=stream, line=1, count=data.count("\n"), text=data)


def test_size_command_times_resize_markers_and_exit() -> None:
    recording = recorded(
        (0, x.Accepted(boot_id="b")),
        (0.1, started(x.Terminal(cols=100, rows=30))),
        (0.5, text("one\r\n")),
        (1.75, x.StdinWritten(bytes=3, offset=3)),
        (2, x.Resized(cols=120, rows=40)),
        (2.000001, x.Signalled(signal="SIGTERM", why="cancelled")),
        (3, x.Exited(exit_code=None, signal="SIGKILL", reason="cancelled", duration_ms=1)),
        idle_limit_s=1.5,
    )

    assert recording.header == {
        "version": 3,
        "term": {"cols": 100, "rows": 30},
        "timestamp": 1_700_000_000,
        "idle_time_limit": 1.5,
        "command": "sh -c 'echo '\"'\"'a b'\"'\"''",
        "title": "a title",
    }
    assert [(round(event.at_s, 6), event.code, event.data) for event in recording.events] == [
        (0.5, "o", "one\r\n"),
        (1.75, "m", "input: 3 bytes typed"),
        (2.0, "r", "120x40"),
        (2.000001, "m", "SIGTERM (cancelled)"),
        (3.0, "x", "137"),
    ]


def test_without_a_terminal_newlines_return_the_carriage() -> None:
    recording = recorded((0, started()), (0, text("a\nb\n")), (0, text("c\n", "stderr")))

    assert recording.output == "a\r\nb\r\nc\r\n"
    assert recording.header["term"] == {"cols": 80, "rows": 24}


@given(st.text(), st.lists(st.integers(0, 40), max_size=8))
def test_code_points_split_over_blocks_are_joined(said: str, cuts: list[int]) -> None:
    data = said.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks: list[tuple[x.Stream, bytes]] = [("stdout", data[begin:end]) for begin, end in pairwise(places)]

    recording = recorded((0, started(x.Terminal())), *((0.0, block) for block in blocks(chunks)))

    assert recording.output.encode() == data


def test_what_never_becomes_utf_8_is_replaced_and_ends_before_the_exit() -> None:
    half = x.Output(stream="stdout", line=1, count=0, base64=base64.b64encode(b"\xffok\xe2\x82").decode())
    recording = recorded((0, started()), (0, half), (1, x.Exited(exit_code=0, reason="exited", duration_ms=1)))

    assert recording.output == "\ufffdok\ufffd"
    assert recording.of("x") == ["0"]


def test_a_lost_exec_says_so() -> None:
    recording = recorded((0, x.Accepted(boot_id="b")), (1, x.Lost(boot_id="b", last_n=1, cause="oom")))

    assert recording.of("m") == ["lost (oom): how it ended is not known"]
    assert recording.of("x") == ["125"]
    assert recording.events[-1].at_s == 1


def test_one_that_never_started_ends_as_a_shell_says_it() -> None:
    end = x.Exited(exit_code=None, reason="spawn_failed", duration_ms=0)

    assert recorded((0, x.Accepted(boot_id="b")), (0, end)).of("x") == ["126"]


def test_what_is_missing_is_marked() -> None:
    recording = recorded(
        (0, started()),
        (0, x.Gap(from_n=2, to_n=4, why="refused")),
        (0, x.Truncated(stream="stdout", limit_bytes=9)),
        (0, x.Output(stream="stdout", line=1, count=0, base64="?")),
    )
    cast = Asciicast("t", signals={})
    before = asciicast.parse("".join(f"{line}\n" for line in [*cast.missing("archived"), *cast.rest()]))

    assert [marker.split(":")[0] for marker in recording.of("m")] == ["missing", "missing", "missing"]
    assert before.of("m") == ["missing: archived"]


def test_rounding_does_not_add_up_and_a_clock_that_was_set_back_stands_still() -> None:
    events: list[tuple[float, Event]] = [(n * 0.0000014, text("x")) for n in range(1000)]
    recording = recorded((0, started()), *events, (0.0001, text("back")), (1, text("y")))

    assert abs(recording.events[-1].at_s - 1) < 1e-9
    assert recording.events[-2].data == "back"


def test_no_byte_of_the_file_steers_a_terminal() -> None:
    cast = Asciicast("\x9bt", signals={})
    event = seal(
        text("\x1b[2J\x9b2J\x7f"), id="1", source="/t", subject=SUBJECT, time=datetime(2026, 1, 1, tzinfo=UTC), n=1
    )
    lines = "".join(cast.take(event, BEGAN_NS))

    assert lines.isprintable()
