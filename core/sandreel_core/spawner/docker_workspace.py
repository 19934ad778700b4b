"""Where a session's files are: a named volume, or a directory on the host; and the caches that an org's sessions share."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import tarfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from sandreel_core.clock import new_token
from sandreel_core.errors import Conflict, NotFound, Refused, Unavailable
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner import docker_spare
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.workspace import UNWRITABLE, delete

# What no waiting mends; a disk that is full may have room again.
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)
HAND_PREFIX = "sandreel-hand-"
# What every workspace that is a volume begins with, as names of a tar archive.
EMPTY = frozenset({"workspace", "workspace/.home"})


class Life(Struct, frozen=True, omit_defaults=True):
    """Whose a workspace is. `files`: the volume that has them, where that is not the session's own."""

    installation: str
    incarnation: int
    files: str = ""

    def same(self, other: Life) -> bool:
        return (self.installation, self.incarnation) == (other.installation, other.incarnation)


class Entry(NamedTuple):
    """A directory to make in a volume."""

    path: str
    mode: int
    user: tuple[int, int]


class Workspaces(Protocol):
    """Files of sessions. Any method raises Unavailable when it cannot be done now."""

    async def find(self, key: Key) -> Life | None: ...

    async def make(self, key: Key, life: Life, user: tuple[int, int], *, image: str, limit_bytes: int | None) -> None:
        """What is half made is finished, and what fails is the caller's to remove. Raises Refused when the storage does not
        take it."""

    def mount(self, key: Key, files: str = "") -> dict[str, Any]:
        """`files`: where they are, if not in its own."""

    async def lend(self, key: Key, life: Life) -> None:
        """Its files are in `life.files` from now on. Only of volumes."""

    async def remove(self, key: Key, files: Collection[str] = ()) -> None:
        """With what its files are known to be in. What is not there is removed already. Raises Conflict when a container
        has it."""


class Volumes:
    """A named volume a session."""

    def __init__(self, engine: Engine, installation: str) -> None:
        self._engine = engine
        self._installation = installation

    async def find(self, key: Key) -> Life | None:
        try:
            labels = (await self._engine.volume(self._name(key)))["Labels"] or {}
        except NotFound:
            return None
        incarnation = int(labels.get(plan.INCARNATION, "0"))
        return Life(labels.get(plan.INSTALLATION, ""), incarnation, labels.get(docker_spare.FILES, ""))

    async def make(self, key: Key, life: Life, user: tuple[int, int], *, image: str, limit_bytes: int | None) -> None:
        name = self._name(key)
        options = {"size": str(limit_bytes)} if limit_bytes is not None else {}
        try:
            await self._engine.make_volume(name, self._labels(key, life), options)
        except (Refused, Unavailable) as error:
            if limit_bytes is not None and "quota" in str(error):
                raise Refused(
                    "NO_DISK_LIMIT", "the engine's storage keeps no disk limits: see `sandreel doctor`"
                ) from error
            raise
        await fill_workspace(self._engine, self._installation, image, name, user)

    def mount(self, key: Key, files: str = "") -> dict[str, Any]:
        return plan.volume_mount(files or self._name(key), plan.WORKSPACE)

    async def lend(self, key: Key, life: Life) -> None:
        # Empty, and no session's files: it says where they are, since what a volume is called cannot be changed.
        await self._engine.make_volume(self._name(key), self._labels(key, life) | {docker_spare.FILES: life.files})

    async def remove(self, key: Key, files: Collection[str] = ()) -> None:
        for name in files:  # the last to go is what says where they are
            await self._engine.remove_volume(name)
        await self._engine.remove_volume(self._name(key))

    def _labels(self, key: Key, life: Life) -> dict[str, str]:
        labels = plan.key_labels(self._installation, key, "workspace")
        return labels | {plan.INCARNATION: str(life.incarnation)}

    def _name(self, key: Key) -> str:
        return plan.volume_name(self._installation, key)


