"""Where a turn's program works, by what was asked and where its session's workspace is."""

from __future__ import annotations

import pytest

from sandreel_bridge.attempt import Attempt
from sandreel_bridge.journal import Name
from sandreel_bridge.launching import below, run_spec, workdir_of
from tests.support.turns import folded, preparing, requested


@pytest.mark.parametrize(
    ("asked", "workspace", "expected"),
    [
        (None, "/workspace", "/workspace/repo"),
        ("app/web", "/workspace", "/workspace/app/web"),
        ("/workspace/app", "/workspace", "/workspace/app"),
        ("/workspace", "/workspace", "/workspace"),
        (None, "/srv/s1", "/srv/s1/repo"),
        ("/workspace/app", "/srv/s1", "/srv/s1/app"),
        ("app", "/srv/s1", "/srv/s1/app"),
        ("/workspace", "/srv/s1", "/srv/s1"),
    ],
)
def test_a_working_directory_is_below_the_workspace_wherever_that_is(
    asked: str | None, workspace: str, expected: str
) -> None:
    assert workdir_of(asked, workspace) == expected


@pytest.mark.parametrize(("path", "expected"), [("a/b", "a/b"), ("/workspace/a/b", "a/b"), ("/workspace", "")])
def test_a_path_of_the_workspace_is_relative_to_it(path: str, expected: str) -> None:
    assert below(path) == expected


def test_an_attempt_says_where_its_sessions_workspace_is() -> None:
    for workspace, home in ((None, "/workspace/.home"), ("/srv/s1", "/srv/s1/.home")):
        turn = folded(requested(), preparing(workspace=workspace, agent_session_id="a1"))
        spec = run_spec(Attempt.of(Name("acme", "s1", "t1"), turn), gateway_url="http://g", browser=False)
        assert (spec.home, spec.resume, spec.model) == (home, "a1", "m")
