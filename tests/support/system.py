"""The whole of sandreel for system tests: a stack of real processes, and hands that kill them.

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site():
    async with open_site() as site:
        yield site
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from sandreel_core.archive import manifests, read
from sandreel_core.bus.port import Stored
from sandreel_core.client import Client, ClientSettings, SessionInfo
from sandreel_core.contract.runnerd import Heartbeat, Hold
from sandreel_core.embedded.stack import Stack
from sandreel_core.errors import Unavailable
from sandreel_core.settings import load
from sandreel_core.spawner.backend import Key as Name
from sandreel_core.spawner.workspace import Boot, Folder
from tests.support import system_job
from tests.support.system_job import EXIT_CODE, STREAMS, Job
from tests.support.system_log import Told, check_log, check_views, stored_rows, whole_log
from tests.support.system_readers import Account, Attached, Watcher

ORG = "default"
STREAM = "REEL-0"
_POLL_S = 0.05
# Small and quick, so that faults need not be long: a 2 MiB spool, a duplicate window of 1 s, heartbeats that are late
# after 3 s.
SETTINGS = {
    "SANDREEL_BUS_DUPLICATE_WINDOW_S": "1",
    "SANDREEL_SPAWNER_RUNNERD_SPOOL_BYTES": str(2 << 20),
    "SANDREEL_SPAWNER_RUNNERD_HEARTBEAT_S": "0.5",
    "SANDREEL_SPAWNER_LATE_S": "3",
    "SANDREEL_SPAWNER_MAX_SESSIONS": "200",
    "SANDREEL_SPAWNER_MAX_SESSIONS_PER_ORG": "200",
}


async def until(what: Callable[[], Awaitable[bool]] | Callable[[], bool], why: str, *, timeout_s: float = 30) -> None:
    """Ask until it is so: for what tells nobody. Fails with `why` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = what()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < deadline, f"after {timeout_s:g} s still not: {why}"
        await asyncio.sleep(_POLL_S)