class Directories:
    """A directory a session below `root`, which spawner and engine see at the same place. The spawner is root."""

    def __init__(self, root: Path, installation: str) -> None:
        self._root = root
        self._installation = installation

    async def find(self, key: Key) -> Life | None:
        return await asyncio.to_thread(self._find, key)

    def _find(self, key: Key) -> Life | None:
        path = self._path(key)
        if not (path / "workspace").is_dir():
            return None
        try:
            return msgspec.json.decode((path / "life.json").read_bytes(), type=Life)
        except FileNotFoundError:
            return Life("", 0)
        except (OSError, msgspec.DecodeError) as error:
            raise Unavailable(f"{path / 'life.json'} cannot be read: {error}", retry_after_s=60) from error

    async def make(self, key: Key, life: Life, user: tuple[int, int], *, image: str, limit_bytes: int | None) -> None:
        if limit_bytes is not None:
            raise Refused("NO_DISK_LIMIT", "workspaces that are host directories have no disk limit")
        await asyncio.to_thread(self._make, key, life, user)

    def _make(self, key: Key, life: Life, user: tuple[int, int]) -> None:
        path = self._path(key)
        try:
            path.mkdir(mode=0o711, parents=True, exist_ok=True)
            (path / "life.json").write_bytes(msgspec.json.encode(life))
            for directory in (path / "workspace", path / "workspace" / ".home"):
                directory.mkdir(mode=0o700, exist_ok=True)
                os.chown(directory, *user, follow_symlinks=False)
        except OSError as error:
            with suppress(OSError, Unavailable):
                self._remove(key)
            if error.errno in _CLOSED:
                why = f"{self._root} ([docker] workspaces) cannot be written: {error.strerror}"
                raise Refused(UNWRITABLE, why) from error
            if error.errno in _FULL:
                why = f"there is no room for a workspace in {self._root} ([docker] workspaces): make room on its disk"
                raise Refused("NO_SPACE", why) from error
            raise Unavailable(f"the workspace cannot be made: {error.strerror}", retry_after_s=30) from error

    def mount(self, key: Key, files: str = "") -> dict[str, Any]:
        return plan.bind_mount(str(self._path(key) / "workspace"), plan.WORKSPACE)

    async def lend(self, key: Key, life: Life) -> None:
        raise Refused("BAD_REQUEST", "workspaces that are host directories are nobody else's")

    async def remove(self, key: Key, files: Collection[str] = ()) -> None:
        await asyncio.to_thread(self._remove, key)

    def _remove(self, key: Key) -> None:
        doomed = self._root / f".trash-{new_token()}"
        try:
            self._path(key).rename(doomed)
        except FileNotFoundError:
            return
        delete(doomed)

    def _path(self, key: Key) -> Path:
        return self._root / self._installation / key.org / key.session


class Caches:
    """The package caches of an org, which all of its sessions may write, whatever user they are."""

    def __init__(self, engine: Engine, installation: str) -> None:
        self._engine = engine
        self._installation = installation
        # Of which orgs they are known to be whole: whoever has made one may have died before it was filled.
        self._filled: set[str] = set()

    async def ensure(self, org: str, *, image: str) -> None:
        """Under the org's lock."""
        name = plan.cache_name(self._installation, org)
        try:
            await self._engine.volume(name)
            if org in self._filled:
                return
        except NotFound:
            await self._engine.make_volume(name, plan.org_labels(self._installation, org, "cache"))
        root = plan.CACHE.strip("/")
        entries = [Entry(path, 0o1777, (0, 0)) for path in (root, *(f"{root}/{kind}" for kind in plan.CACHES))]
        await fill(self._engine, self._installation, image, name, plan.CACHE, entries)
        self._filled.add(org)


async def fill_workspace(engine: Engine, installation: str, image: str, volume: str, user: tuple[int, int]) -> None:
    """A session's files, as they are before it has any."""
    entries = [Entry(name, 0o700, user) for name in sorted(EMPTY)]
    await fill(engine, installation, image, volume, plan.WORKSPACE, entries)


async def fill(
    engine: Engine, installation: str, image: str, volume: str, target: str, entries: Sequence[Entry]
) -> None:
    """Directories in a volume, the first of which is its own root: by a container that is never started, because the
    spawner may be no root, or on another machine than the engine."""
    body = plan.hand_container(installation, image, [plan.volume_mount(volume, target)])
    id = await engine.create(HAND_PREFIX + new_token(), body)
    try:
        await engine.unpack(id, "/", await asyncio.to_thread(archive, entries))
    finally:
        try:
            await asyncio.shield(engine.remove(id))
        except Conflict:
            await engine.remove(id, force=True)


def archive(entries: Sequence[Entry]) -> bytes:
    """A tar archive of empty directories."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.path)
            info.type = tarfile.DIRTYPE
            info.mode = entry.mode
            info.uid, info.gid = entry.user
            tar.addfile(info)
    return packed.getvalue()
