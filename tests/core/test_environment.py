"""Which variables may be set: names kept by sandreel in any case, 128 names, 32 KiB a value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_core.environment import is_denied, patch

FULL = {f"V{i}": "x" for i in range(128)}


@pytest.mark.parametrize(
    "name", ["PATH", "path", "Home", "TMPDIR", "SANDREEL_X", "sandreel_x", "http_proxy", "NO_PROXY"]
)
def test_kept_names_are_denied_in_any_case(name: str) -> None:
    assert is_denied(name)
    assert patch({}, {name: "x"}, [name]) == ({}, {}, [], [name, name])


def test_values_are_measured_in_bytes() -> None:
    assert patch({}, {"A": "ü" * 16_384})[3] == []
    assert patch({}, {"A": "ü" * 16_384 + "x"})[3] == ["A"]
    assert patch({}, {"A": "a\0b"})[3] == ["A"]


def test_at_the_limit_an_existing_name_may_be_overwritten_and_a_new_one_not() -> None:
    env, applied, _, denied = patch(FULL, {"V0": "y", "NEW": "z"})
    assert (env["V0"], applied, denied) == ("y", {"V0": "y"}, ["NEW"])
    assert patch(FULL, {"NEW": "z"}, ["V0"])[3] == []


@given(st.dictionaries(st.sampled_from(["A", "B", "PATH", "C"]), st.text(max_size=5)), st.lists(st.sampled_from("ABC")))
def test_applying_what_was_applied_changes_nothing(set: dict[str, str], unset: list[str]) -> None:
    env, applied, removed, _ = patch({"A": "1"}, set, unset)
    assert patch(env, applied)[0] == env
    assert not {*removed} & {*env} - {*applied}
