"""The life of a session: its states as a table, the fold of its events, and the answers to its commands.

    none → requested → provisioning → ready ⇄ degraded → stopping → stopped → resuming → provisioning …
    any of these → destroying → destroyed (→ requested: the next incarnation); a boot that fails → failed

Pure. Only the spawner decides; everybody folds.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from sandreel_core.contract import session as c
from sandreel_core.contract.message import Command, Envelope, Event, Owner
from sandreel_core.environment import patch
from sandreel_core.errors import Refused

Phase = Literal[
    "none",
    "requested",
    "provisioning",
    "ready",
    "degraded",
    "stopping",
    "stopped",
    "resuming",
    "destroying",
    "destroyed",
    "failed",
]

# Where each event leads from each phase. What is not here leaves the state as it is: a fold is total.
TRANSITIONS: dict[str, dict[Phase, Phase]] = {
    c.Requested.type: {"none": "requested", "destroyed": "requested"},
    c.Provisioned.type: {"requested": "provisioning", "resuming": "provisioning"},
    c.Ready.type: {"provisioning": "ready"},
    c.Degraded.type: {"ready": "degraded"},
    c.Recovered.type: {"degraded": "ready"},
    c.Stopping.type: dict.fromkeys(
        ("requested", "provisioning", "ready", "degraded", "resuming", "stopping"), "stopping"
    ),
    c.Stopped.type: dict.fromkeys(("provisioning", "ready", "degraded", "stopping"), "stopped"),
    c.Resuming.type: {"stopped": "resuming", "failed": "resuming"},
    c.Failed.type: dict.fromkeys(("requested", "provisioning", "resuming"), "failed"),
    c.Destroying.type: dict.fromkeys(
        ("requested", "provisioning", "ready", "degraded", "stopping", "stopped", "resuming", "failed", "destroying"),
        "destroying",
    ),
    c.Destroyed.type: {"destroying": "destroyed"},
}

_ANSWERS = (c.CommandRefused.type, c.CommandSettled.type)
ABSENT: tuple[Phase, ...] = ("none", "destroyed")
BOOTING: tuple[Phase, ...] = ("requested", "provisioning", "resuming")
RUNNING: tuple[Phase, ...] = ("ready", "degraded")
# Counted against the quotas: whatever has, or is about to have, a sandbox that runs.
ACTIVE: tuple[Phase, ...] = (*BOOTING, *RUNNING, "stopping")


class Session(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the log says about one session id. `commands_after` is set while a boot may own commands."""

    phase: Phase = "none"
    incarnation: int = 0
    profile: c.Profile = "default"
    image: str | None = None
    owner: Owner | None = None
    env: dict[str, str] = {}
    limits: c.Limits = c.Limits()
    grants: tuple[str, ...] = ()
    ttl_s: float = 0
    idle_timeout_s: float = 0
    created_at: datetime | None = None
    expires_at: datetime | None = None
    changed_at: datetime | None = None
    pinned: bool = False
    boot: int = 0
    boot_id: str = ""
    backend: str = ""
    fence: str = ""
    ref: str = ""
    node: str = ""
    commands_after: int | None = None
    commands_until: int | None = None
    stop_reason: c.StopReason | None = None
    until: datetime | None = None
    public_keys: dict[str, str] = {}
    workspace: str = c.WORKSPACE
    contract_version: int = 0
    failure: c.Failed | None = None
    degraded_reason: str = ""
    unreadable: str = ""

    @property
    def exists(self) -> bool:
        return self.phase not in ABSENT

    def owns(self, sequence: int) -> bool:
        """Whether a command to runnerd with this sequence in CMD belongs to the boot that is alive."""
        return self.commands_after is not None and sequence > self.commands_after


def evolve(state: Session, event: Envelope) -> Session:
    """Fold one event of the session's own subject. Never raises; what does not fit changes nothing."""
    data = event.data
    if not isinstance(data, c.SessionEvent):
        # An answer that changed nothing changes nothing here, also where this version cannot read what it says.
        return state if event.type in _ANSWERS else replace(state, unreadable=event.type)
    if isinstance(data, c.Pinned | c.Unpinned | c.Extended):
        return _evolve_expiry(state, data) if state.exists else state
    phase = TRANSITIONS.get(data.type, {}).get(state.phase)
    if phase is None:
        return state
    at = event.time
    match data:
        case c.Requested():
            return Session(
                phase=phase,
                incarnation=data.incarnation,
                profile=data.profile,
                image=data.image,
                owner=data.owner,
                env=data.env,
                limits=data.limits,
                grants=tuple(data.grants),
                ttl_s=data.ttl_s,
                idle_timeout_s=data.idle_timeout_s,
                created_at=at,
                expires_at=data.expires_at,
                changed_at=at,
                boot=1,
                unreadable=state.unreadable,
            )
        case c.Provisioned():
            return replace(
                state,
                phase=phase,
                changed_at=at,
                boot=data.boot,
                boot_id=data.boot_id,
                backend=data.backend,
                fence=data.fence,
                ref=data.ref,
                node=data.node,
                commands_after=data.commands_after,
                commands_until=None,
                until=None,
            )
        case c.Ready():
            return replace(
                state,
                phase=phase,
                changed_at=at,
                boot_id=data.boot_id,
                public_keys=data.public_keys,
                workspace=data.workspace or c.WORKSPACE,
                contract_version=data.contract_version,
                failure=None,
                stop_reason=None,
            )
        case c.Degraded() | c.Recovered():
            reason = data.reason if isinstance(data, c.Degraded) else ""
            return replace(state, phase=phase, changed_at=at, degraded_reason=reason)
        case c.Stopping():
            return replace(_intended(state, data, phase, at), stop_reason=data.reason)
        case c.Stopped():
            state = replace(state, stop_reason=data.reason, failure=None)
            return _end_boot(state, phase, at, data.commands_until)
        case c.Resuming():
            return replace(
                state, phase=phase, changed_at=at, boot=data.boot, expires_at=data.expires_at, until=data.until
            )
        case c.Failed():
            return _end_boot(replace(state, failure=data), phase, at, data.commands_until)
        case c.Destroying():
            return _intended(state, data, phase, at)
        case c.Destroyed():
            return _end_boot(state, phase, at, data.commands_until)
    return state


