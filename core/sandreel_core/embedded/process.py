"""A role as a process of its own: its log file, its pid file, and the moment at which it says that it serves."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sandreel_core.embedded import pidfile
from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_core.runtime import OPERATOR_ERROR

# A log is cut at this size, and one older part is kept: a role that complains for a month fills no disk.
MAX_LOG_BYTES = 16 << 20
_TAIL_BYTES = 4096

# How a role is started: nothing of the directory that it is started in is imported.
PYTHON = (sys.executable, "-P", "-m")


class Process:
    """Starts `command` again and again, one at a time. It is a session of its own, so that a Ctrl-C meant for
    whoever supervises it does not end it first, and so that it outlives a supervisor that was killed.

    more  variables beside `env` that are chosen anew for every start, once the one before has ended
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        directory: Path,
        log: Path,
        pid: Path,
        ready_timeout_s: float = 30.0,
        grace_s: float = 10.0,
        more: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._env = dict(env)
        self._more = more
        self._directory = directory
        self._log = log
        self._pid_file = pid
        self._ready_timeout_s = ready_timeout_s
        self._grace_s = grace_s
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child and self._child.returncode is None else None

    async def start(self) -> None:
        """Returns when the role says that it is ready. One that was left over is ended first.

        Raises Misconfigured with the role's own line when it ends with 2, Unavailable when it ends otherwise or is
        not ready in time (it is ended then).
        """
        await pidfile.end(self._pid_file, grace_s=self._grace_s)
        cut(self._log)
        offset = self._log.stat().st_size if self._log.exists() else 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind("")  # Linux chooses an abstract address, which no directory holds and no file outlives
            listener.setblocking(False)
            address = "@" + listener.getsockname()[1:].decode()
            with self._log.open("ab") as log:
                self._child = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._env | dict(self._more()) | {"NOTIFY_SOCKET": address},
                    cwd=self._directory,
                    start_new_session=True,
                )
            try:
                pidfile.write(self._pid_file, self._child.pid)
                await self._await_ready(listener, self._child, offset)
            except BaseException:
                await self.stop()
                raise

    async def _await_ready(self, listener: socket.socket, child: asyncio.subprocess.Process, offset: int) -> None:
        loop = asyncio.get_running_loop()
        said = asyncio.ensure_future(loop.sock_recv(listener, 256))
        ended = asyncio.ensure_future(child.wait())
        try:
            await asyncio.wait((said, ended), timeout=self._ready_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if said.done():
                return
            last = tail(self._log, offset)
            if not ended.done():
                raise Unavailable(f"{self.name} was not ready after {self._ready_timeout_s:g} s; see {self._log}")
            if child.returncode == OPERATOR_ERROR:
                raise Misconfigured(last or f"{self.name} ended with 2; see {self._log}")
            raise Unavailable(f"{self.name} ended with {child.returncode}; see {self._log}")
        finally:
            for task in (said, ended):
                task.cancel()
            await asyncio.gather(said, ended, return_exceptions=True)

    async def wait(self) -> int:
        """The exit status (negative: the signal), as soon as it has ended."""
        return await self._child.wait() if self._child else 0

    async def kill(self) -> None:
        """SIGKILL; returns when it has ended."""
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
            await self._child.wait()

    async def stop(self) -> None:
        """SIGTERM, after the grace SIGKILL. Returns when it has ended."""
        child = self._child
        if child is not None and child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            try:
                await asyncio.wait_for(child.wait(), self._grace_s)
            except TimeoutError:
                await self.kill()
        self._pid_file.unlink(missing_ok=True)


def cut(log: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
    """Move what a log holds to `<name>.1` when it has grown beyond `max_bytes`. Its writer appends and need not know.

    On a full disk it is cut and not kept: that makes room. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > max_bytes:
            older = log.with_name(log.name + ".1")
            try:
                shutil.copyfile(log, older)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                older.unlink(missing_ok=True)
            os.truncate(log, 0)


def tail(log: Path, offset: int = 0) -> str:
    """The last line that was written behind `offset`, "" if none."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(offset, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
    return ""
