"""What is to be done, from what the log says, what the backend has and who was heard. Pure and total.

Never an action that touches an object of another installation, of another node, or of which nothing is known.
The caller gives sessions that are *older* than the list of sandboxes: then a boot that is missing there is
gone, and one that is newer than its session was made meanwhile and is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sandreel_core.contract.boot import NO_ROOM, UNWRITABLE
from sandreel_core.session import RUNNING, Session
from sandreel_core.spawner.actions import (
    Action,
    Adopt,
    Degrade,
    Discard,
    Fail,
    Halt,
    Quell,
    Recover,
    Remove,
    Start,
    Sweep,
)
from sandreel_core.spawner.backend import Death, Key, Sandbox, boot_id_of, boot_order

RUNNERD_EXITED, BOOT_TIMEOUT = "RUNNERD_EXITED", "BOOT_TIMEOUT"
_NOT_STARTED = "the session could not be started in time"
# Asked for, and not given to a backend yet.
WAITING = ("requested", "resuming")


@dataclass(frozen=True, slots=True)
class Beat:
    """The last heartbeat of a session. `age_s` by the monotonic clock."""

    boot_id: str
    age_s: float
    live_execs: int
    idle_s: float


@dataclass(frozen=True, slots=True)
class Rules:
    """`late_s` and the limits are design §6 and behaviour §2.3. `backend`: its name; "" is any."""

    installation: str
    node: str
    backend: str = ""
    late_s: float = 15
    boot_within_s: float = 180
    orphan_after_s: float = 180


def reconcile(
    sessions: Mapping[Key, Session],
    sandboxes: Iterable[Sandbox] | None,
    beats: Mapping[Key, Beat],
    now: datetime,
    rules: Rules,
    *,
    heard_s: float = 0,
    sweep: bool = False,
) -> list[Action]:
    """At most one action a session, in the sessions' order.

    sandboxes  None: the backend could not be asked
    heard_s    for how long heartbeats have been heard without an interruption
    sweep      whether expired and idle sessions are looked for this time
    """
    found = None if sandboxes is None else {sandbox.key: sandbox for sandbox in sandboxes}
    keys = list(sessions)
    if found is not None:
        keys += [key for key in found if key not in sessions]
    actions: list[Action] = []
    for key in keys:
        session = sessions.get(key, Session())
        action = None
        if found is not None:
            action = _settle(key, session, found.get(key), now, rules)
        else:
            action = _give_up(key, session, now, rules)
        action = action or _hear(key, session, beats.get(key), now, rules, heard_s)
        if action is None and sweep and found is not None:
            action = _expire(key, session, found.get(key), beats.get(key), now, rules)
        if action is not None:
            actions.append(action)
    return actions


def hasten(key: Key, session: Session, rules: Rules) -> Halt | Remove | None:
    """What the log alone asks for, before anybody has looked at what the backend has: that the boot which it knows ends, or
    that what is left of one goes whose end it knows. Neither is ever taken back, and both name the boot, so that
    a session that is older than the log does no harm. Where they meet something else it is for `reconcile`."""
    due = boot_id_of(session.incarnation, session.boot)
    if session.unreadable or session.boot_id != due or session.node != rules.node:
        return None
    if rules.backend and session.backend != rules.backend:
        return None
    if session.phase == "stopping" and session.commands_after is not None:
        return Halt(key, due, session.stop_reason or "asked")
    if session.phase == "destroying":
        return Remove(key, due, Death("exited") if session.commands_after is None else None)
    return None


def _settle(key: Key, session: Session, sandbox: Sandbox | None, now: datetime, rules: Rules) -> Action | None:
    """What log and backend together ask for."""
    if session.unreadable or session.node not in ("", rules.node):
        return None
    if rules.backend and session.backend not in ("", rules.backend):
        return _elsewhere(key, session)
    due = boot_id_of(session.incarnation, session.boot)
    if sandbox is not None:
        if sandbox.status == "unknown" or sandbox.node != rules.node:
            return None
        if sandbox.installation != rules.installation:
            return _beside(key, session)
        if session.exists and boot_order(sandbox.boot_id) > (session.incarnation, session.boot):
            return None
        if not session.exists:
            return _orphan(key, session, sandbox, now, rules)
        if sandbox.boot_id != due and sandbox.status != "dead" and session.phase not in ("stopping", "destroying"):
            return Quell(key, sandbox.boot_id)
    boot_id = sandbox.boot_id if sandbox is not None and sandbox.boot_id == due else None
    status = sandbox.status if sandbox is not None and boot_id else "absent"
    late = _is_late(session, now, rules)
    found_id, death = (sandbox.boot_id, sandbox.death) if sandbox is not None else (None, None)
    match session.phase:
        case "requested" | "resuming":  # WAITING
            if status == "running" and sandbox is not None:
                return Adopt(key, sandbox)
            if status in ("exited", "dead"):
                return _fail(key, boot_id, session, RUNNERD_EXITED, "runnerd ended before it was ready")
            return _fail(key, boot_id, session, BOOT_TIMEOUT, _NOT_STARTED) if late else Start(key)
        case "provisioning":
            if status != "running":
                return _fail(key, boot_id, session, RUNNERD_EXITED, "runnerd ended before it was ready")
            if late:
                return _fail(key, boot_id, session, BOOT_TIMEOUT, "runnerd was not ready in time")
        case "ready" | "degraded":
            if status != "running":
                return Halt(key, boot_id, None, sandbox.death if sandbox is not None and boot_id else None)
        case "stopping":
            return Halt(key, found_id, session.stop_reason or "asked", death)
        case "destroying":
            return Remove(key, found_id, death)
        case "stopped" | "failed":
            if sandbox is None:
                return None
            if sandbox.status != "dead":
                return Quell(key, sandbox.boot_id)
            if session.phase == "failed" and never_ready(session) and sandbox.incarnation == session.incarnation:
                return Discard(key)
    return None


def _give_up(key: Key, session: Session, now: datetime, rules: Rules) -> Action | None:
    """The backend cannot be asked. Who asked for a session is told that it does not come, for nothing is concluded by that:
    a boot that was never provisioned is answered no bootstrap, and where it runs after all it is ended when it is seen."""
    ours = session.node in ("", rules.node) and not (rules.backend and session.backend not in ("", rules.backend))
    if session.phase not in WAITING or session.unreadable or not ours or not _is_late(session, now, rules):
        return None
    return _fail(key, None, session, BOOT_TIMEOUT, _NOT_STARTED)


def _is_late(session: Session, now: datetime, rules: Rules) -> bool:
    return session.changed_at is not None and (now - session.changed_at).total_seconds() > rules.boot_within_s


def _elsewhere(key: Key, session: Session) -> Action | None:
    """Its boots and its files are with another backend, which alone knows of them: nothing is concluded."""
    if session.phase != "resuming":
        return None
    message = f"the session's files are with the {session.backend} backend: resume it there"
    return _fail(key, None, session, "OTHER_BACKEND", message)


def _beside(key: Key, session: Session) -> Action | None:
    """What is under the session's id is another installation's, so nothing of the session runs: its life goes on
    without touching that."""
    match session.phase:
        case "requested" | "resuming":
            return _fail(key, None, session, "FOREIGN", "what runs under this id belongs to another installation")
        case "stopping":
            return Halt(key, None, session.stop_reason or "asked")
        case "destroying":
            return Remove(key, None)
    return None


def never_ready(session: Session) -> bool:
    """Whether no boot of this incarnation has ever been ready: its workspace holds nothing of anybody's."""
    return session.contract_version == 0


