"""Masking against a plain search over the whole output, for every way of cutting it and every moment of patience's end."""

from __future__ import annotations

import base64
import itertools
import json
import os
import random
import string
import urllib.parse

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandreel_core.contract.exec import Output, Truncated
from sandreel_core.contract.secret import MAX_SECRET_BYTES
from sandreel_core.errors import Refused
from sandreel_runnerd.finder import MIN_NEEDLE_BYTES, Finder
from sandreel_runnerd.forms import MAX_WORDS, forms
from sandreel_runnerd.lines import HOLD_S as LINES_HOLD_S
from sandreel_runnerd.lines import READ_BYTES, Lines
from sandreel_runnerd.mask import (
    HOLD_S,
    MARKER,
    MAX_VALUES,
    MAX_VALUES_BYTES,
    MIN_VALUE_BYTES,
    SENT_ANYWAY_BYTES,
    Mask,
    StreamMask,
)
from sandreel_runnerd.masked import MaskedLines
from tests.runnerd.test_lines import check_numbers, raw

# Two letters, so that needles overlap, repeat, and are each other's beginnings.
needles = st.lists(
    st.one_of(
        st.text("ab", min_size=MIN_NEEDLE_BYTES, max_size=12),
        st.tuples(st.text("ab", min_size=1, max_size=3), st.integers(10, 30)).map(lambda p: (p[0] * p[1])[: p[1]]),
        st.text("abc", min_size=19, max_size=40),
    ).map(str.encode),
    min_size=1,
    max_size=4,
)


@st.composite
def outputs(draw: st.DrawFn, needles: list[bytes]) -> bytes:
    """Output in which needles stand, whole and in pieces."""
    pieces = st.one_of(
        st.sampled_from(needles),
        st.sampled_from(needles).flatmap(lambda n: st.integers(1, len(n)).map(lambda k: n[:k])),
        st.sampled_from(needles).flatmap(lambda n: st.integers(0, len(n) - 1).map(lambda k: n[k:])),
        st.text("abc\n", max_size=6).map(str.encode),
    )
    return b"".join(draw(st.lists(pieces, max_size=8)))


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(data[at : at + size])
        at += size
    return chunks


def occurrences(data: bytes, needles: list[bytes]) -> list[tuple[int, int]]:
    return [(at, at + len(n)) for n in needles for at in range(len(data)) if data.startswith(n, at)]


def tail_of(data: bytes, needles: list[bytes]) -> int:
    """How long the longest suffix is that is the beginning of a needle and not all of it."""
    return max((k for n in needles for k in range(len(n)) if data.endswith(n[:k]) and k <= len(data)), default=0)


def plain(data: bytes, needles: list[bytes], expiries: list[int] | None = None) -> bytes:
    """What the whole output becomes: a letter is covered if a needle that covers it stands there when the letter is sent. That
    is when it can be the beginning of nothing any more, or (expiries: after so many bytes) when patience is at its end;
    what is longer than three bytes is covered then."""
    complete = occurrences(data, needles)
    covered = [any(start <= at < end for start, end in complete) for at in range(len(data))]
    sent: dict[int, bool] = {}
    for when in sorted(expiries or []):
        tail = tail_of(data[:when], needles)
        for at in range(when - tail, when):
            done = any(start <= at < end <= when for start, end in complete)
            sent.setdefault(at, done or tail > SENT_ANYWAY_BYTES)
        for at in range(when - tail):
            sent.setdefault(at, covered[at])
    out = bytearray()
    covering = False
    for at in range(len(data)):
        if sent.get(at, covered[at]):
            out += b"" if covering else MARKER
            covering = True
        else:
            out += data[at : at + 1]
            covering = False
    return bytes(out)


def stream(needles: list[bytes]) -> StreamMask:
    """Of a mask that looks for exactly these."""
    mask = Mask()
    for needle in needles:
        mask.finder.add(needle)
    return StreamMask(mask)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), needles, st.lists(st.integers(1, 50), min_size=1, max_size=5), st.sets(st.integers(0, 60)))
def test_masking_is_a_plain_search_over_the_whole_output(
    data: st.DataObject, needles: list[bytes], sizes: list[int], expire_after: set[int]
) -> None:
    output = data.draw(outputs(needles))
    masked, sent, at, expiries = stream(needles), b"", 0, []
    for index, chunk in enumerate(cut(output, sizes)):
        sent += masked.feed(chunk, float(at))
        at += len(chunk)
        if index in expire_after:
            sent += masked.expire()
            expiries.append(at)
        # Nothing waits that cannot be the beginning of a needle, and what waits has an end.
        assert (masked.held_until is None) or tail_of(output[:at], needles)
    sent += masked.expire()
    assert sent == plain(output, needles, [*expiries, len(output)])
    assert masked.masked == (MARKER in sent)
    assert masked.held_until is None


