"""Messages about a session: one sandbox with one workspace, through any number of boots."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from sandreel_core.contract.message import (
    MAX_ENV_NAMES,
    MAX_INTEGER,
    Command,
    Count,
    EnvName,
    Event,
    Instant,
    Ordinal,
    Owner,
    Part,
    Sentence,
)

Profile = Literal["default", "agent"]
Env = Annotated[dict[EnvName, str], Meta(max_length=MAX_ENV_NAMES)]
WORKSPACE = "/workspace"  # where a session's programs find it, unless `session.ready` says otherwise
WorkspacePath = Annotated[str, Meta(pattern=r"^/[^\0\n]*[^\0\n/]$(?!\n)", max_length=4096)]
Slug = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$(?!\n)")]
StopReason = Literal["asked", "idle", "ttl", "oom", "killed", "engine", "node", "exited"]


class Limits(Part, frozen=True, kw_only=True, omit_defaults=True):
    """What one session may use; absent means what its profile says (design §6)."""

    cpus: Annotated[float, Meta(gt=0, le=1024)] | None = None
    memory_bytes: Annotated[int, Meta(ge=16 * 1024 * 1024, le=MAX_INTEGER)] | None = None
    pids: Annotated[int, Meta(ge=8, le=1_000_000)] | None = None
    disk_bytes: Annotated[int, Meta(ge=1024 * 1024, le=MAX_INTEGER)] | None = None
    execs: Annotated[int, Meta(ge=1, le=10_000)] | None = None


class SessionCommand(Command, frozen=True, kw_only=True):
    aggregate: ClassVar[str] = "session"
    role: ClassVar[str] = "spawner"


class Create(SessionCommand, frozen=True, kw_only=True):
    """Make a session. Times that are absent or not positive mean the installation's maximum."""

    type: ClassVar[str] = "session.create"
    owner: Owner
    profile: Profile = "default"
    image: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    env: Env = {}
    ttl_s: float | None = None
    idle_timeout_s: float | None = None
    limits: Limits = Limits()
    grants: Annotated[list[Slug], Meta(max_length=64)] = []


class Stop(SessionCommand, frozen=True, kw_only=True):
    """End the boot and keep the workspace."""

    type: ClassVar[str] = "session.stop"


class Resume(SessionCommand, frozen=True, kw_only=True):
    """Boot a stopped or failed session again on the workspace that it has."""

    type: ClassVar[str] = "session.resume"


class Destroy(SessionCommand, frozen=True, kw_only=True):
    """End the boot and delete the workspace."""

    type: ClassVar[str] = "session.destroy"


class Pin(SessionCommand, frozen=True, kw_only=True):
    """Never stop it for idleness or age."""

    type: ClassVar[str] = "session.pin"


class Unpin(SessionCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "session.unpin"


class Extend(SessionCommand, frozen=True, kw_only=True):
    """Let it live for `ttl_s` from now (at most the installation's maximum)."""

    type: ClassVar[str] = "session.extend"
    ttl_s: Annotated[float, Meta(gt=0)]


class SessionEvent(Event, frozen=True, kw_only=True):
    aggregate: ClassVar[str] = "session"


class Requested(SessionEvent, frozen=True, kw_only=True):
    """The intent to make it: `incarnation` counts from 1 the lives of one session id."""

    type: ClassVar[str] = "session.requested"
    incarnation: Ordinal
    profile: Profile
    image: str | None = None
    owner: Owner
    env: dict[str, str] = {}
    env_denied: list[str] = []
    ttl_s: float
    idle_timeout_s: float
    expires_at: Instant
    limits: Limits = Limits()
    grants: list[str] = []


class Provisioned(SessionEvent, frozen=True, kw_only=True):
    """The backend has it. Commands to runnerd behind `commands_after` (sequence in CMD) are this boot's."""

    type: ClassVar[str] = "session.provisioned"
    boot: Ordinal
    boot_id: str
    backend: str
    ref: str
    node: str
    fence: Literal["none", "proven", "unfenced"] = "none"
    commands_after: Count


class Ready(SessionEvent, frozen=True, kw_only=True):
    """Its runnerd serves. `workspace`: the path by which programs find the workspace, where that is not `WORKSPACE`."""

    type: ClassVar[str] = "session.ready"
    boot_id: str
    runnerd_version: str
    contract_version: int
    public_keys: dict[str, str] = {}
    workspace: WorkspacePath | None = None


class Degraded(SessionEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "session.degraded"
    reason: Sentence


class Recovered(SessionEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "session.recovered"
    reason: Sentence


class Stopping(SessionEvent, frozen=True, kw_only=True):
    """The intent to stop, before the backend is touched; finished by `until`, or said again, with what it waits for."""

    type: ClassVar[str] = "session.stopping"
    reason: StopReason
    until: Instant
    waits_for: Sentence = ""


class Stopped(SessionEvent, frozen=True, kw_only=True):
    """The boot is over, the workspace is kept. Commands up to `commands_until` were this boot's."""

    type: ClassVar[str] = "session.stopped"
    reason: StopReason
    commands_until: Count


class Resuming(SessionEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "session.resuming"
    boot: Ordinal
    expires_at: Instant
    until: Instant


class Destroying(SessionEvent, frozen=True, kw_only=True):
    """The intent to delete it; `until` and `waits_for` as of `Stopping`."""

    type: ClassVar[str] = "session.destroying"
    reason: Literal["asked"] = "asked"
    until: Instant
    waits_for: Sentence = ""


class Destroyed(SessionEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "session.destroyed"
    reason: Literal["asked"] = "asked"
    commands_until: Count


class Failed(SessionEvent, frozen=True, kw_only=True):
    """A boot that did not come up. The session can be resumed or destroyed."""

    type: ClassVar[str] = "session.failed"
    stage: Literal["provision", "boot", "resume", "stop", "destroy"]
    code: str
    message: Sentence
    commands_until: Count


class Pinned(SessionEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "session.pinned"


class Unpinned(SessionEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "session.unpinned"
    expires_at: Instant


class Extended(SessionEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "session.extended"
    expires_at: Instant


class CommandRefused(Event, frozen=True, kw_only=True):
    """A command got no for an answer. Stands on the subject that its role decides on."""

    type: ClassVar[str] = "command.refused"
    aggregate: ClassVar[str] = "command"
    command_id: str
    code: str
    message: Sentence


class CommandSettled(Event, frozen=True, kw_only=True):
    """A command asked for what was already so."""

    type: ClassVar[str] = "command.settled"
    aggregate: ClassVar[str] = "command"
    command_id: str
    message: Sentence = ""
