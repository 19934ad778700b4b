"""Commands to runnerd, one at a time: what is refused, and who does the rest. Each gets one outcome event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from sandreel_core.bus.crew import Crew
from sandreel_core.bus.port import Stored
from sandreel_core.bus.streams import STALE_MARGIN_S
from sandreel_core.contract import codec
from sandreel_core.contract import exec as c
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.subjects import parse_command_subject
from sandreel_core.contract.workspace import PatchEnv
from sandreel_core.errors import Conflict, Malformed, Refused
from sandreel_core.ids import uuid7_unix_ms
from sandreel_core.log import Log
from sandreel_runnerd.activity import Activity
from sandreel_runnerd.answers import Answers
from sandreel_runnerd.env import EnvStore
from sandreel_runnerd.execs import Execs

# Patches of the environment that wait for one whose revision the log has not confirmed yet; more are refused.
MAX_PATCHES_WAITING = 256


class Commands:
    """`take` is the feed's callback."""

    def __init__(
        self,
        execs: Execs,
        env: EnvStore,
        answers: Answers,
        activity: Activity,
        crew: Crew,
        *,
        now: Callable[[], datetime],
        log: Log,
        max_age_s: float,
    ) -> None:
        """crew: works on what has to wait for the log, so that `take` does not."""
        self._execs = execs
        self._env = env
        self._answers = answers
        self._activity = activity
        self._crew = crew
        # The environment behind the last patch that had to wait.
        self._patched: asyncio.Future[dict[str, str]] | None = None
        self._patches_waiting = 0
        self._now = now
        self._log = log
        # An hour before CMD forgets it, it is too old to be sure that it is a first (design §3).
        self._stale_after_s = max_age_s - STALE_MARGIN_S

    async def take(self, stored: Stored) -> None:
        """Never raises: whatever is in a command, the others' execs go on."""
        try:
            command_id = parse_command_subject(stored.subject).command_id
        except Malformed as error:
            self._log.warning("not a command", subject=stored.subject[:200], problem=str(error))
            return
        envelope: Envelope | None = None
        try:
            envelope = codec.decode_command(stored.subject, stored.body)
            self._check(envelope, stored)
            await self._act(envelope)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not end what other execs record
            await self._refuse(command_id, error, envelope)

    async def _refuse(self, command_id: str, error: Exception, envelope: Envelope | None) -> None:
        if not isinstance(error, Refused):
            self._log.exception("a command failed", command=command_id)
            error = Refused("INTERNAL", "runnerd could not handle the command; its log says why")
        await self._answers.refuse(command_id, error, envelope)

    def _check(self, envelope: Envelope, stored: Stored) -> None:
        age_s = stored.time_ns / 1e9 - uuid7_unix_ms(envelope.id) / 1e3
        if age_s > self._stale_after_s:
            raise Refused("STALE", "the command's id is older than what is kept to tell a repeat from a first")
        if envelope.deadline is not None and self._now() > envelope.deadline:
            raise Refused("EXPIRED", f"the deadline {envelope.deadline.isoformat()} is over")
        if envelope.expectedrevision is not None and not isinstance(envelope.data, PatchEnv):
            raise Refused(
                "BAD_REQUEST", "expectedrevision goes with env.patch; for an exec wait for the outcome before"
            )

    async def _act(self, envelope: Envelope) -> None:
        match envelope.data:
            case c.Start():
                self._activity.touch()
                await self._execs.start(envelope, envelope.data, self._environment())
            case c.ExecCommand():
                self._execs.route(envelope, envelope.data)
            case PatchEnv():
                self._activity.touch()
                await self._patch(envelope, envelope.data)
            case _:
                raise Refused("BAD_REQUEST", f"{envelope.type} is not a command that runnerd knows")

    def _environment(self) -> dict[str, str] | asyncio.Future[dict[str, str]]:
        """What a start that comes now sees, as soon as the patches before it are decided."""
        return self._env.values if self._patched is None or self._patched.done() else self._patched

    async def _patch(self, envelope: Envelope, command: PatchEnv) -> None:
        """A patch that expects a revision is in force when the log has confirmed that: it waits, and with it the
        patches and the starts behind it, but nothing else."""
        before = self._patched if self._patched is not None and not self._patched.done() else None
        if envelope.expectedrevision is None and before is None:
            # In force for whatever start comes next; the log hears of both in this order.
            await self._answers.changed(self._env.patch(command), command=envelope)
            return
        expected = self._answers.revision(envelope.expectedrevision) if envelope.expectedrevision else None
        if self._patches_waiting >= MAX_PATCHES_WAITING:
            raise Refused("ENV_BUSY", f"{MAX_PATCHES_WAITING} patches of the environment wait for the log")
        self._patches_waiting += 1
        patched = self._patched = asyncio.get_running_loop().create_future()
        self._crew.start(self._patch_later(envelope, command, expected, before, patched))

    async def _patch_later(
        self,
        envelope: Envelope,
        command: PatchEnv,
        expected: int | None,
        before: asyncio.Future[dict[str, str]] | None,
        patched: asyncio.Future[dict[str, str]],
    ) -> None:
        try:
            if before is not None:
                await asyncio.wait({before})
            if expected is None:
                await self._answers.changed(self._env.patch(command), command=envelope)
            else:
                await self._patch_expecting(envelope, command, expected)
        except asyncio.CancelledError:
            patched.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - as in `take`
            await self._refuse(envelope.id, error, envelope)
        finally:
            self._patches_waiting -= 1
            if not patched.done():
                patched.set_result(self._env.values)

    async def _patch_expecting(self, envelope: Envelope, command: PatchEnv, expected: int) -> None:
        stored = await self._answers.changed(self._env.preview(command), command=envelope, expected=expected)
        try:
            await stored
        except Conflict as error:
            raise Refused("CONFLICT", f"the workspace has changed since its event {expected}") from error
        self._env.patch(command)
