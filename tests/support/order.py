"""In which order the workers of xdist get the tests, and which of them go to one worker together.

What a module's tests share (a stack, most often) is made once: without this, every worker that gets one of them would make it.
And what takes long goes first, so that at the end there are only short tests to share out (`--no-loadscope-reorder`:
xdist itself would go by the number of tests in a group).
"""

from __future__ import annotations

import pytest

# Directories whose tests take long, the longest first; the place of a group is its first test's.
_FIRST = ("docker", "image", "system", "core/embedded", "core/spawner", "bridge", "runnerd", "projections")


@pytest.hookimpl(tryfirst=True)  # xdist writes the groups down in its own
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):
        return  # one process: as they stand
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("xdist_group") is None and _shares(item):
            item.add_marker(pytest.mark.xdist_group(_module(item)))
    items.sort(key=lambda item: _rank(item.nodeid.removeprefix("tests/")))


def pytest_collection_finish(session: pytest.Session) -> None:
    """With a pytest that xdist does not know (9.2 and xdist 3.8), groups are lost without a word: everything passes, later."""
    if not getattr(session.config.option, "loadgroup", False):
        return
    lost = [item.nodeid for item in session.items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
    if lost:
        pytest.exit(f"xdist has not written down the group of {lost[0]}: this pytest is not one that it knows", 4)


def _shares(item: pytest.Function) -> bool:
    """Whether there is a fixture that the tests of its module have together. The names of pytest-asyncio's own, a loop
    to run in, begin with an underscore."""
    fixtures = item._fixtureinfo.name2fixturedefs.items()
    return any(not name.startswith("_") and any(each.scope == "module" for each in found) for name, found in fixtures)


def _rank(name: str) -> int:
    return next((place for place, first in enumerate(_FIRST) if name.startswith(f"{first}/")), len(_FIRST))


def _module(item: pytest.Function) -> str:
    """Two of its path's parts, in letters that `.ci/run` knows."""
    return "-".join(item.path.with_suffix("").parts[-2:])
