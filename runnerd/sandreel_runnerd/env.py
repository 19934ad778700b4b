"""The environment that a session's execs share: patched by commands, folded from the log at a boot."""

from __future__ import annotations

from collections.abc import Mapping

from sandreel_core.contract.workspace import EnvPatched, PatchEnv
from sandreel_core.environment import patch


class EnvStore:
    """At most 128 variables of at most 32 KiB (`core/environment.py`). Kept over a restart by the log:
    bootstrap hands what the session's request and every `env.patched` add up to."""

    def __init__(self, folded: Mapping[str, str]) -> None:
        self._values, _, _, self.denied = patch({}, folded)

    @property
    def values(self) -> dict[str, str]:
        """A copy."""
        return dict(self._values)

    def preview(self, command: PatchEnv) -> EnvPatched:
        """What `patch` would say."""
        _, applied, removed, denied = patch(self._values, command.set, command.unset)
        return EnvPatched(set=applied, unset=removed, denied=list(dict.fromkeys(denied)))

    def patch(self, command: PatchEnv) -> EnvPatched:
        """Apply it and say what it did. Names that were denied change nothing and come back."""
        self._values, applied, removed, denied = patch(self._values, command.set, command.unset)
        return EnvPatched(set=applied, unset=removed, denied=list(dict.fromkeys(denied)))
