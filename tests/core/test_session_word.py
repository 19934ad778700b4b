"""The word in which people read how a session is."""

from __future__ import annotations

from typing import get_args

import pytest

from sandreel_core.session import ABSENT, Phase
from sandreel_core.session_word import word


@pytest.mark.parametrize("phase", get_args(Phase))
def test_every_phase_of_a_session_that_exists_has_a_word(phase: Phase) -> None:
    for pinned in (False, True):
        for working in (False, True):
            assert (word(phase, pinned=pinned, working=working) is None) is (phase in (*ABSENT, "destroying"))


def test_only_a_session_that_is_up_works_or_is_always_on() -> None:
    assert word("ready", pinned=True, working=True) == "Working"
    assert word("ready", pinned=True, working=False) == "Always-on"
    assert word("ready", pinned=False, working=False) == "Ready"
    assert word("stopped", pinned=True, working=True) == "Sleeping"
    assert word("degraded", pinned=True, working=True) == "Recovering"
