"""The client: what a platform service imports to run sessions and execs, and to read what they did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import datetime
from typing import Literal

from msgspec.structs import replace

from sandreel_core import clock
from sandreel_core.bus.credentials import identity_of
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.client.commands import Outcome
from sandreel_core.client.env import Environment
from sandreel_core.client.files import Files
from sandreel_core.client.handle import ExecHandle, stdin_fields
from sandreel_core.client.installed import partitions_of
from sandreel_core.client.items import ExecItem
from sandreel_core.client.once import TIMEOUT_S, Once, OneShot, once, one_shot
from sandreel_core.client.recorder import Recorder
from sandreel_core.client.replay import Point, replay
from sandreel_core.client.result import DEFAULT_MAX_BYTES, Result
from sandreel_core.client.sessions import ExecInfo
from sandreel_core.client.settings import ClientSettings
from sandreel_core.client.turns import Turns
from sandreel_core.client.viewer import view
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.session import Profile
from sandreel_core.errors import Misconfigured


class Client(Turns):
    """Commands return their outcome event or raise Refused; every wait is bounded and ends in Unavailable.

    A command whose answer did not come can be sent again with the same `command_id`: it is carried out once,
    and whoever sends it gets the same outcome.
    """

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        where: ClientSettings | str | Sequence[str] | None = None,
        *,
        actor: str | None = None,
        creds: str | None = None,
        user: str | None = None,
        password: str | None = None,
        partitions: int | None = None,
        connect_timeout_s: float = 10.0,
    ) -> AsyncIterator[Client]:
        """A connected client, closed at the end of the block.

        where       settings (of `settings.load(ClientSettings)`), or one or more NATS urls; None is the local default
        creds       the text of a NATS .creds file; else a user and a password, where the server is one that has such
        partitions  the installation says it; raises Misconfigured where it says something else
        Raises Unavailable when no server answers within `connect_timeout_s`, Denied for a wrong identity. Later the
        connection comes back by itself, for ever.
        """
        settings = where if isinstance(where, ClientSettings) else ClientSettings()
        urls: Sequence[str] = settings.bus.nats_urls
        if where is not None and not isinstance(where, ClientSettings):
            urls = [where] if isinstance(where, str) else where
        said = {"creds": creds, "user": user, "password": password}
        given = {} if user is creds is None else said  # one identity, not parts of two
        patience_s = settings.bus.connect_timeout_s or connect_timeout_s
        until = asyncio.get_running_loop().time() + patience_s
        bus = await JetStreamBus.connect(
            list(urls),
            name="client",
            identity=identity_of(replace(settings.bus, **given)),
            connect_timeout_s=patience_s,
        )
        try:
            made_with = await partitions_of(bus, until)
            if partitions and made_with and partitions != made_with:
                raise Misconfigured(f"this installation was made with {made_with} partitions, not {partitions}")
            yield cls(
                bus,
                partitions=made_with or partitions or settings.bus.partitions,
                actor=actor or settings.actor,
                answer_timeout_s=settings.answer_timeout_s,
            )
        finally:
            await bus.close()

    async def exec(
        self,
        org: str,
        session: str,
        argv: Sequence[str] | None = None,
        *,
        shell: str | None = None,
        exec: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        secret_env: Mapping[str, x.SecretRef] | None = None,
        stdin: bytes | str = b"",
        hold_stdin: bool = False,
        tty: x.Terminal | None = None,
        timeout_s: float | None = None,
        no_output_timeout_s: float | None = None,
        orphan_timeout_s: float | None = None,
        stdout_max_bytes: int | None = None,
        stderr_max_bytes: int | None = None,
        rate_limit_bytes_per_s: int | None = None,
        leftovers: Literal["keep", "kill"] = "keep",
        command_id: str | None = None,
        correlation_id: str | None = None,
        deadline: datetime | None = None,
        answer_timeout_s: float | None = None,
    ) -> ExecHandle:
        """Start a program, `argv` or `shell`; returns when it is accepted, which is before it is forked.

        exec            its id, used once per session; made up unless given
        stdin           initial bytes (at most 64 KiB); then EOF, or with `hold_stdin` whatever `write_stdin` brings
        timeout_s …     the job's own limits, kept by runnerd: see `contract.exec.Start`
        deadline        refused as EXPIRED when runnerd reads the command later than that
        Raises Refused: BAD_REQUEST, DUPLICATE_EXEC, EXEC_LIMIT, INVALID_CWD, SESSION_NOT_FOUND, SESSION_NOT_READY, …
        """
        exec_id = exec or clock.new_token("x-")
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        text, encoded = stdin_fields(raw)
        command = x.Start(
            exec=exec_id,
            argv=list(argv) if argv is not None else None,
            shell=shell,
            cwd=cwd,
            env=dict(env or {}),
            secret_env=dict(secret_env or {}),
            stdin="hold" if hold_stdin else "close",
            stdin_text=text,
            stdin_base64=encoded,
            tty=tty,
            timeout_s=timeout_s,
            no_output_timeout_s=no_output_timeout_s,
            orphan_timeout_s=orphan_timeout_s,
            stdout_max_bytes=stdout_max_bytes,
            stderr_max_bytes=stderr_max_bytes,
            rate_limit_bytes_per_s=rate_limit_bytes_per_s,
            leftovers=leftovers,
        )
        outcome = await self.send(
            org,
            session,
            command,
            command_id=command_id,
            correlation_id=correlation_id,
            deadline=deadline,
            answer_timeout_s=answer_timeout_s,
        )
        return self.handle(org, session, exec_id, accepted=outcome)

    def handle(self, org: str, session: str, exec: str, *, accepted: Outcome | None = None) -> ExecHandle:
        """A handle on an exec that is there already; nothing is asked."""
        subjects = self.subjects(org, session)
        return ExecHandle(
            self.bus,
            Recorder(self.bus, self._sessions, subjects),
            self._commands,
            self._reels,
            subjects,
            exec,
            answer_timeout_s=self.answer_timeout_s,
            accepted=accepted,
        )

    async def run(
        self,
        org: str,
        session: str,
        argv: Sequence[str] | None = None,
        *,
        shell: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | str = b"",
        timeout_s: float | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Result:
        """`exec`, then `collect`."""
        handle = await self.exec(org, session, argv, shell=shell, cwd=cwd, env=env, stdin=stdin, timeout_s=timeout_s)
        return await handle.collect(max_bytes=max_bytes)

    def one_shot(
        self,
        org: str,
        *,
        profile: Profile = "default",
        image: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[OneShot]:
        """A session for one exec: ready when the block begins, and destroyed at its end, however that comes.

        If this process is killed, the spawner stops the session after 5 minutes without work. Raises what
        `create_session` does; at the end nothing, `OneShot.left` says when the session could not be destroyed.
        """
        return one_shot(self, org, profile=profile, image=image, env=env)

    async def once(
        self,
        org: str,
        argv: Sequence[str] | None = None,
        *,
        shell: str | None = None,
        profile: Profile = "default",
        image: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | str = b"",
        files: Mapping[str, bytes | AsyncIterable[bytes]] | None = None,
        outputs: Sequence[str] = (),
        timeout_s: float = TIMEOUT_S,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Once:
        """`run` in a session of its own (`one_shot`), with files for it by path, and the `outputs` that it has made.

        At most 50 files each way, 50 MiB an output and 100 MiB in all, 300 s. Raises Refused (BAD_REQUEST) before
        anything is made, and what `create_session`, `Files.write` and `exec` do.
        """
        return await once(
            self,
            org,
            argv,
            shell=shell,
            profile=profile,
            image=image,
            env=env,
            stdin=stdin,
            files=files or {},
            outputs=outputs,
            timeout_s=timeout_s,
            max_bytes=max_bytes,
        )

    def follow(
        self, org: str, session: str, exec: str, *, after: Cursor | str | None = None, live: bool = True
    ) -> AsyncGenerator[ExecItem, None]:
        """An exec's items behind a cursor, until its end; see `ExecHandle.follow`. An exec that nobody has
        accepted yet is waited for; `require_exec` says whether there is one."""
        return view(self.bus, self._reels, self.subjects(org, session), exec, after=_cursor(after), live=live)

    def files(self, org: str, session: str, *, admit: Callable[[str, int], None] | None = None) -> Files:
        """The files of a session's workspace, while it is ready; nothing is asked yet. `admit`: see `Files`."""
        recorder = Recorder(self.bus, self._sessions, self.subjects(org, session))
        return Files(recorder, actor=self.actor, answer_timeout_s=self.answer_timeout_s, admit=admit)

    def env(self, org: str, session: str) -> Environment:
        """The variables that a session's execs get."""
        return Environment(self, self._reels, org, session)

    async def cancel(self, org: str, session: str, exec: str) -> Outcome:
        """SIGTERM to its process group, SIGKILL 5 s later. More of this kind: `handle`."""
        return await self.handle(org, session, exec).cancel()

    async def write_stdin(
        self, org: str, session: str, exec: str, data: bytes | str = b"", *, eof: bool = False
    ) -> Outcome:
        """Append at most 64 KiB to its input, or end it."""
        return await self.handle(org, session, exec).write_stdin(data, eof=eof)

    async def collect(self, org: str, session: str, exec: str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Result:
        """How an exec ended, and the first `max_bytes` of each of its streams."""
        return await self.handle(org, session, exec).collect(max_bytes=max_bytes)

    async def execs(self, org: str, session: str) -> list[ExecInfo]:
        """The session's execs, by when they were last heard of."""
        return await self._sessions.execs(self.subjects(org, session))

    async def exec_info(self, org: str, session: str, exec: str) -> ExecInfo:
        """Raises NotFound when nobody ever accepted such an exec."""
        return await self._sessions.exec(self.subjects(org, session), exec)

    async def require_exec(self, org: str, session: str, exec: str) -> None:
        """Raises NotFound when nobody ever accepted such an exec. One question, however much it has printed."""
        await self._sessions.require_exec(self.subjects(org, session), exec)

    async def replay(
        self,
        org: str,
        session: str,
        exec: str,
        *,
        speed: float | None = None,
        start: Point | None = None,
        end: Point | None = None,
    ) -> AsyncGenerator[ExecItem, None]:
        """What is stored of an exec, from one point to another, at `speed` times the pace at which it was stored
        (None: as fast as it can be read). See `client.replay`. Ends at what is stored now."""
        after = start if isinstance(start, Cursor) else None
        if isinstance(end, Cursor):
            end.check(await self._reels.epoch(end.partition))
        items = view(self.bus, self._reels, self.subjects(org, session), exec, after=after, live=False)
        async with aclosing(replay(items, speed=speed, start=start, end=end)) as shown:
            async for item in shown:
                yield item


def _cursor(after: Cursor | str | None) -> Cursor | None:
    return Cursor.parse(after) if isinstance(after, str) else after
