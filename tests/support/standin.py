"""Stands in for runnerd in tests of the backends: needs nothing but the standard library.

Reads its settings, says in the workspace what it sees, starts what the session's files ask for, and waits for
SIGTERM. Files in the workspace steer it: `stubborn` (ignore SIGTERM), `leave` (start a grandchild in a session of its
own), `look` (names a path: what is there?). On SIGUSR1 it takes memory until there is none.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def main() -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    text = sys.stdin.read()
    if not text:
        return 75  # as a runnerd whom nobody tells who it is
    settings = json.loads(text)
    workspace = Path(settings["workspace"])
    seen = {
        "pid": os.getpid(),
        "uid": os.getuid(),
        "boot_id": settings["boot_id"],
        "cwd": str(Path.cwd()),
        "env": dict(os.environ),
        "argv": sys.argv,
        "root": sorted(path.name for path in Path("/").iterdir()),
    }
    if (workspace / "leave").exists():
        subprocess.Popen(["sleep", "600"], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    if (workspace / "look").exists():
        place = Path((workspace / "look").read_text())
        seen["found"] = sorted(path.name for path in place.iterdir()) if place.exists() else None
    draft = workspace / "seen.new"
    draft.write_text(json.dumps(seen))
    draft.rename(workspace / "seen.json")
    while True:
        if signal.sigwait({signal.SIGTERM, signal.SIGUSR1}) == signal.SIGUSR1:
            hoard = []
            while True:
                hoard.append(bytearray(1 << 20))
        if not (workspace / "stubborn").exists():
            return 0


if __name__ == "__main__":
    raise SystemExit(main())