class Site:
    """A stack, a client of it, and what a test does with both."""

    def __init__(self, stack: Stack, client: Client) -> None:
        self.stack = stack
        self.client = client
        self._names = 0

    @property
    def data(self) -> Path:
        return self.stack.data

    @property
    def archive(self) -> Path:
        return self.data / "archive"

    # -- work

    async def session(self, name: str = "s", **fields: Any) -> str:
        """A new session that is ready."""
        self._names += 1
        return (await self.client.create_session(ORG, f"{name}-{self._names}", timeout_s=60, **fields)).session

    def folder(self, session: str) -> Folder:
        return Folder(self.stack.place.state, Name(ORG, session))

    def boot(self, session: str) -> Boot:
        boot = self.folder(session).read()
        assert boot is not None, f"session {session} has no boot"
        return boot

    async def job(self, session: str, name: str = "job", **shape: Any) -> Job:
        """The chatty job, accepted."""
        await self.client.exec(ORG, session, system_job.argv(name, **shape), exec=name, answer_timeout_s=60)
        return Job(name, session, self.folder(session).workspace)

    def watcher(self, job: Job) -> Watcher:
        return Watcher(self.client, ORG, job.session, job.id)

    def attached(self, job: Job) -> Attached:
        return Attached(self.data, ORG, job.session, job.id)

    # -- faults

    async def kill(self, *names: str) -> None:
        """SIGKILL parts of the stack, at once; returns when all of them serve again."""
        parts = [self.stack.parts[name] for name in names]
        before = [part.starts for part in parts]
        await asyncio.gather(*(part.kill() for part in parts))
        await asyncio.gather(*(part.ready(after=starts) for part, starts in zip(parts, before, strict=True)))

    async def kill_and_hold(self, *names: str) -> None:
        """SIGKILL parts of the stack; they stay away until `release`."""
        await asyncio.gather(*(self.stack.parts[name].kill(hold=True) for name in names))

    async def release(self, *names: str) -> None:
        """Let them start; returns when they serve."""
        before = [self.stack.parts[name].starts for name in names]
        for name in names:
            self.stack.parts[name].release()
        parts = [self.stack.parts[name] for name in names]
        await asyncio.gather(*(part.ready(after=starts) for part, starts in zip(parts, before, strict=True)))

    async def hold(self, session: str, hold: bool) -> None:
        """Have its runnerd hold output back, as when the stream is nearly full, or let it go."""
        subject = self.client.subjects(ORG, session).request("runnerd", "hold")
        await self.client.bus.request(subject, msgspec.json.encode(Hold(hold=hold)))

    def kill_runnerd(self, session: str) -> Boot:
        boot = self.boot(session)
        os.kill(boot.pid, signal.SIGKILL)
        return boot

    # -- what it does now

    async def heartbeat(
        self, session: str, where: Callable[[Heartbeat], bool] = lambda beat: True, *, timeout_s: float = 30
    ) -> Heartbeat:
        """The first heartbeat from now on that is so."""
        beats: asyncio.Queue[bytes] = asyncio.Queue()
        subject = self.client.subjects(ORG, session).heartbeat()
        async with asyncio.timeout(timeout_s):
            async with self.client.bus.listen(subject, lambda _, body: beats.put_nowait(body)):
                while not where(beat := msgspec.json.decode(await beats.get(), type=Heartbeat)):
                    pass
        return beat

    async def waits(self, job: Job, *, for_s: float = 1.5, timeout_s: float = 60) -> None:
        """Returns when the child has printed nothing for a while: it is made to wait."""
        seen, since = -1, time.monotonic()
        async with asyncio.timeout(timeout_s):
            while time.monotonic() - since < for_s:
                if (now := job.printed_bytes()) != seen:
                    seen, since = now, time.monotonic()
                await asyncio.sleep(_POLL_S)

    async def stopped(self, session: str) -> SessionInfo:
        """The session, when it has come to rest."""
        async with asyncio.timeout(60), aclosing(self.client.follow_session(ORG, session)) as states:
            async for info in states:
                if info.phase in ("stopped", "failed", "destroyed"):
                    return info
        raise AssertionError("the session's log ended")

    # -- verdicts

    async def log(self) -> list[Stored]:
        """The whole log: what is archived, and what is in the stream, by sequence."""
        messages = {stored.sequence: stored for stored in await whole_log(self.client.bus)}
        for manifest in manifests(self.archive, STREAM):
            messages |= {stored.sequence: stored for stored in read(self.archive, manifest)}
        return [messages[sequence] for sequence in sorted(messages)]

    async def projected(self, *, timeout_s: float = 60) -> None:
        """As soon as the views have read all that is in the stream now."""
        last = (await self.client.bus.state(STREAM)).last_sequence

        async def read_all() -> bool:
            try:
                rows = await self.sql("SELECT sequence FROM reel.cursors WHERE stream = $1", STREAM)
            except (OSError, asyncpg.PostgresError):
                return False  # it is coming back
            return bool(rows) and rows[0][0] >= last

        await until(read_all, f"the views have read up to {last}", timeout_s=timeout_s)

    async def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return await self.sql_at(self.dsn, statement, *values)

    async def sql_at(self, dsn: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(dsn, timeout=20)
        try:
            return [tuple(row) for row in await connection.fetch(statement, *values)]
        finally:
            await connection.close()

    @property
    def dsn(self) -> str:
        import tomllib

        return str(tomllib.loads(self.stack.client.read_text())["postgres"]["dsn"])

    async def check(self) -> dict[str, Told]:
        """The log is in order, and the views are its fold. Everything that runs must have ended."""
        messages = await self.log()
        execs = check_log(messages)
        await self.projected()
        epoch = (await self.client.bus.state(STREAM)).epoch
        after = [stored for stored in await self.log() if stored.sequence > messages[-1].sequence]
        check_views(messages + after, epoch, await stored_rows(self.dsn))
        return execs

    async def check_job(self, job: Job, readers: Sequence[Account] = ()) -> Told:
        """It ran once, ended by itself, and log, readers and views have every byte of it, once."""
        execs = await self.check()
        exec_ = execs[self.client.subjects(ORG, job.session).exec(job.id)]
        assert job.runs() == 1
        assert (exec_.ends, exec_.exit_code, exec_.gaps) == (["exec.exited"], EXIT_CODE, 0)
        for stream in STREAMS:
            printed = job.printed(stream)
            assert printed, f"the job has printed nothing on {stream}"
            assert bytes(exec_.data[stream]) == printed, f"the log's {stream} is not what was printed"
            for reader in readers:
                assert bytes(reader.data[stream]) == printed, f"a reader's {stream} is not what was printed"
        for reader in readers:
            assert reader.wrong == []
            assert (reader.ends, reader.exit_code) == (["exec.exited"], EXIT_CODE)
            assert reader.last_n == exec_.last_n
        await self._check_lines(job)
        return exec_

    async def _check_lines(self, job: Job) -> None:
        """`reel.exec_lines` serves each line by its number, as it was printed."""
        for stream in STREAMS:
            rows = await self.sql(
                "SELECT line, bytes, eol FROM reel.lines_of($1, $2, $3, stream => $4)",
                *(ORG, job.session, job.id, stream),
            )
            pieces = job.printed(stream).split(b"\n")
            want = [(number, piece, number < len(pieces)) for number, piece in enumerate(pieces, 1)]
            assert rows == (want if pieces[-1] else want[:-1]), f"reel.exec_lines is wrong about {stream}"


def left_of(boot: Boot) -> list[int]:
    """Processes that carry the boot's marker."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if boot.marker.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@asynccontextmanager
async def open_site(*, stop_sessions: bool = True, **settings: str) -> AsyncGenerator[Site, None]:
    """A stack in a directory of its own, with `SETTINGS` and these (`SANDREEL_…`) beside."""
    # Not pytest's own directory: its parents are closed to the users that servers and sessions run as.
    directory = Path(tempfile.mkdtemp(prefix="sandreel-system-"))
    directory.chmod(0o711)
    try:
        async with site_at(directory / "data", stop_sessions=stop_sessions, **settings) as site:
            yield site
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


@asynccontextmanager
async def site_at(data: Path, *, stop_sessions: bool = True, **settings: str) -> AsyncGenerator[Site, None]:
    environ = {"PATH": os.environ["PATH"]} | SETTINGS | settings
    async with Stack(data, environ=environ, stop_sessions=stop_sessions) as stack, client_of(stack) as client:
        yield Site(stack, client)


@asynccontextmanager
async def client_of(stack: Stack) -> AsyncGenerator[Client, None]:
    found = load(ClientSettings, environ={}, path=stack.client)
    async with Client.connect(found, actor="system-tests") as client:
        yield client


async def patiently(ask: Callable[[], Awaitable[Any]], *, timeout_s: float = 60) -> Any:
    """Its result, tried again while the bus is away."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                return await ask()
            except Unavailable:
                await asyncio.sleep(_POLL_S)
