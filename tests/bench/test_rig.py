"""What measurements stand on."""

from __future__ import annotations

import pytest

from bench.__main__ import MEASURES
from bench.rig import ORG, scaled
from sandreel_core.contract.subjects import SessionSubjects


@pytest.mark.parametrize("scale", [1.0, 0.2, 1e-07, 10.0, 1e06, 0.123456789])
def test_a_session_of_any_scale_has_an_id(scale: float) -> None:
    assert SessionSubjects(ORG, scaled("copied", scale)).session.startswith("copied")


def test_sessions_of_two_scales_are_two() -> None:
    assert len({scaled("copied", scale) for scale in (0.1, 1.0, 10.0)}) == 3


def test_help_says_of_every_measurement_what_it_measures() -> None:
    assert [name for name, measure in MEASURES.items() if not (measure.__doc__ or "").strip()] == []
