"""Messages about what runnerd changed in the workspace: environment and files."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from sandreel_core.contract.message import Command, Count, EnvName, Event
from sandreel_core.contract.session import Env


class PatchEnv(Command, frozen=True, kw_only=True):
    """Set and unset variables for every exec that starts later. Names that are refused come back in the event."""

    type: ClassVar[str] = "env.patch"
    aggregate: ClassVar[str] = "workspace"
    role: ClassVar[str] = "runnerd"
    set: Env = {}
    unset: Annotated[list[EnvName], Meta(max_length=128)] = []


class WorkspaceEvent(Event, frozen=True, kw_only=True):
    aggregate: ClassVar[str] = "workspace"


class EnvPatched(WorkspaceEvent, frozen=True, kw_only=True):
    """`set` holds values: what is sent in a command is public by definition (law 6)."""

    type: ClassVar[str] = "env.patched"
    set: dict[str, str] = {}
    unset: list[str] = []
    denied: list[str] = []


class FileWritten(WorkspaceEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "file.written"
    path: str
    size: Count
    sha256: str
    actor: str | None = None


class FileDeleted(WorkspaceEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "file.deleted"
    path: str
    actor: str | None = None
