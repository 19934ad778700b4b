"""Output blocks: every byte once, in order, whatever the chunking."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Collection

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sandreel_core.contract.exec import Output, Truncated
from sandreel_runnerd.lines import HOLD_S, MAX_HELD_BYTES, READ_BYTES, Lines, halves, incomplete_bytes

pieces = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(str.encode),
    st.sampled_from([b"\n", b"\n\n", b"\xe2", b"\x82\xac", b"\xf0\x9f", b"\x00", b"\x01" * 300, b"x" * MAX_HELD_BYTES]),
)


def raw(block: Output) -> bytes:
    return block.text.encode() if block.text is not None else b64decode(block.base64 or "", validate=True)


def run(lines: Lines, chunks: list[bytes], flush_after: Collection[int] = ()) -> list[Output | Truncated]:
    events: list[Output | Truncated] = []
    for index, chunk in enumerate(chunks):
        events += lines.feed(chunk, float(index))
        if index in flush_after:
            events += lines.flush()
    return events + lines.end()


def check_numbers(blocks: list[Output]) -> None:
    line = 1
    for block in blocks:
        data = raw(block)
        assert data
        assert (block.line, block.count, block.eol) == (line, data.count(b"\n"), data.endswith(b"\n"))
        line += block.count


@given(st.lists(pieces, max_size=30), st.booleans(), st.sets(st.integers(0, 30)))
def test_the_blocks_are_the_bytes_in_any_chunking(chunks: list[bytes], hold: bool, flushes: set[int]) -> None:
    lines = Lines("stdout", hold=hold)
    blocks = [event for event in run(lines, chunks, flushes) if isinstance(event, Output)]
    assert b"".join(map(raw, blocks)) == b"".join(chunks)
    check_numbers(blocks)
    assert lines.bytes == sum(map(len, chunks))
    assert lines.lines == b"".join(chunks).count(b"\n")


@given(st.text(max_size=300), st.lists(st.integers(1, 7), min_size=1), st.booleans(), st.sets(st.integers(0, 300)))
def test_utf8_is_never_broken(text: str, sizes: list[int], hold: bool, flushes: set[int]) -> None:
    data, at = text.encode(), 0
    chunks: list[bytes] = []
    while at < len(data):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(data[at : at + size])
        at += size
    blocks = [event for event in run(Lines("stdout", hold=hold), chunks, flushes) if isinstance(event, Output)]
    assert all(block.base64 is None for block in blocks)
    assert "".join(block.text or "" for block in blocks) == text


@given(st.lists(pieces, max_size=20), st.integers(1, 500))
def test_a_cap_cuts_at_the_exact_byte_and_says_so_once(chunks: list[bytes], cap: int) -> None:
    lines = Lines("stderr", max_bytes=cap)
    events = run(lines, chunks)
    blocks = [event for event in events if isinstance(event, Output)]
    whole = b"".join(chunks)
    assert b"".join(map(raw, blocks)) == whole[:cap]
    check_numbers(blocks)
    cuts = [event for event in events if isinstance(event, Truncated)]
    assert cuts == ([Truncated(stream="stderr", limit_bytes=cap)] if len(whole) > cap else [])
    if cuts:
        assert events[-1] == cuts[0]


def test_one_read_makes_at_most_one_block() -> None:
    lines = Lines("stdout")
    assert len(lines.feed(b"a\nb\nc\n" * 1000, 0)) == 1
    assert len(lines.feed(b"x" * READ_BYTES, 0)) == 1


def test_half_a_line_is_held_for_50_ms_from_its_first_byte() -> None:
    lines = Lines("stdout")
    assert [block.text for block in lines.feed(b"one\ntw", 1.0) if isinstance(block, Output)] == ["one\n"]
    assert lines.held_until == 1.0 + HOLD_S
    assert lines.feed(b"o", 1.03) == []
    assert lines.held_until == 1.0 + HOLD_S
    (block,) = lines.flush()
    assert (block.line, block.text, block.eol) == (2, "two", False)
    assert lines.held_until is None
    (rest,) = lines.feed(b"!\n", 2.0)
    assert isinstance(rest, Output)
    assert (rest.line, rest.count, rest.text, rest.eol) == (2, 1, "!\n", True)


def test_a_terminal_holds_nothing() -> None:
    lines = Lines("stdout", hold=False)
    assert [block.text for block in lines.feed("€".encode()[:2] + b"", 0) if isinstance(block, Output)] == []
    assert [block.text for block in lines.feed("€".encode()[2:] + b"$", 0) if isinstance(block, Output)] == ["€$"]
    assert lines.held_until is None


def test_nul_is_text_and_what_is_not_utf8_is_base64() -> None:
    lines = Lines("stdout")
    (text,), (bytes_,) = lines.feed(b"a\0b\n", 0), lines.feed(b"\xff\xfe\n", 0)
    assert isinstance(text, Output)
    assert isinstance(bytes_, Output)
    assert (text.text, bytes_.text, bytes_.base64) == ("a\0b\n", None, "//4K")


@given(st.sampled_from([b"\x01", b"\xff", b"\\", b"\x7f", "\u2028".encode(), b"\n", b'"\n']))
def test_no_block_whose_characters_are_short_in_json_comes_near_the_servers_payload(unit: bytes) -> None:
    lines = Lines("stdout")
    blocks = lines.feed(unit * (MAX_HELD_BYTES // len(unit)), 0) + lines.feed((unit * READ_BYTES)[:READ_BYTES], 0)
    largest = max(len(msgspec.json.encode(block)) for block in blocks)
    assert (largest < 900_000) == (unit != b"\x01"), "control characters are six as long: those blocks are halved"


@given(st.lists(pieces, max_size=30).map(b"".join), st.integers(8, 30))
def test_halves_say_the_same(data: bytes, most: int) -> None:
    def divided(block: Output) -> list[Output]:
        if len(raw(block)) < most:
            return [block]
        first, rest = halves(block)
        return divided(first) + divided(rest)

    lines = Lines("stdout")
    blocks = [part for block in run(lines, [data]) if isinstance(block, Output) for part in divided(block)]
    assert b"".join(map(raw, blocks)) == data
    check_numbers(blocks)


def test_what_is_no_beginning_of_a_code_point_is_not_waited_for() -> None:
    assert [incomplete_bytes(data) for data in (b"", b"a", b"\xff", b"\x80\x80\x80\x80", b"\xc3", b"\xe2\x82")] == [
        0,
        0,
        0,
        0,
        1,
        2,
    ]