@given(st.data(), needles)
def test_the_finder_finds_what_a_plain_search_finds(data: st.DataObject, needles: list[bytes]) -> None:
    output = data.draw(outputs(needles))
    finder = Finder()
    for needle in needles:
        finder.add(needle)
    found, begins_at = finder.find(output)
    covered = {at for start, end in occurrences(output, needles) for at in range(start, end)}
    assert {at for start, end in found for at in range(start, end)} == covered
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))
    assert begins_at == len(output) - tail_of(output, needles)


def test_a_needle_of_any_length_is_found_at_any_place() -> None:
    dice = random.Random(7)
    for size in [*range(MIN_NEEDLE_BYTES, 45), 1000, 40_000]:
        needle = dice.randbytes(size)
        finder = Finder()
        finder.add(needle)
        for at in range(33):
            assert finder.find(bytes(at) + needle + b"\0\0")[0] == [(at, at + size)]
            assert finder.find(bytes(at) + needle[:-1]) == ([], at)
        with pytest.raises(ValueError, match="at least 7 bytes"):
            finder.add(needle[: MIN_NEEDLE_BYTES - 1])


def test_at_most_three_bytes_of_a_value_are_sent_however_slowly_it_comes() -> None:
    value = b"s3cr3t-value-of-a-lease"
    masked, sent = stream([value]), b""
    for byte in value:
        sent += masked.feed(bytes([byte]), 0.0) + masked.expire()
    assert sent == value[:SENT_ANYWAY_BYTES] + MARKER
    assert masked.feed(b" and on", 1.0) == b" and on"


def test_a_suffix_is_held_for_a_second_at_most() -> None:
    value = b"aaaaaaaaab"
    masked = stream([value])
    assert masked.feed(b"x", 0.0) == b"x"
    assert masked.held_until is None
    assert masked.feed(b"a", 1.0) == b""
    assert masked.held_until == 1.0 + HOLD_S
    # Each of these may be the beginning of one that began earlier, too: that is no new second.
    for at in range(12):
        masked.feed(b"a", 1.0 + at / 20)
        assert masked.held_until == 1.0 + HOLD_S
    assert masked.expire() == MARKER
    # From here on it is new.
    assert masked.feed(b"a", 3.0) == b""
    assert masked.held_until == 3.0 + HOLD_S
    assert masked.feed(b"x", 3.1) == b"ax"
    assert masked.held_until is None


secrets = st.one_of(
    st.binary(min_size=MIN_VALUE_BYTES, max_size=90),
    st.text(min_size=MIN_VALUE_BYTES, max_size=60).map(str.encode),
    st.text(string.printable, min_size=MIN_VALUE_BYTES, max_size=90).map(str.encode),
).filter(lambda value: len(value.strip()) >= MIN_VALUE_BYTES)


def shows(value: bytes, text: bytes) -> bytes:
    """What a mask that was given the value makes of the text."""
    mask = Mask()
    assert mask.add(value)
    masked = StreamMask(mask)
    return masked.feed(text, 0.0) + masked.expire()


