"""Roles that hold secrets close their memory before they read any."""

from __future__ import annotations

import runpy
import sys

import pytest

from sandreel_core import runtime
from sandreel_runnerd import init


@pytest.mark.parametrize("module", ["sandreel_bridge", "sandreel_bridge.broker", "sandreel_bridge.gateway"])
def test_memory_is_closed_to_others_of_the_same_user_before_settings_are_read(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `guard` does is tested with runnerd's own process (tests/runnerd/test_init.py)."""
    done: list[str] = []

    def run(name: str, *_: object, **__: object) -> int:
        done.append(f"settings of {name}")
        return 7

    monkeypatch.setattr(init, "guard", lambda: done.append("guard"))
    monkeypatch.setattr(runtime, "run_role", run)
    monkeypatch.delitem(sys.modules, f"{module}.__main__", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 7
    assert done == ["guard", f"settings of {module.rpartition('.')[2].removeprefix('sandreel_')}"]
