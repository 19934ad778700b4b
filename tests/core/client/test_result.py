"""Collecting: what is kept, what is counted, what is said."""

from __future__ import annotations

from sandreel_core.client.items import Gap
from sandreel_core.client.result import Collection
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from tests.core.client.test_replay import block, item


def test_each_stream_is_cut_at_the_exact_byte_and_counted_to_its_end() -> None:
    collection = Collection("x1", max_bytes=6)

    assert collection.take(item(1, x.Accepted(boot_id="b"))) is None
    assert collection.take(block(2, 1, "one\n")) is None
    assert collection.take(block(3, 2, "two\nthree\n")) is None
    assert collection.take(block(4, 1, "err\n", stream="stderr")) is None
    result = collection.take(item(5, x.Exited(exit_code=3, reason="exited", duration_ms=7)))

    assert result is not None
    assert (result.stdout, result.stderr) == (b"one\ntw", b"err\n")
    assert result.truncated == {"stdout"}
    assert result.lines == {"stdout": 3, "stderr": 1}
    assert (result.exit_code, result.ok, result.duration_ms) == (3, False, 7)


def test_exactly_the_cap_is_not_truncated() -> None:
    collection = Collection("x1", max_bytes=4)

    collection.take(block(1, 1, "one\n"))
    result = collection.take(item(2, x.Exited(exit_code=0, reason="exited", duration_ms=1)))

    assert result is not None
    assert result.ok
    assert result.truncated == frozenset()


def test_a_cut_by_runnerd_a_gap_and_a_loss_are_said() -> None:
    collection = Collection("x1")

    collection.take(Gap(Cursor("e", 0, 1), "purged"))
    collection.take(item(1, x.Truncated(stream="stderr", limit_bytes=10)))
    collection.take(item(4, x.Gap(from_n=2, to_n=3, why="too large")))
    result = collection.take(item(5, x.Lost(boot_id="b", last_n=4, cause="oom")))

    assert result is not None
    assert (result.exit_code, result.reason) == (None, "lost")
    assert result.truncated == {"stderr"}
    assert result.gaps == ("purged", "events 2 to 3 will never come: too large")
