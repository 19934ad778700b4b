"""The env store: caps, and names that are kept."""

from __future__ import annotations

from sandreel_core.contract.workspace import EnvPatched, PatchEnv
from sandreel_runnerd.env import EnvStore


def test_a_patch_sets_unsets_and_names_what_it_denied() -> None:
    store = EnvStore({"A": "1", "PATH": "/evil"})
    assert store.values == {"A": "1"}
    assert store.denied == ["PATH"]
    done = store.patch(
        PatchEnv(
            set={"B": "2", "http_proxy": "x", "Sandreel_X": "y", "BIG": "z" * 32_769}, unset=["A", "home", "NEVER"]
        )
    )
    assert done == EnvPatched(set={"B": "2"}, unset=["A", "NEVER"], denied=["home", "http_proxy", "Sandreel_X", "BIG"])
    assert store.values == {"B": "2"}


def test_the_129th_name_is_denied_and_an_old_one_may_be_overwritten() -> None:
    store = EnvStore({f"N{i}": "" for i in range(128)})
    assert store.patch(PatchEnv(set={"N5": "new", "N128": ""})) == EnvPatched(set={"N5": "new"}, denied=["N128"])
