"""Which volumes of spares hold nothing of anybody's."""

from __future__ import annotations

import pytest

from sandreel_core.spawner.docker_remains import holds_nothing
from sandreel_core.spawner.docker_workspace import Entry, archive


def made_of(*names: str) -> bytes:
    return archive([Entry(name, 0o700, (1, 1)) for name in names])


@pytest.mark.parametrize("names", [("workspace",), ("workspace", "workspace/.home")])
def test_what_every_workspace_begins_with_is_nothing(names: tuple[str, ...]) -> None:
    assert holds_nothing(made_of(*names))


@pytest.mark.parametrize("more", ["workspace/a", "workspace/.home/.cache", f"workspace/{'x' * 240}"])
def test_anything_more_is_something_also_where_it_is_cut_off(more: str) -> None:
    whole = made_of("workspace", "workspace/.home", more, *(f"workspace/{number}" for number in range(64)))
    assert not holds_nothing(whole)
    assert not holds_nothing(whole[:8192])


@pytest.mark.parametrize("broken", [b"", b"no archive"])
def test_what_cannot_be_read_counts_as_something(broken: bytes) -> None:
    assert not holds_nothing(broken)
