"""The client: what a platform service imports to run sessions and execs, and to read what they did."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Literal

from sandreel_core import clock
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.port import Bus
from sandreel_core.client.commands import Commands, Order, Outcome
from sandreel_core.client.handle import ExecHandle, stdin_fields
from sandreel_core.client.items import ExecItem
from sandreel_core.client.reels import Reels
from sandreel_core.client.replay import Point, replay
from sandreel_core.client.result import DEFAULT_MAX_BYTES, Result
from sandreel_core.client.sessions import ExecInfo, SessionInfo, Sessions
from sandreel_core.client.settings import ClientSettings
from sandreel_core.client.viewer import view
from sandreel_core.contract import exec as x
from sandreel_core.contract import session as s
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Command, Owner
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.contract.workspace import PatchEnv
from sandreel_core.session import RUNNING

# Provisioning takes at most 180 s (behaviour §2.3, create timeout); the answer that it failed must still arrive.
READY_WITHIN_S = 200.0
# Stopping takes at most 60 s (`session.Terms.stop_within_s`).
STOPPED_WITHIN_S = 90.0


class Client:
    """Commands return their outcome event or raise Refused; every wait is bounded and ends in Unavailable.

    A command whose answer did not come can be sent again with the same `command_id`: it is carried out once,
    and whoever sends it gets the same outcome.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        partitions: int = 1,
        actor: str | None = None,
        answer_timeout_s: float = 30.0,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self.bus = bus
        self.partitions = partitions
        self.answer_timeout_s = answer_timeout_s
        self._reels = Reels(bus)
        source = f"/client/{actor}" if actor else "/client"
        self._commands = Commands(bus, self._reels, source=source, actor=actor, now=now)
        self._sessions = Sessions(bus, self._reels, partitions)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        where: ClientSettings | str | Sequence[str] | None = None,
        *,
        actor: str | None = None,
        user: str | None = None,
        password: str | None = None,
        partitions: int | None = None,
        connect_timeout_s: float = 10.0,
    ) -> AsyncIterator[Client]:
        """A connected client, closed at the end of the block.

        where   settings (of `settings.load(ClientSettings)`), or one or more NATS urls; None is the local default
        Raises Unavailable when no server answers within `connect_timeout_s`, Denied for a wrong password. Later the
        connection comes back by itself, for ever.
        """
        settings = where if isinstance(where, ClientSettings) else ClientSettings()
        urls: Sequence[str] = settings.bus.nats_urls
        if where is not None and not isinstance(where, ClientSettings):
            urls = [where] if isinstance(where, str) else where
        bus = await JetStreamBus.connect(
            list(urls),
            name="client",
            user=user or settings.bus.user,
            password=password or settings.bus.password,
            connect_timeout_s=settings.bus.connect_timeout_s or connect_timeout_s,
        )
        try:
            yield cls(
                bus,
                partitions=partitions or settings.bus.partitions,
                actor=actor or settings.actor,
                answer_timeout_s=settings.answer_timeout_s,
            )
        finally:
            await bus.close()

    # Sessions

    async def create_session(
        self,
        org: str,
        session: str | None = None,
        *,
        owner: Owner | None = None,
        profile: s.Profile = "default",
        image: str | None = None,
        env: Mapping[str, str] | None = None,
        ttl_s: float | None = None,
        idle_timeout_s: float | None = None,
        limits: s.Limits | None = None,
        grants: Sequence[str] = (),
        wait: Literal["ready", "requested"] = "ready",
        timeout_s: float = READY_WITHIN_S,
        command_id: str | None = None,
    ) -> SessionInfo:
        """Make a session (with an id of its own unless one is given) and wait until it is `ready`.

        owner   who it counts for, and who may have one that is active; by default the session itself
        Raises Refused: SESSION_EXISTS, QUOTA_EXCEEDED, …, or the failure's code when it does not come up.
        """
        session = session or clock.new_token("s-")
        command = s.Create(
            owner=owner or Owner(type="session", id=session),
            profile=profile,
            image=image,
            env=dict(env or {}),
            ttl_s=ttl_s,
            idle_timeout_s=idle_timeout_s,
            limits=limits or s.Limits(),
            grants=list(grants),
        )
        phases = RUNNING if wait == "ready" else None
        return await self._session(org, session, command, phases, timeout_s, command_id)

    async def stop(
        self,
        org: str,
        session: str,
        *,
        wait: Literal["stopped", "stopping"] = "stopped",
        timeout_s: float = STOPPED_WITHIN_S,
    ) -> SessionInfo:
        """End its boot, keep its workspace."""
        return await self._session(
            org, session, s.Stop(), ("stopped", "failed") if wait == "stopped" else None, timeout_s
        )

    async def resume(
        self, org: str, session: str, *, wait: Literal["ready", "resuming"] = "ready", timeout_s: float = READY_WITHIN_S
    ) -> SessionInfo:
        """Boot a stopped or failed session again, on the workspace that it has."""
        return await self._session(org, session, s.Resume(), RUNNING if wait == "ready" else None, timeout_s)

    async def destroy(
        self,
        org: str,
        session: str,
        *,
        wait: Literal["destroyed", "destroying"] = "destroyed",
        timeout_s: float = STOPPED_WITHIN_S,
    ) -> SessionInfo:
        """End its boot and delete its workspace."""
        return await self._session(
            org, session, s.Destroy(), ("destroyed",) if wait == "destroyed" else None, timeout_s
        )

    async def pin(self, org: str, session: str) -> SessionInfo:
        """Never stop it for idleness or age."""
        return await self._session(org, session, s.Pin(), None, self.answer_timeout_s)

    async def unpin(self, org: str, session: str) -> SessionInfo:
        return await self._session(org, session, s.Unpin(), None, self.answer_timeout_s)

    async def extend(self, org: str, session: str, ttl_s: float) -> SessionInfo:
        """Let it live for `ttl_s` from now, or for the installation's maximum."""
        return await self._session(org, session, s.Extend(ttl_s=ttl_s), None, self.answer_timeout_s)

    async def session(self, org: str, session: str) -> SessionInfo:
        """Raises NotFound."""
        return await self._sessions.one(self.subjects(org, session))

    async def sessions(self, org: str) -> list[SessionInfo]:
        """Every session of the org that the log knows, destroyed ones too, by id."""
        return await self._sessions.all(org)

    def follow_session(self, org: str, session: str) -> AsyncGenerator[SessionInfo, None]:
        """The session after each of its events, from the first one on, live. Close it."""
        return self._sessions.follow(self.subjects(org, session))

    async def patch_env(
        self, org: str, session: str, set: Mapping[str, str] | None = None, unset: Sequence[str] = ()
    ) -> Outcome:
        """Change the environment of every exec that starts later. The outcome's data names what was denied."""
        return await self.send(org, session, PatchEnv(set=dict(set or {}), unset=list(unset)))

    # Execs

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
        return ExecHandle(
            self.bus,
            self._commands,
            self._reels,
            self.subjects(org, session),
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

    def follow(
        self, org: str, session: str, exec: str, *, after: Cursor | str | None = None, live: bool = True
    ) -> AsyncGenerator[ExecItem, None]:
        """An exec's items behind a cursor, until its end; see `ExecHandle.follow`. An exec that nobody has
        accepted yet is waited for; `exec_info` says whether there is one."""
        return view(self.bus, self._reels, self.subjects(org, session), exec, after=_cursor(after), live=live)

    async def collect(self, org: str, session: str, exec: str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Result:
        """How an exec ended, and the first `max_bytes` of each of its streams."""
        return await self.handle(org, session, exec).collect(max_bytes=max_bytes)

    async def execs(self, org: str, session: str) -> list[ExecInfo]:
        """The session's execs, by when they were last heard of."""
        return await self._sessions.execs(self.subjects(org, session))

    async def exec_info(self, org: str, session: str, exec: str) -> ExecInfo:
        """Raises NotFound when nobody ever accepted such an exec."""
        return await self._sessions.exec(self.subjects(org, session), exec)

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

    # Anything

    async def send(
        self,
        org: str,
        session: str,
        command: Command,
        *,
        command_id: str | None = None,
        deadline: datetime | None = None,
        expected_revision: Cursor | None = None,
        correlation_id: str | None = None,
        answer_timeout_s: float | None = None,
    ) -> Outcome:
        """Send any command of the contract and return the first event that names it as its cause."""
        order = Order(self.subjects(org, session), command, command_id, deadline, expected_revision, correlation_id)
        return await self._commands.ask(order, timeout_s=answer_timeout_s or self.answer_timeout_s)

    def subjects(self, org: str, session: str) -> SessionSubjects:
        """Raises Malformed when a name is out of range."""
        return SessionSubjects(org, session, self.partitions)

    async def _session(
        self,
        org: str,
        session: str,
        command: s.SessionCommand,
        phases: Sequence[str] | None,
        timeout_s: float,
        command_id: str | None = None,
    ) -> SessionInfo:
        subjects = self.subjects(org, session)
        outcome = await self.send(
            org, session, command, command_id=command_id, answer_timeout_s=min(timeout_s, self.answer_timeout_s)
        )
        if phases is None:
            return await self._sessions.one(subjects)
        return await self._sessions.until(subjects, phases, since=outcome.cursor, timeout_s=timeout_s)


def _cursor(after: Cursor | str | None) -> Cursor | None:
    return Cursor.parse(after) if isinstance(after, str) else after