@given(secrets, st.binary(max_size=7), st.binary(max_size=7), st.booleans())
def test_base64_of_whatever_holds_a_value_betrays_four_bits_at_each_edge(
    value: bytes, before: bytes, behind: bytes, url_safe: bool
) -> None:
    value = value.strip()
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    shown = shows(value, b"<" + encode(before + value + behind) + b">")
    assert MARKER in shown
    # What is shown beside the marker is no more than what encodes the neighbours, and the character that both share.
    head, tail = shown[1:-1].split(MARKER)
    assert len(head) <= -(-len(before) * 8 // 6)
    assert len(tail) <= len(encode(before + value + behind)) - (len(before) + len(value)) * 8 // 6


@given(secrets)
def test_the_forms_that_programs_write_are_masked(value: bytes) -> None:
    value = value.strip()
    quoted = urllib.parse.quote(value, safe="")
    written = [value, quoted.encode(), urllib.parse.quote_plus(value).encode(), urllib.parse.quote(value).encode()]
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    if text:
        written += [json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode() for ascii_only in (True, False)]
        written.append(json.dumps(json.dumps(text)[1:-1])[1:-1].encode())
        written.append(json.dumps(text)[1:-1].replace("/", "\\/").encode())
    for form in filter(None, written):
        assert shows(value, form) == MARKER


def test_percent_signs_may_be_followed_by_letters_of_either_case() -> None:
    value = b"p\xc3\xa4ss/word+more?yes&no"
    for written in (
        b"p%C3%A4ss%2Fword%2Bmore%3Fyes%26no",
        b"p%c3%a4ss%2fword%2bmore%3fyes%26no",
        b"p%C3%A4ss/word%2Bmore%3Fyes%26no",
    ):
        assert shows(value, written) == MARKER


def test_a_key_of_several_lines_is_masked_as_a_whole_by_line_in_a_terminal_and_in_wrapped_base64() -> None:
    lines = [base64.b64encode(os.urandom(48)) for _ in range(5)]
    key = b"-----BEGIN PRIVATE KEY-----\n" + b"\n".join(lines) + b"\n-----END PRIVATE KEY-----\n"
    assert shows(key, b"cat\n" + key) == b"cat\n" + MARKER + b"\n"
    assert shows(key, b"cat\r\n" + key.replace(b"\n", b"\r\n")) == b"cat\r\n" + MARKER + b"\r\n"
    assert shows(key, b"+" + lines[2] + b"\n") == b"+" + MARKER + b"\n"
    assert shows(key, b"+-----BEGIN PRIVATE KEY-----\n+") == b"+-----BEGIN PRIVATE KEY-----\n+"
    for width in (76, 64):
        encoded = base64.b64encode(key)
        wrapped = b"\n".join(encoded[at : at + width] for at in range(0, len(encoded), width))
        assert len(shows(key, wrapped)) <= len(MARKER) + 4


def test_a_short_value_is_not_masked_and_said_to_be() -> None:
    mask = Mask()
    assert not mask.add(b"1234567")
    assert not mask.add(b"  1234567\n")
    assert not mask.active
    assert mask.add(b"12345678\n")
    assert mask.active
    masked = StreamMask(mask)
    assert masked.feed(b"1234567 12345678.", 0.0) == b"1234567 " + MARKER + b"."


def test_what_cannot_be_masked_is_not_given_out() -> None:
    mask = Mask()
    for number in range(MAX_VALUES):
        assert mask.add(b"value-%08d" % number)
    assert mask.add(b"value-%08d" % 1)
    with pytest.raises(Refused, match="stop and resume it"):
        mask.add(b"one-too-many")
    large = Mask()
    for letter in range(MAX_VALUES_BYTES // MAX_SECRET_BYTES):
        assert large.add(bytes([65 + letter]) * MAX_SECRET_BYTES)
    with pytest.raises(Refused, match="stop and resume it"):
        large.add(b"one-too-many")


def test_any_number_of_values_that_pass_by_themselves_is_given_out_and_the_newest_are_masked() -> None:
    """A session may have more turns than values are masked, each with a key of its own."""
    mask = Mask()
    assert mask.add(b"a-token-that-lasts")
    masked = StreamMask(mask)
    for number in range(3 * MAX_VALUES):
        assert mask.add(b"turn-key-%08d" % number, passing=True)
    last = b"turn-key-%08d" % (3 * MAX_VALUES - 1)
    said = b" ".join((b"a-token-that-lasts", last, b"turn-key-%08d" % (2 * MAX_VALUES + MAX_VALUES // 2), b"."))
    assert masked.feed(said, 0.0) == b" ".join((MARKER, MARKER, MARKER, b"."))
    assert b"turn-key" in masked.feed(b"turn-key-00000001 .", 0.0), "that turn is over"


def test_the_forms_of_one_value_are_few() -> None:
    assert len(forms(b"ghp_0123456789abcdefghijklmnopqrstuvwxyz")) <= 8
    worst = forms(b"\n".join(b"%032d" % n for n in range(MAX_SECRET_BYTES // 33)))
    assert len(worst) <= MAX_WORDS + 40


@given(
    st.data(),
    st.lists(st.integers(1, 50), min_size=1, max_size=5),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 120)),
)
def test_numbers_and_caps_are_of_what_is_recorded(
    data: st.DataObject, sizes: list[int], hold: bool, cap: int | None
) -> None:
    value = b"two\nlines-of-a-secret"
    output = data.draw(outputs([value]))
    mask = Mask()
    mask.add(value)
    lines = MaskedLines(Lines("stdout", hold=hold, max_bytes=cap), mask)
    events: list[Output | Truncated] = []
    for at, chunk in enumerate(cut(output, sizes)):
        events += lines.feed(chunk, at / 1000)
        events += lines.flush(at / 1000 + LINES_HOLD_S)
    events += lines.end(1e6)
    whole = shows(value, output)
    blocks = [event for event in events if isinstance(event, Output)]
    assert b"".join(map(raw, blocks)) == (whole if cap is None else whole[:cap])
    check_numbers(blocks)
    assert lines.recorded.bytes == sum(len(raw(block)) for block in blocks)
    assert lines.recorded.lines == sum(block.count for block in blocks)
    assert any(isinstance(event, Truncated) for event in events) == (cap is not None and len(whole) > cap)


def test_a_value_over_the_border_of_two_reads_is_masked_and_one_that_was_given_later_too() -> None:
    mask = Mask()
    lines = MaskedLines(Lines("stdout"), mask)
    value = b"given-while-it-runs"
    blocks = lines.feed(b"before " + value + b"\n", 0.0)
    mask.add(value)
    filler = b"." * (READ_BYTES - 5)
    blocks += lines.feed(filler + value[:5], 1.0) + lines.feed(value[5:] + b"\n", 1.1) + lines.end(2.0)
    assert b"".join(raw(b) for b in blocks if isinstance(b, Output)) == (
        b"before " + value + b"\n" + filler + MARKER + b"\n"
    )
    assert lines.masked