def _fail(key: Key, boot_id: str | None, session: Session, code: str, message: str) -> Fail:
    stage: Literal["provision", "boot", "resume"] = "provision"
    if session.phase == "provisioning":
        stage = "boot"
    elif session.phase == "resuming":
        stage = "resume"
    return Fail(key, boot_id, stage, code, message)


# What a runnerd that could not begin said by its exit code: (code, message) of `session.failed`.
_BEGINNINGS = {
    UNWRITABLE: ("WORKSPACE_UNWRITABLE", "the session's user cannot write its workspace: mend its owner, or how it is mounted"),
    NO_ROOM: ("NO_SPACE", "there is no room for runnerd's spool beside the workspace's files: make room on its disk"),
}  # fmt: skip


def why_failed(action: Fail, session: Session, death: Death, waited_for: str | None) -> tuple[str, str]:
    """(code, message) of a boot that was never ready. `waited_for`: what the last attempt to start it met."""
    if action.code == RUNNERD_EXITED and death.exit_code in _BEGINNINGS:
        return _BEGINNINGS[death.exit_code]
    if action.code == RUNNERD_EXITED and death.exit_code is not None:
        how = "out of memory" if death.cause == "oom" else f"exit code {death.exit_code}"
        own = session.image is not None and never_ready(session)
        hint = f"; is runnerd the entrypoint of image {session.image}?" if own else ""
        return action.code, f"{action.message}: {how}{hint}"
    if action.code == BOOT_TIMEOUT and waited_for is not None:
        return action.code, f"{action.message}: {waited_for}"
    return action.code, action.message


def _orphan(key: Key, session: Session, sandbox: Sandbox, now: datetime, rules: Rules) -> Action | None:
    """A sandbox without a session. What is young may belong to an intent that we have not read yet."""
    if now - sandbox.created_at < timedelta(seconds=rules.orphan_after_s):
        return None
    if sandbox.incarnation > session.incarnation and session.phase == "destroyed":
        return None
    if sandbox.status != "dead":
        return Quell(key, sandbox.boot_id)
    # Only a session that the log calls destroyed loses its files: an empty log (a new server) proves nothing.
    return Discard(key) if session.phase == "destroyed" else None


def _hear(key: Key, session: Session, beat: Beat | None, now: datetime, rules: Rules, heard_s: float) -> Action | None:
    """A late heartbeat makes a session degraded, never dead."""
    heard = beat is not None and beat.boot_id == session.boot_id and beat.age_s <= rules.late_s
    if session.phase == "degraded" and not session.unreadable:
        return Recover(key, session.boot_id) if heard else None
    if session.unreadable or session.phase != "ready" or heard or heard_s <= rules.late_s or session.changed_at is None:
        return None
    if (now - session.changed_at).total_seconds() <= rules.late_s:
        return None
    return Degrade(key, session.boot_id, f"no heartbeat for {rules.late_s:g} s")


def _expire(
    key: Key, session: Session, sandbox: Sandbox | None, beat: Beat | None, now: datetime, rules: Rules
) -> Action | None:
    if session.phase not in RUNNING or session.pinned or session.node not in ("", rules.node) or session.unreadable:
        return None
    if sandbox is None or sandbox.status != "running" or sandbox.installation != rules.installation:
        return None
    if sandbox.boot_id != session.boot_id or sandbox.node != rules.node:
        return None
    current = beat is not None and beat.boot_id == session.boot_id and beat.age_s <= rules.late_s
    if beat is not None and current and beat.live_execs:
        return None
    if session.expires_at is not None and now > session.expires_at:
        return Sweep(key, "ttl")
    if beat is not None and current and 0 < session.idle_timeout_s < beat.idle_s:
        return Sweep(key, "idle")
    return None
