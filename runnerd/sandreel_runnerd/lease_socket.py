"""The unix socket at which a session's programs ask for leases: one JSON object a line each way, one question a connection.

Asked: {"get": SLUG, "resource": …} or {"git": {"protocol", "host", "path"}}. Answered: {"base64": VALUE, "username", "variables",
"file_variable", "file_name"}, {"none": true} where nothing is granted for that place, or {"error": CODE, "message"}.
It lies in a directory of its own in memory, where there is one, that only the session's user may enter.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from sandreel_core.clock import new_token
from sandreel_core.contract.credential import Purpose
from sandreel_core.contract.lease import AskGit, AskLease
from sandreel_core.contract.session import Slug
from sandreel_core.errors import Denied, Malformed, NotFound, Refused, SandreelError, Unavailable, Unserved
from sandreel_core.log import Log
from sandreel_runnerd import peers
from sandreel_runnerd.leases import Given, Leases
from sandreel_runnerd.programs import ROOT, Programs

# More than any exec has programs that ask at one moment.
MAX_CONNECTIONS = 32
_SOCKET = "leases"
_MAX_QUESTION_BYTES = 8192
_QUESTION_WITHIN_S = 5.0
_SAY_WITHIN_S = 5.0


class _Question(Struct, frozen=True, forbid_unknown_fields=True):
    get: Slug | None = None
    git: AskGit | None = None
    resource: Purpose | None = None


class LeaseSocket:
    """One for a runnerd. `own`: where the programs are that ask here."""

    def __init__(self, leases: Leases, *, boot_id: str, boot_marker: str, own: str, log: Log) -> None:
        self._leases = leases
        self._boot_id = boot_id
        self._boot_marker = boot_marker
        self._own = own
        self._log = log
        self._open = 0

    @asynccontextmanager
    async def serve(self, path: Path) -> AsyncGenerator[None, None]:
        """While the context is open. Raises OSError."""
        server = await asyncio.start_unix_server(self._hear, path, limit=_MAX_QUESTION_BYTES, backlog=MAX_CONNECTIONS)
        try:
            yield
        finally:
            server.close()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._open >= MAX_CONNECTIONS:
                answer: dict[str, object] = _error("TOO_MANY", f"{MAX_CONNECTIONS} programs ask already")
            else:
                self._open += 1
                try:
                    answer = await self._answer(reader, writer.get_extra_info("socket"))
                finally:
                    self._open -= 1
            writer.write(msgspec.json.encode(answer) + b"\n")
            with suppress(OSError, TimeoutError):  # it has gone, or does not read
                async with asyncio.timeout(_SAY_WITHIN_S):
                    await writer.drain()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, connection: socket.socket) -> dict[str, object]:
        try:
            async with asyncio.timeout(_QUESTION_WITHIN_S):
                line = await reader.readline()
            question = msgspec.json.decode(line, type=_Question)
        except (TimeoutError, ValueError, msgspec.DecodeError, OSError):
            return _error("BAD_REQUEST", "the question is not in order")
        if (question.get is None) == (question.git is None):
            return _error("BAD_REQUEST", "give exactly one of get and git")
        pid = peers.peer_pid(connection)
        peer = None if pid is None else await asyncio.to_thread(peers.look, pid, self._boot_marker, own=self._own)
        if peer is None:
            return _error("NO_EXEC", "only a process of an exec of this session may ask")
        try:
            ask = msgspec.convert(
                {
                    "boot_id": self._boot_id,
                    "exec": peer.exec,
                    "slug": question.get,
                    "git": question.git,
                    "resource": question.resource,
                    "pid": peer.pid,
                    "program": peer.program or None,
                },
                AskLease,
            )
        except msgspec.ValidationError:
            return _error("NO_EXEC", "the exec that asks has no name that could be")
        return await self._lease(ask, peer.group)

    async def _lease(self, ask: AskLease, group: int) -> dict[str, object]:
        try:
            return _said(await self._leases.lease(ask, group))
        except Refused as refused:
            return _error(refused.code, refused.message)
        except Unserved:
            return _error("UNAVAILABLE", "there is no broker")
        except NotFound:
            return {"none": True}
        except Unavailable as error:
            return _error("UNAVAILABLE", f"the broker does not give it now: {error}")
        except (Malformed, Denied) as error:
            self._log.error("a lease is not in order", problem=str(error))
            return _error("UNAVAILABLE", "the broker's answer is not in order")
        except SandreelError as error:
            return _error("UNAVAILABLE", type(error).__name__)


@asynccontextmanager
async def lend(
    leases: Leases | None, boot_id: str, boot_marker: str, log: Log
) -> AsyncGenerator[Programs | None, None]:
    """Serve programs while the context is open, which gets what their environment has to say. None, which a session can
    live with: nothing can be sealed for this boot, or no socket can be made."""
    if leases is None:
        yield None
        return
    async with AsyncExitStack() as serving:
        programs = None
        try:
            # What `tempfile` would do, which takes as long to import as a tenth of a boot.
            place = Path(os.environ.get("TMPDIR") or "/tmp") / new_token("sandreel-")  # noqa: S108
            place.mkdir(mode=0o700)
            serving.callback(_remove, place)
            served = LeaseSocket(leases, boot_id=boot_id, boot_marker=boot_marker, own=str(ROOT), log=log)
            await serving.enter_async_context(served.serve(place / _SOCKET))
            programs = Programs(place / _SOCKET, os.environ)
        except OSError as error:
            log.warning("no program can ask for a lease", problem=error.strerror or str(error))
        yield programs


def _remove(place: Path) -> None:
    with suppress(OSError):  # somebody has put something into it, or has taken it away
        (place / _SOCKET).unlink(missing_ok=True)
        place.rmdir()


def _said(given: Given) -> dict[str, object]:
    lease = given.lease
    return {
        "base64": base64.b64encode(given.value).decode(),
        "username": lease.username,
        "variables": lease.variables,
        "file_variable": lease.file_variable,
        "file_name": lease.file_name,
    }


def _error(code: str, message: str) -> dict[str, object]:
    return {"error": code, "message": message}
