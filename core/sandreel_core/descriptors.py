"""How many files a process may have open."""

from __future__ import annotations

import resource

from sandreel_core.errors import Misconfigured


def make_room(files: int, setting: str) -> None:
    """Let this process have so many descriptors, which `setting` asks for. Raises Misconfigured when the machine does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        raise Misconfigured(
            f"{setting} needs {files} open files, and this process may have {hard}: lower the one or raise the other"
            " (ulimit -n)"
        )
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
