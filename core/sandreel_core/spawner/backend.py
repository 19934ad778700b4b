"""The port to whatever runs sessions. One conformance suite runs over every implementation.

Three answers are kept apart everywhere: it runs, it is *confirmed* dead, and nobody can say. The last one
is raised as Unavailable, or stands as the status `unknown`; nothing may be concluded from it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from sandreel_core.contract.boot import BootSettings
from sandreel_core.contract.session import Limits, Profile


class Key(NamedTuple):
    """A session, within an installation."""

    org: str
    session: str

    def __str__(self) -> str:
        return f"{self.org}/{self.session}"


# starting  somebody is making it, or died while making it: `create` and `stop` find out
# running   it has not ended, as far as the backend can see now
# exited    its main process is gone, what it started may be left: `stop` makes it dead
# dead      confirmed: neither runnerd nor anything that it started can run any more, and this stays so
# unknown   it could not be asked
Status = Literal["starting", "running", "exited", "dead", "unknown"]
Cause = Literal["oom", "killed", "engine", "node", "exited"]
Fence = Literal["none", "proven", "unfenced"]


@dataclass(frozen=True, slots=True)
class BootSpec:
    """One boot to start. `settings.workspace` is replaced by where the backend puts the workspace.

    `fresh`: no boot of this incarnation was ever ready, so a workspace is made, and is gone again if this fails.
    """

    key: Key
    incarnation: int
    boot: int
    fresh: bool
    profile: Profile
    limits: Limits
    image: str | None
    settings: BootSettings

    @property
    def boot_id(self) -> str:
        return boot_id_of(self.incarnation, self.boot)


@dataclass(frozen=True, slots=True)
class Death:
    """A boot that is confirmed dead, and why: `exited` where the backend cannot tell. `exit_code` as in a shell."""

    cause: Cause
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What the backend has of one session: its latest boot, by the backend's own labels.

    `installation` is the owner; an object of another owner is never touched. `death` is set when `status`
    is dead. `created_at` is the time of the boot, by the backend's clock. `fence`: what keeps it from reaching other
    machines. `address`: by which the egress proxy knows it, while it runs.
    """

    key: Key
    installation: str
    incarnation: int
    boot_id: str
    profile: str
    status: Status
    ref: str
    node: str
    created_at: datetime
    death: Death | None = None
    fence: Fence = "none"
    address: str | None = None


class Backend(Protocol):
    """Any method raises Unavailable when the backend cannot be asked, and then nothing is known."""

    @property
    def name(self) -> str:
        """`process`, `docker`, `kubernetes`."""

    @property
    def node(self) -> str:
        """Where this spawner starts sessions."""

    @property
    def single_node(self) -> bool:
        """Whether sessions are on the spawner's own machine, so that all spawners must be there."""

    @property
    def exclusive_names(self) -> bool:
        """Whether another installation's object is never under the name of one of ours, so that who ends or destroys by name
        need not look first whose it is."""

    async def create(self, spec: BootSpec) -> Sandbox:
        """Start one boot; returns when its runnerd has been started (not: when it is ready).

        Raises AlreadyExists when the session has a boot that is not dead, this one or another, or when a
        fresh boot meets a workspace that is not its own; NotFound when a resumed one has no workspace;
        Refused when the spec cannot be run here, or nobody can prove that its fence holds. Whatever is raised: what a fresh boot made is gone again,
        what another boot made is untouched, and the workspace of a resumed boot is as it was. Of two that
        are asked for the same boot at once, one starts it and the other raises AlreadyExists.
        """

    async def stop(self, key: Key, boot_id: str, *, grace_s: float) -> Death:
        """End the boot and keep the workspace; returns when it is confirmed dead.

        runnerd gets SIGTERM and `grace_s`, then everything gets SIGKILL. Asked again, it answers again.
        Raises NotFound when the backend has no such boot (nothing of it runs); Unavailable when its death
        cannot be confirmed.
        """

    async def destroy(self, key: Key, *, installation: str, boot_id: str) -> None:
        """Delete the workspace and every trace of this boot and those before it. What is not there is destroyed already.

        Raises Conflict when a boot is not dead, or is later than `boot_id`: then the workspace is somebody's whom
        the caller does not know of; Denied when the object belongs to another installation."""

    async def inspect(self, key: Key) -> Sandbox | None:
        """The session's latest boot. None: the backend has nothing of the session, so nothing of it runs."""

    async def list(self) -> Sequence[Sandbox]:
        """Everything that the backend has under the names of this installation's sessions, complete, whoever owns it:
        what is missing here does not exist."""

    def watch(self) -> AsyncGenerator[Key, None]:
        """Sessions whose boot may have ended, as soon as the backend learns it, for ever. A hint: it may come
        twice, and the sweep finds what it misses."""


def boot_id_of(incarnation: int, boot: int) -> str:
    """The id of a boot, unique within its session."""
    return f"{incarnation}-{boot}"


def boot_order(boot_id: str) -> tuple[int, int]:
    """(incarnation, boot) of a boot's id, which order it among its session's; (0, 0) for what is none."""
    incarnation, _, boot = boot_id.partition("-")
    return (int(incarnation), int(boot)) if incarnation.isdecimal() and boot.isdecimal() else (0, 0)
