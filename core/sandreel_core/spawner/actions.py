"""What is to be done about one session: what `reconcile` finds and `Effects` does. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sandreel_core.contract.session import StopReason
from sandreel_core.spawner.backend import Death, Key, Sandbox


@dataclass(frozen=True, slots=True)
class Start:
    """Create the boot, then append `session.provisioned`."""

    key: Key


@dataclass(frozen=True, slots=True)
class Adopt:
    """The boot runs already: append `session.provisioned`."""

    key: Key
    sandbox: Sandbox


@dataclass(frozen=True, slots=True)
class Fail:
    """Confirm the boot's death (None: there is none), then append `session.failed`."""

    key: Key
    boot_id: str | None
    stage: Literal["provision", "boot", "resume"]
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Halt:
    """Confirm the boot's death (None: there is none), then append `session.stopped`. `reason` None: its cause.
    `death`: the backend has confirmed it already."""

    key: Key
    boot_id: str | None
    reason: StopReason | None
    death: Death | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """Confirm the boot's death, delete the workspace, then append `session.destroyed`. `death`: as of `Halt`."""

    key: Key
    boot_id: str | None
    death: Death | None = None


@dataclass(frozen=True, slots=True)
class Quell:
    """End a boot that the log says is over. No event."""

    key: Key
    boot_id: str


@dataclass(frozen=True, slots=True)
class Discard:
    """Delete what a session left that is destroyed or never came up. No event."""

    key: Key


@dataclass(frozen=True, slots=True)
class Degrade:
    key: Key
    boot_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recover:
    key: Key
    boot_id: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """Drain it and, if nothing lives in it, append `session.stopping`."""

    key: Key
    reason: Literal["idle", "ttl"]


Action = Start | Adopt | Fail | Halt | Remove | Quell | Discard | Degrade | Recover | Sweep
