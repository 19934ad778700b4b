"""`reel.exec_lines` against what Python makes of the same bytes."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandreel_core.bus.port import Stored
from sandreel_core.contract.exec import Stream
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_projections.batch import Batch, Views
from sandreel_projections.registry import reel_source
from sandreel_projections.writer import Writer
from tests.support.script import Message, job

SUBJECTS = SessionSubjects("acme", "s1")
Chunks = list[tuple[Stream, bytes]]

_bytes = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.text(alphabet="a\u00e9\u20ac\U0001f600\n\0\\", min_size=1, max_size=8).map(str.encode),
    st.sampled_from([b"\n", b"\n\n", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\\n\\000"]),
)  # fmt: skip
_chunks = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), _bytes), min_size=1, max_size=12)


def oracle(chunks: Chunks, stream: Stream) -> list[tuple[int, str, bytes, bool]]:
    whole = b"".join(chunk for name, chunk in chunks if name == stream)
    pieces = whole.split(b"\n")
    complete, rest = pieces[:-1], pieces[-1]
    lines = [(piece, True) for piece in complete] + ([(rest, False)] if rest else [])
    return [(i, text_of(line), line, eol) for i, (line, eol) in enumerate(lines, 1)]


def text_of(line: bytes) -> str:
    return line.decode(errors="replace").replace("\0", "\ufffd")


async def write(dsn: str, messages: list[Message]) -> None:
    async with Writer.open(dsn, reel_source(0)) as writer:
        await writer.lead()
        reached = await writer.reached() or await writer.begin("e")
        views = Views(reel_source(0), "e")
        first = reached.sequence + 1
        stored = [Stored(subject, i, body, 10**18) for i, (subject, body) in enumerate(messages, first)]
        batch = Batch(before=reached.sequence, sequence=stored[-1].sequence)
        changes = [(each, views.decode(each, batch)) for each in stored]
        for each, change in changes:
            assert change is not None
            views.apply(each, change, batch)
        assert not batch.quarantined
        await writer.commit(batch)


async def lines(dsn: str, exec_id: str, stream: Stream) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(
        "SELECT line, text, bytes, eol FROM reel.exec_lines WHERE exec = $1 AND stream = $2 ORDER BY line",
        exec_id,
        stream,
    )
    of = await connection.fetch("SELECT line, text, bytes, eol FROM reel.lines_of('acme', 's1', $1, stream => $2)", exec_id, stream)  # fmt: skip
    await connection.close()
    assert rows == of
    return [tuple(row) for row in rows]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=_chunks)
def test_lines_are_those_that_python_splits(database: str, chunks: Chunks) -> None:
    async def check() -> None:
        exec_id = f"e-{secrets.token_hex(6)}"
        await write(database, job(SUBJECTS, exec_id, chunks))
        for stream in ("stdout", "stderr"):
            assert await lines(database, exec_id, stream) == oracle(chunks, stream)

    asyncio.run(check())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=_chunks, word=st.text(alphabet="a\u00e9\u20ac\\0n", min_size=1, max_size=3))
def test_a_word_is_found_in_the_lines_that_have_its_bytes(database: str, chunks: Chunks, word: str) -> None:
    """Also in a line that is spread over blocks, and in one that is no text."""

    async def check() -> None:
        exec_id = f"e-{secrets.token_hex(6)}"
        await write(database, job(SUBJECTS, exec_id, chunks))
        connection = await asyncpg.connect(database)
        found = await connection.fetch(
            "SELECT stream, line, text FROM reel.search('acme', $1, 's1', $2)", word, exec_id
        )
        await connection.close()
        expected = [
            (stream, number, text)
            for stream in ("stderr", "stdout")
            for number, text, line, _ in oracle(chunks, stream)
            if word.encode() in line
        ]
        assert sorted(map(tuple, found)) == sorted(expected)

    asyncio.run(check())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(st.one_of(st.binary(max_size=6), st.text(max_size=3).map(str.encode), _bytes), max_size=20))
def test_text_of_replaces_as_python_does(text_connection: TextOf, data: list[bytes]) -> None:
    whole = b"".join(data)
    assert text_connection(whole) == text_of(whole)


class TextOf:
    """`reel.text_of` over one connection and one loop, for many examples."""

    def __init__(self, dsn: str) -> None:
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(asyncpg.connect(dsn))

    def __call__(self, data: bytes) -> str:
        return str(self._runner.run(self._connection.fetchval("SELECT reel.text_of($1)", data)))

    def close(self) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()


@pytest.fixture
def text_connection(database: str) -> Any:
    connection = TextOf(database)
    yield connection
    connection.close()


async def test_a_line_of_ten_megabytes_over_many_blocks(database: str) -> None:
    chunks: Chunks = [("stdout", chunk) for chunk in [b"x" * 60_000] * 175 + [b"end\nnext", b"\n"]]
    await write(database, job(SUBJECTS, "big", chunks))
    assert await lines(database, "big", "stdout") == oracle(chunks, "stdout")


@pytest.mark.parametrize("chunk", [b"x" * 7, b"x\ny", b"x\n", b"\n"])
async def test_ranges_begin_and_end_anywhere(database: str, chunk: bytes) -> None:
    chunks: Chunks = [("stdout", chunk)] * 20
    await write(database, job(SUBJECTS, "ranges", chunks))
    whole = oracle(chunks, "stdout")
    connection = await asyncpg.connect(database)
    for first, last in ((1, 1), (1, 5), (7, 9), (19, 30), (20, 20), (0, 0), (40, 50)):
        rows = await connection.fetch(
            "SELECT line, text, bytes, eol FROM reel.lines_of('acme', 's1', 'ranges', $1, $2)", first, last
        )
        assert [tuple(row) for row in rows] == [line for line in whole if first <= line[0] <= last]
    await connection.close()


async def test_a_range_of_a_long_exec(database: str) -> None:
    chunks: Chunks = [("stdout", b"".join(b"line %d\n" % i for i in range(j, j + 100))) for j in range(1, 5001, 100)]
    await write(database, job(SUBJECTS, "long", chunks))
    connection = await asyncpg.connect(database)
    rows = await connection.fetch("SELECT line, text FROM reel.lines_of('acme', 's1', 'long', 99, 102)")
    assert [tuple(row) for row in rows] == [(i, f"line {i}") for i in range(99, 103)]
    await connection.execute("ANALYZE reel.exec_blocks")
    plan = await connection.fetch(
        "EXPLAIN SELECT line, text FROM reel.exec_lines WHERE exec = 'long' AND text LIKE '%7%'"
    )
    await connection.execute("SET enable_seqscan = off")
    forced = await connection.fetch("EXPLAIN SELECT line FROM reel.exec_lines WHERE exec = 'other'")
    await connection.close()
    assert plan
    assert "Index Cond: (exec = 'other'::text)" in "\n".join(row[0] for row in forced)
