"""Starts one runnerd: its command line, environment, log and the pipe by which it gets its settings. Blocking."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from sandreel_core.contract.boot import BOOT_MARKER
from sandreel_core.errors import Unavailable
from sandreel_core.spawner import bubble, census
from sandreel_core.spawner.backend import BootSpec
from sandreel_core.spawner.workspace import Boot, Folder

NOFILE = {"default": "1024:4096", "agent": "4096:8192"}  # behaviour §2.4
TMP_BYTES = {"default": 128 * 1024 * 1024, "agent": 512 * 1024 * 1024}  # behaviour §2.4, besides the spool
INFO_TIMEOUT_S = 10.0
_TMP = "/tmp"  # noqa: S108 - the session's own where there is a box


def launch(
    folder: Folder,
    boot: Boot,
    spec: BootSpec,
    *,
    program: Sequence[str],
    user: tuple[int, int] | None,
    hidden: Sequence[Path] | None,
    started: Callable[[subprocess.Popen[bytes]], None],
) -> Boot:
    """Start it in a session of its own, write down its pid, and only then tell it who it is.

    hidden   directories that it must not see, in bubblewrap; None: a plain process
    started  is called at once with the child, so that it is reaped whatever comes
    Raises Unavailable when it ends at once, and OSError.
    """
    boxed = hidden is not None
    line = list(program)
    if shutil.which("prlimit"):
        line = ["prlimit", "--core=0", f"--nofile={NOFILE[spec.profile]}", *line]
    workspace = bubble.INSIDE if boxed else str(folder.workspace)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": f"{workspace}/.home",
        "TMPDIR": _TMP,
        BOOT_MARKER: boot.marker,
    }
    log = folder.open_log()
    info, told = os.pipe()
    try:
        if hidden is not None:
            tmp_bytes = TMP_BYTES[spec.profile] + spec.settings.spool_bytes
            line = bubble.arguments(
                workspace=folder.workspace, hidden=hidden, program=line, user=user, tmp_bytes=tmp_bytes
            )
            line[1:1] = ["--info-fd", str(told)]
            options: dict[str, Any] = {"pass_fds": (told,), "cwd": "/"}
        else:
            options = {"cwd": folder.workspace}
            if user is not None:
                options |= {"user": user[0], "group": user[1], "extra_groups": []}
        given, settings = os.pipe()
        with os.fdopen(settings, "wb") as pipe:
            try:
                child = subprocess.Popen(
                    line, stdin=given, stdout=log, stderr=log, env=environment, start_new_session=True, **options
                )
            finally:
                os.close(given)
            started(child)
            os.close(told)
            told = -1
            pid = inner_pid(info) if boxed else child.pid
            since = census.start_time(pid) if pid is not None else None
            if pid is None or since is None:
                raise Unavailable(f"the session's process ended at once: {folder.tail()}")
            boot = replace(boot, pid=pid, started=since, outer=child.pid, state="started")
            folder.write(boot)
            # Only now does runnerd learn who it is: what is killed before this line has done nothing.
            pipe.write(msgspec.json.encode(replace(spec.settings, workspace=workspace)))
    except BrokenPipeError as error:
        raise Unavailable(f"the session's process ended at once: {folder.tail()}") from error
    finally:
        os.close(log)
        os.close(info)
        if told >= 0:
            os.close(told)
    return boot


def inner_pid(info: int) -> int | None:
    """The pid of bubblewrap's child, as bwrap writes it on --info-fd; None when it ended without a word."""
    text = b""
    limit = time.monotonic() + INFO_TIMEOUT_S
    while True:
        readable, _, _ = select.select([info], [], [], max(0.0, limit - time.monotonic()))
        chunk = os.read(info, 4096) if readable else b""
        text += chunk
        with suppress(ValueError, KeyError):
            return int(json.loads(text)["child-pid"])
        if not chunk:
            return None
