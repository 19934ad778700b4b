"""Answers what is asked over `req.runnerd.<org>.<session>.<verb>`; the verbs are the keys of `Service.verbs`."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from sandreel_core.bus.port import Bus, Handler
from sandreel_core.contract import files as f
from sandreel_core.contract import runnerd as r
from sandreel_core.contract.lease import Forget
from sandreel_core.contract.requests import Done, Request
from sandreel_core.contract.workspace import FileDeleted, FileWritten, WorkspaceEvent
from sandreel_core.errors import Malformed, Refused, Unavailable
from sandreel_core.log import Log
from sandreel_runnerd.activity import Activity
from sandreel_runnerd.answers import Answers
from sandreel_runnerd.files import Files

# Of runnerd's threads file requests and downloads take so many at most: the others are for execs and the bus.
_FILE_THREADS = 3
_FETCH_THREADS = 2
# A download's thread is awaited for so long after it was told to end.
_ABORT_GRACE_S = 5.0
_SERVE_AGAIN_S = 0.2


class Duties(Protocol):
    """What the daemon does when it is asked."""

    def health(self) -> r.Health: ...
    async def drain(self, commands_until: int) -> list[str]: ...
    def lift(self) -> None: ...
    def hold(self, hold: bool) -> None: ...
    async def keys(self, exec_id: str, offset: int, data: bytes, writer: str | None) -> r.KeysTaken: ...
    def forget(self, slug: str) -> None: ...


class Service:
    """One per boot. What a handler raises the bus carries to who asked."""

    def __init__(
        self,
        duties: Duties,
        files: Files,
        answers: Answers,
        activity: Activity,
        *,
        fetch_private: bool = False,
    ) -> None:
        """fetch_private: downloads may come from private addresses (tests have no other)."""
        self._duties = duties
        self._files = files
        self._answers = answers
        self._activity = activity
        self._fetch_private = fetch_private
        self._file_turns = asyncio.Semaphore(_FILE_THREADS)
        self._fetch_turns = asyncio.Semaphore(_FETCH_THREADS)

    @property
    def verbs(self) -> Mapping[str, Callable[[str, bytes], Awaitable[bytes]]]:
        return {
            "health": self._health,
            "drain": self._drain,
            "lift": self._lift,
            "hold": self._hold,
            "keys": self._keys,
            "forget": self._forget,
            "list_files": self._list,
            "read_file": self._read,
            "write_file": self._write,
            "delete_file": self._delete,
            "fetch_file": self._fetch,
        }

    async def _health(self, subject: str, body: bytes) -> bytes:
        return msgspec.json.encode(self._duties.health())

    async def _drain(self, subject: str, body: bytes) -> bytes:
        request = _decoded(body, r.Drain)
        live = await self._duties.drain(request.commands_until)
        return msgspec.json.encode(r.Drained(live_execs=live, idle_s=self._activity.idle_s))

    async def _lift(self, subject: str, body: bytes) -> bytes:
        self._duties.lift()
        return msgspec.json.encode(Done())

    async def _forget(self, subject: str, body: bytes) -> bytes:
        self._duties.forget(_decoded(body, Forget).slug)
        return msgspec.json.encode(Done())

    async def _hold(self, subject: str, body: bytes) -> bytes:
        request = _decoded(body, r.Hold)
        self._duties.hold(request.hold)
        return msgspec.json.encode(Done())

    async def _keys(self, subject: str, body: bytes) -> bytes:
        request = _decoded(body, r.Keys)
        try:
            data = base64.b64decode(request.base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused("BAD_REQUEST", "the field base64 is not base64") from error
        if len(data) > r.MAX_KEYS_BYTES:
            raise Refused("BAD_REQUEST", f"at most {r.MAX_KEYS_BYTES} bytes are taken at once")
        taken = await self._duties.keys(request.exec, request.offset, data, request.writer)
        self._activity.touch()
        return msgspec.json.encode(taken)

    async def _list(self, subject: str, body: bytes) -> bytes:
        return msgspec.json.encode(await self._in_thread(self._files.list, _decoded(body, f.ListFiles)))

    async def _read(self, subject: str, body: bytes) -> bytes:
        return msgspec.json.encode(await self._in_thread(self._files.read, _decoded(body, f.ReadFile)))

    async def _write(self, subject: str, body: bytes) -> bytes:
        request = _decoded(body, f.WriteFile)
        with self._activity.lasting():
            stored, path = await self._in_thread(self._files.write, request)
            if path is not None:
                event = FileWritten(path=path, size=stored.size, sha256=stored.sha256 or "", actor=request.actor)
                await self._record(event, request.actor)
        return msgspec.json.encode(stored)

    async def _delete(self, subject: str, body: bytes) -> bytes:
        request = _decoded(body, f.DeleteFile)
        with self._activity.lasting():
            path = await self._in_thread(self._files.delete, request)
            await self._record(FileDeleted(path=path, actor=request.actor), request.actor)
        return msgspec.json.encode(Done())

    async def _fetch(self, subject: str, body: bytes) -> bytes:
        request = _decoded(body, f.FetchFile)
        if self._fetch_turns.locked():
            raise Refused("FETCH_LIMIT", f"{_FETCH_THREADS} downloads are under way; wait for one")
        with self._activity.lasting():
            stored, path = await self._download(request)
            event = FileWritten(path=path, size=stored.size, sha256=stored.sha256 or "", actor=request.actor)
            await self._record(event, request.actor)
        return msgspec.json.encode(stored)

    async def _download(self, request: f.FetchFile) -> tuple[f.FileStored, str]:
        # Most sessions never download: `http.client` stays out of their memory.
        from sandreel_runnerd.fetch import Fetch  # noqa: PLC0415

        fetch = Fetch(self._files, request, allow_private=self._fetch_private)
        await self._fetch_turns.acquire()
        work = asyncio.ensure_future(asyncio.to_thread(fetch.run))
        # Its turn lasts as long as its thread, however long ago it was given up.
        work.add_done_callback(lambda _: self._fetch_turns.release())
        try:
            done, _ = await asyncio.wait({work}, timeout=request.timeout_s)
            if not done:
                fetch.abort()
                done, _ = await asyncio.wait({work}, timeout=_ABORT_GRACE_S)
            if not done:
                # Stuck in the resolver, which has a limit of its own; it stores nothing any more.
                work.add_done_callback(_forget)
                raise Refused("FETCH_TIMEOUT", f"the download was not done within {request.timeout_s:g} s")
            return work.result()
        except asyncio.CancelledError:
            fetch.abort()
            work.add_done_callback(_forget)
            raise

    async def _in_thread(self, work: Callable[[Any], Any], request: Request) -> Any:
        async with self._file_turns:
            return await asyncio.to_thread(work, request)

    async def _record(self, event: WorkspaceEvent, actor: str | None) -> None:
        """The change is made; who asked hears so when it is in the log."""
        stored = await self._answers.changed(event, actor=actor)
        await asyncio.shield(stored)


async def keep_serving(bus: Bus, subject: str, handler: Handler, log: Log) -> None:
    """Serve one verb for ever: a connection that is lost before it was begun ends nothing."""
    while True:
        try:
            async with bus.serve(subject, handler):
                await asyncio.get_running_loop().create_future()
        except Unavailable as error:
            log.info("not served yet", subject=subject, problem=str(error))
        await asyncio.sleep(_SERVE_AGAIN_S)
        await bus.wait_connected()


def _forget(work: asyncio.Future[Any]) -> None:
    if not work.cancelled():
        work.exception()


def _decoded(body: bytes, type: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"the request is not in order: {error}") from error
