"""Several keyboards at one terminal."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sandreel_core.contract import exec as c
from sandreel_core.contract.runnerd import KeysTaken
from sandreel_runnerd.keyboards import MAX_WRITERS, RECENT_S, Keyboards
from tests.support.children import bash, running


def test_each_writer_counts_its_own_and_all_are_counted() -> None:
    keyboards = Keyboards()
    keyboards.add("a", 3, 0)
    keyboards.add("b", 4, 1)
    keyboards.add(None, 5, 2)
    keyboards.add("a", 1, 3)

    assert [keyboards.taken(writer) for writer in ("a", "b", "c", None)] == [4, 4, 0, 13]
    assert keyboards.others("a", 3) == 2
    assert keyboards.others("c", 3) == 3
    assert keyboards.others("c", RECENT_S + 2.5) == 1


def test_the_one_that_was_silent_longest_is_forgotten_first() -> None:
    keyboards = Keyboards()
    for number in range(MAX_WRITERS):
        keyboards.add(f"w{number}", 1, number)
    keyboards.add("w0", 1, MAX_WRITERS)
    keyboards.add("new", 1, MAX_WRITERS)

    assert [keyboards.taken(writer) for writer in ("w0", "w1", "w2", "new")] == [2, 0, 1, 1]


async def test_two_writers_at_once_lose_no_key_and_a_hole_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path, argv=bash("stty raw -echo; echo ready; exec cat"), tty=c.Terminal()) as run:
        await run.until_output(b"ready")
        keys = run.running.keys
        answers = await asyncio.gather(
            keys(0, b"aa", "a"), keys(0, b"bb", "b"), keys(2, b"a", "a"), keys(0, b"aa", "a")
        )
        assert [answer.offset for answer in answers] == [2, 2, 3, 3]
        assert answers[1].others == 1
        assert await keys(9, b"x", "b") == KeysTaken(offset=2, others=1)
        assert await keys(0, b"", "c") == KeysTaken(offset=0, others=2)
        await run.until_output(b"aabba")
        await run.running.cancel()
        await run.end()
        written = run.recorder.of(c.StdinWritten)
        assert (sum(event.bytes for event in written), written[-1].offset) == (5, 5)
        assert b"x" not in run.recorder.output()
