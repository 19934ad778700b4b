"""Commands to runnerd, one at a time: what is refused, and who does the rest. Each gets one outcome event."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

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


class Commands:
    """`take` is the feed's callback."""

    def __init__(
        self,
        execs: Execs,
        env: EnvStore,
        answers: Answers,
        activity: Activity,
        *,
        now: Callable[[], datetime],
        log: Log,
        max_age_s: float,
    ) -> None:
        self._execs = execs
        self._env = env
        self._answers = answers
        self._activity = activity
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
        except Refused as refusal:
            await self._answers.refuse(command_id, refusal, envelope)
        except Exception:  # noqa: BLE001 - a mistake of ours must not end what other execs record
            self._log.exception("a command failed", command=command_id)
            problem = Refused("INTERNAL", "runnerd could not handle the command; its log says why")
            await self._answers.refuse(command_id, problem, envelope)

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
                await self._execs.start(envelope, envelope.data)
            case c.ExecCommand():
                self._execs.route(envelope, envelope.data)
            case PatchEnv():
                self._activity.touch()
                await self._patch(envelope, envelope.data)
            case _:
                raise Refused("BAD_REQUEST", f"{envelope.type} is not a command that runnerd knows")

    async def _patch(self, envelope: Envelope, command: PatchEnv) -> None:
        if envelope.expectedrevision is None:
            # In force for whatever start comes next; the log hears of both in this order.
            await self._answers.changed(self._env.patch(command), command=envelope)
            return
        expected = self._answers.revision(envelope.expectedrevision)
        stored = await self._answers.changed(self._env.preview(command), command=envelope, expected=expected)
        try:
            await stored
        except Conflict as error:
            raise Refused("CONFLICT", f"the workspace has changed since its event {expected}") from error
        self._env.patch(command)
