"""What an exec's environment says so that its programs can ask for leases: where the socket is, and how git finds its helper."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from sandreel_core.contract.boot import LEASES_SOCKET, PROGRAMS, PROGRAMS_PYTHON

ROOT = Path(__file__).parent / "programs"
# `bin` holds what is there for every session, `gh` what stands in front of a program that the session has itself.
_BIN, _GH = ROOT / "bin", ROOT / "gh"
# What a session's image has for login shells, whose /etc/profile begins with a PATH of its own. Where it is not (a plain
# process of some machine), bash is told by BASH_ENV (bash(1), "INVOCATION"), which `bash -lc` reads too; but not in the place
# of a BASH_ENV that an exec has for itself.
_PROFILE = Path("/etc/profile.d/sandreel.sh")
_FOR_BASH = ROOT / "path.sh"
# git-config(1), "GIT_CONFIG_COUNT": pairs in the environment, which stand above every file. Known since git 2.31.
_COUNT = "GIT_CONFIG_COUNT"
_MAX_COUNT = 10_000
_HELPER = (
    ("credential.helper", str(_BIN / "git-credential-sandreel")),
    # Says which repository is meant, to which a minted token is then limited.
    ("credential.https://github.com.useHttpPath", "true"),
)


class Programs:
    """`socket`: where they ask. `base`: the environment that execs begin with, in which their own programs are found. `profile`:
    the file that tells login shells of ours, where there is one."""

    def __init__(self, socket: Path, base: Mapping[str, str], profile: Path = _PROFILE) -> None:
        self._socket = socket
        self._for_bash = {} if profile.exists() else {"BASH_ENV": str(_FOR_BASH)}
        directories = [str(_BIN)]
        if any(os.access(f"{place}/gh", os.X_OK) for place in base.get("PATH", os.defpath).split(os.pathsep)):
            directories.insert(0, str(_GH))
        self._path = os.pathsep.join(directories)

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """`env` with what they need. What the exec itself says to git stays."""
        said = env.get(_COUNT, "0")
        count = int(said) if said.isdecimal() and int(said) <= _MAX_COUNT else 0
        pairs: dict[str, str] = {}
        for number, (key, value) in enumerate(_HELPER, count):
            pairs |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return {
            **self._for_bash,
            **env,
            **pairs,
            _COUNT: str(count + len(_HELPER)),
            LEASES_SOCKET: str(self._socket),
            PROGRAMS: self._path,
            PROGRAMS_PYTHON: sys.executable,
            "PATH": os.pathsep.join([self._path, env.get("PATH", os.defpath)]),
        }
