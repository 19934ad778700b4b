"""Sessions: made, looked at, stopped, resumed, destroyed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Literal

from sandreel_core import clock
from sandreel_core.client.asking import Asking
from sandreel_core.client.sessions import SessionInfo
from sandreel_core.contract import session as s
from sandreel_core.contract.message import Owner
from sandreel_core.session import RUNNING

# Provisioning takes at most 180 s (behaviour §2.3, create timeout); the answer that it failed must still arrive.
READY_WITHIN_S = 200.0
# Stopping takes at most 60 s (`session.Terms.stop_within_s`).
STOPPED_WITHIN_S = 90.0


class Lifecycle(Asking):
    """What a client does with sessions."""

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

    async def sessions(self, org: str | None) -> list[SessionInfo]:
        """Every session of the org (None: of every org, for operators) that the log knows, destroyed ones too, by id."""
        return await self._sessions.all(org)

    def follow_session(self, org: str, session: str) -> AsyncGenerator[SessionInfo, None]:
        """The session after each of its events, from the first one on, live. Close it."""
        return self._sessions.follow(self.subjects(org, session))

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
