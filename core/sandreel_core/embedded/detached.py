"""A process that outlives its starter: started, awaited until it says that it serves, and left alone."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from sandreel_core.embedded.process import cut, tail
from sandreel_core.errors import Misconfigured, Unavailable

_POLL_S = 0.05


def start(command: Sequence[str], log: Path, *, within_s: float) -> int:
    """Its pid, as soon as it is ready. Blocking.

    Raises Misconfigured with its last line when it ends before, Unavailable when it is not ready `within_s`.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        cut(log)
        output = log.open("ab")
    except OSError as error:
        raise Misconfigured(
            f"{log} cannot be written ({(error.strerror or 'error').lower()}): give another --data"
        ) from error
    with output, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("")
        offset = output.tell()
        address = "@" + listener.getsockname()[1:].decode()
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | {"NOTIFY_SOCKET": address},
            cwd="/",
            start_new_session=True,
        )
        deadline = time.monotonic() + within_s
        while not select.select([listener], [], [], _POLL_S)[0]:
            if child.poll() is not None:
                raise Misconfigured(
                    tail(log, offset).removeprefix("sandreel: ") or f"it ended with {child.returncode}; see {log}"
                )
            if time.monotonic() > deadline:
                child.terminate()
                raise Unavailable(f"it was not ready after {within_s:g} s; see {log}")
    child.returncode = 0  # it lives on without us: Popen need not warn that nobody waits for it
    return child.pid