def _intended(state: Session, data: c.Stopping | c.Destroying, phase: Phase, at: datetime) -> Session:
    """Said again it is the same intent, which could not be carried out in time."""
    since = state.changed_at if state.phase == phase else at
    return replace(state, phase=phase, changed_at=since, until=data.until, degraded_reason=data.waits_for)


def _end_boot(state: Session, phase: Phase, at: datetime, commands_until: int) -> Session:
    return replace(
        state,
        phase=phase,
        changed_at=at,
        commands_after=None,
        commands_until=commands_until,
        until=None,
        degraded_reason="",
    )


def _evolve_expiry(state: Session, data: c.Pinned | c.Unpinned | c.Extended) -> Session:
    if isinstance(data, c.Pinned):
        return replace(state, pinned=True)
    if isinstance(data, c.Unpinned):
        return replace(state, pinned=False, expires_at=data.expires_at)
    return replace(state, expires_at=data.expires_at)


class Terms(Struct, frozen=True, kw_only=True):
    """What a decision depends on beside state and command. Maxima are behaviour §2.3's defaults."""

    now: datetime
    max_ttl_s: float = 24 * 3600
    max_idle_s: float = 30 * 60
    stop_within_s: float = 60
    resume_within_s: float = 180


def decide(state: Session, command: Command, terms: Terms) -> Event | Refused | None:
    """The one event that a command leads to, a refusal, or None where what it asks for is already so."""
    if state.unreadable:
        return Refused("NEWER_CONTRACT", f"the session's log holds {state.unreadable}, which this version cannot read")
    if isinstance(command, c.Create):
        return _create(state, command, terms)
    if not isinstance(command, c.SessionCommand):
        return Refused("BAD_REQUEST", f"{command.type} is not a command about a session")
    if state.phase == "none":
        return Refused("SESSION_NOT_FOUND", "there is no session with this id")
    if isinstance(command, c.Destroy):
        if state.phase in ("destroying", "destroyed"):
            return None
        return c.Destroying(until=terms.now + timedelta(seconds=terms.stop_within_s))
    if state.phase in ("destroying", "destroyed"):
        return Refused("SESSION_NOT_FOUND", f"the session is {state.phase}")
    match command:
        case c.Stop():
            if state.phase in ("stopping", "stopped", "failed"):
                return None
            return c.Stopping(reason="asked", until=terms.now + timedelta(seconds=terms.stop_within_s))
        case c.Resume():
            return _resume(state, terms)
        case c.Pin():
            return None if state.pinned else c.Pinned()
        case c.Unpin():
            expires_at = terms.now + timedelta(seconds=terms.max_ttl_s)
            return c.Unpinned(expires_at=expires_at) if state.pinned else None
        case c.Extend():
            ttl_s = clamp(command.ttl_s, terms.max_ttl_s)
            return c.Extended(expires_at=terms.now + timedelta(seconds=ttl_s))
    return Refused("BAD_REQUEST", f"{command.type} is not a command that the spawner knows")


def clamp(asked_s: float | None, maximum_s: float) -> float:
    """A time that is absent, not positive or not a number means the maximum, and none is over it."""
    return min(asked_s, maximum_s) if asked_s is not None and asked_s > 0 else maximum_s


def _create(state: Session, command: c.Create, terms: Terms) -> Event | Refused:
    if state.exists:
        return Refused("SESSION_EXISTS", f"a session with this id is {state.phase} already")
    env, _, _, denied = patch({}, command.env)
    ttl_s = clamp(command.ttl_s, terms.max_ttl_s)
    return c.Requested(
        incarnation=state.incarnation + 1,
        profile=command.profile,
        image=command.image,
        owner=command.owner,
        env=env,
        env_denied=denied,
        ttl_s=ttl_s,
        idle_timeout_s=clamp(command.idle_timeout_s, terms.max_idle_s),
        expires_at=terms.now + timedelta(seconds=ttl_s),
        limits=command.limits,
        grants=command.grants,
    )


def _resume(state: Session, terms: Terms) -> Event | Refused | None:
    if state.phase == "stopping":
        return Refused("SESSION_STOPPING", "the session is being stopped; resume it when it is stopped")
    if state.phase not in ("stopped", "failed"):
        return None
    return c.Resuming(
        boot=state.boot + 1,
        expires_at=terms.now + timedelta(seconds=state.ttl_s),
        until=terms.now + timedelta(seconds=terms.resume_within_s),
    )
