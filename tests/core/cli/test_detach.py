"""The keys that leave a terminal."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_core.cli.detach import DEFAULT, DetachKeys, parse
from sandreel_core.errors import Malformed


def test_keys_by_their_names() -> None:
    assert parse(DEFAULT) == b"\x10\x11"
    assert parse("ctrl-], D") == b"\x1dD"
    assert parse("Ctrl-@") == b"\0"
    assert parse("none") == b""


@pytest.mark.parametrize("text", ["", "ctrl-", "ctrl-ä", "ab", "a,", "é", ",".join("aaaaaaaaa")])
def test_what_is_no_key_is_said(text: str) -> None:
    with pytest.raises(Malformed, match="--detach-keys"):
        parse(text)


@given(
    before=st.lists(st.sampled_from([b"\x10", b"a", b"\x10a", b"xyz"]), max_size=8),
    behind=st.binary(max_size=3),
    cuts=st.sets(st.integers(0, 40)),
)
def test_what_is_typed_before_goes_through_however_it_comes(before: list[bytes], behind: bytes, cuts: set[int]) -> None:
    # A ctrl-p at the very end belongs to the sequence as well as to what is before it, and is typed all the same.
    text = b"".join(before)
    typed = text + b"\x10\x11" + behind
    places = sorted({0, len(typed), *(cut for cut in cuts if cut < len(typed))})
    keys = DetachKeys(b"\x10\x11")
    through = b""
    for start, end in itertools.pairwise(places):
        some, pressed = keys.take(typed[start:end])
        through += some
        if pressed:
            break
    assert pressed
    assert through == text


def test_the_beginning_of_the_sequence_waits_for_the_next_key() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.take(b"a\x10") == (b"a", False)
    assert keys.take(b"b") == (b"\x10b", False)
    assert keys.take(b"\x10") == (b"", False)
    assert keys.take(b"\x11c") == (b"", True)
    assert DetachKeys(b"").take(b"\x10\x11") == (b"\x10\x11", False)
