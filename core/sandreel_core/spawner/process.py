"""The backend for a machine without a container engine: runnerd as a detached child, in bubblewrap where it works.

It does not isolate from the network and sets no limits (`fence` is none). A boot is found again by its
record (pid and start time) and by the marker in the environment of everything that it started.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from sandreel_core.contract.session import Profile
from sandreel_core.errors import AlreadyExists, Conflict, Denied, Misconfigured, NotFound, SandreelError, Unavailable
from sandreel_core.log import Log
from sandreel_core.spawner import bubble, census
from sandreel_core.spawner.backend import BootSpec, Death, Key, Sandbox, Status, boot_order
from sandreel_core.spawner.children import Children, terminate
from sandreel_core.spawner.ends import Ends
from sandreel_core.spawner.launch import launch
from sandreel_core.spawner.workspace import Boot, Folder, check_writable, empty_trash, folders

PROGRAM = (sys.executable, "-I", "-m", "sandreel_runnerd", "--settings-stdin")
USERS: Mapping[Profile, tuple[int, int]] = {"default": (65534, 65534), "agent": (10001, 10001)}  # design §6


class ProcessBackend:
    """Made by `open`. `users` None: sessions run as the spawner does (it is not root)."""

    name = "process"
    single_node = True
    exclusive_names = False

    def __init__(
        self,
        data: Path,
        *,
        node: str,
        program: Sequence[str],
        users: Mapping[Profile, tuple[int, int]] | None,
        boxed: bool,
        hidden: Iterable[Path] = (),
    ) -> None:
        self.node = node
        self.boxed = boxed
        self._data = data.absolute()
        self._hidden = [self._data, *hidden]
        self._program = list(program)
        self._users = users
        self._children = Children()
        self._ends = Ends()
        self._log = Log("spawner.process")

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        data: Path,
        *,
        node: str,
        program: Sequence[str] = PROGRAM,
        users: Mapping[Profile, tuple[int, int]] = USERS,
        box: bool | None = None,
        hidden: Iterable[Path] = (),
    ) -> AsyncGenerator[ProcessBackend, None]:
        """`box` None: in bubblewrap if it works here; `hidden` and `data` are empty there. As root, sessions run as
        `users` of their profile.

        Raises Misconfigured when such a user could not read the interpreter or enter the data directory.
        """
        why = await asyncio.to_thread(bubble.works) if box is not False else "it is switched off"
        log = Log("spawner.process")
        if why and box:
            raise Misconfigured(f"sessions were to run in bubblewrap, and {why}")
        if why:
            log.warning("sessions are plain processes: they see each other and this machine", reason=why)
        dropping = users if os.geteuid() == 0 else None
        backend = cls(data, node=node, program=program, users=dropping, boxed=why is None, hidden=hidden)
        await asyncio.to_thread(backend._prepare)
        try:
            yield backend
        finally:
            backend._close()

    def _prepare(self) -> None:
        (self._data / "sessions").mkdir(mode=0o711, parents=True, exist_ok=True)
        if self._users and not self.boxed:
            for uid, gid in self._users.values():
                for path in [*bubble.needs(self._program), self._data / "sessions" / "any"]:
                    closed = bubble.closed_to(path, uid, gid)
                    if closed is not None:
                        raise Misconfigured(
                            f"sessions run as uid {uid}, which may not enter {closed}: install bubblewrap, or put the data and the program elsewhere"
                        )
        for problem in empty_trash(self._data):
            self._log.warning("what is left of a session stays in the trash", problem=problem)

    def _close(self) -> None:
        self._ends.close()
        self._children.leave()

    # -- create

    async def create(self, spec: BootSpec) -> Sandbox:
        with _asking():
            boot = await asyncio.to_thread(self._create, spec)
            self._ends.add(boot)
            return self._sandbox(boot)

    def _create(self, spec: BootSpec) -> Boot:
        folder = Folder(self._data, spec.key)
        user = self._users[spec.profile] if self._users else None
        with folder.locked():
            before = folder.read()
            if before is not None and before.state == "starting" and before.boot_id == spec.boot_id:
                # We hold the lock, so whoever began this boot died before runnerd got its settings: begin again.
                before = self._children.bury(folder, before)
            elif before is not None and self._status(before) != "dead":
                raise AlreadyExists(f"boot {before.boot_id} of the session is there")
            here = folder.workspace.is_dir()
            if spec.fresh and here and not (before is not None and _same_life(before, spec)):
                raise AlreadyExists("there is a workspace that is not this session's")
            if not spec.fresh and not here:
                if before is None:
                    folder.remove()  # only taking the lock made it
                raise NotFound("the workspace is not there")
            boot = Boot(
                installation=spec.settings.installation,
                org=spec.key.org,
                session=spec.key.session,
                incarnation=spec.incarnation,
                boot_id=spec.boot_id,
                profile=spec.profile,
                node=self.node,
                kernel=census.kernel_boot(),
                created_ms=time.time_ns() // 1_000_000,
                marker=marker_of(spec),
                fresh=spec.fresh,
            )
            begun: list[subprocess.Popen[bytes]] = []
            try:
                folder.write(boot)
                if spec.fresh and not folder.workspace.exists():
                    folder.make_workspace(user)
                check_writable(folder.workspace, user)
                return self._start(folder, boot, spec, user, begun)
            except (OSError, SandreelError) as error:
                self._undo(folder, boot, before, begun)
                if isinstance(error, SandreelError):
                    raise
                raise Unavailable(f"the session's process cannot be started: {error}") from error

    def _start(
        self,
        folder: Folder,
        boot: Boot,
        spec: BootSpec,
        user: tuple[int, int] | None,
        begun: list[subprocess.Popen[bytes]],
    ) -> Boot:
        def keep(child: subprocess.Popen[bytes]) -> None:
            begun.append(child)
            self._children.add(child)

        hidden = self._hidden if self.boxed else None
        return launch(folder, boot, spec, program=self._program, user=user, hidden=hidden, started=keep)

    def _undo(self, folder: Folder, boot: Boot, before: Boot | None, begun: Sequence[subprocess.Popen[bytes]]) -> None:
        with suppress(Unavailable, OSError):
            self._children.bury(folder, boot)
        for child in begun:  # of which the boot's record does not know yet
            self._children.forget(child.pid)
        if boot.fresh:
            folder.remove()
        elif before is not None:
            folder.write(before)
        else:
            folder.forget()

    # -- stop and destroy

    async def stop(self, key: Key, boot_id: str, *, grace_s: float) -> Death:
        folder = Folder(self._data, key)
        with _asking():
            boot = await asyncio.to_thread(folder.read)
            if boot is None or boot.boot_id != boot_id:
                raise NotFound(f"there is no boot {boot_id}")
            if boot.state == "dead":
                return _death(boot)
            if self._status(boot) == "running" and boot.pid:
                await terminate(boot, grace_s)
            return await asyncio.to_thread(self._finish, folder, boot_id)

    def _finish(self, folder: Folder, boot_id: str) -> Death:
        with folder.locked():
            boot = folder.read()
            if boot is None or boot.boot_id != boot_id:
                raise NotFound(f"there is no boot {boot_id}")
            return _death(boot if boot.state == "dead" else self._children.bury(folder, boot))

    async def destroy(self, key: Key, *, installation: str, boot_id: str) -> None:
        with _asking():
            await asyncio.to_thread(self._destroy, key, installation, boot_id)
        self._ends.drop(key)

    def _destroy(self, key: Key, installation: str, boot_id: str) -> None:
        folder = Folder(self._data, key)
        if not folder.path.exists():
            return
        with folder.locked():
            boot = folder.read()
            if boot is not None and boot.installation != installation:
                raise Denied("the session belongs to another installation")
            if boot is not None and boot_order(boot.boot_id) > boot_order(boot_id):
                raise Conflict(f"boot {boot.boot_id} is later than {boot_id}")
            if boot is not None and boot.state != "dead":
                raise Conflict(f"boot {boot.boot_id} is not dead")
            folder.remove()

    # -- inspect, list, watch

    async def inspect(self, key: Key) -> Sandbox | None:
        with _asking():
            boot = await asyncio.to_thread(Folder(self._data, key).read)
            if boot is None:
                return None
            self._ends.add(boot)
            return self._sandbox(boot)

    async def list(self) -> Sequence[Sandbox]:
        boots, unreadable = await asyncio.to_thread(self._read_all)
        if unreadable is not None:
            self._log.warning("a session's record cannot be read", problem=unreadable)
            raise Unavailable(unreadable, retry_after_s=60)
        with _asking():
            for boot in boots:
                self._ends.add(boot)
            return [self._sandbox(boot) for boot in boots]

    def _read_all(self) -> tuple[Sequence[Boot], str | None]:
        boots: list[Boot] = []
        try:
            for key in folders(self._data):
                folder = Folder(self._data, key)
                folder.trim()
                boot = folder.read()
                if boot is not None:
                    boots.append(boot)
        except (OSError, Unavailable) as error:
            return boots, str(error)
        return boots, None

    def _status(self, boot: Boot) -> Status:
        if boot.state == "dead":
            return "dead"
        if boot.kernel != census.kernel_boot():
            return "exited"
        if boot.state == "starting":
            return "starting"
        return "running" if census.start_time(boot.pid) == boot.started else "exited"

    def _sandbox(self, boot: Boot) -> Sandbox:
        status = self._status(boot)
        return Sandbox(
            key=boot.key,
            installation=boot.installation,
            incarnation=boot.incarnation,
            boot_id=boot.boot_id,
            profile=boot.profile,
            status=status,
            ref=f"pid:{boot.pid}",
            node=boot.node,
            created_at=datetime.fromtimestamp(boot.created_ms / 1000, UTC),
            death=_death(boot) if status == "dead" else None,
        )

    def watch(self) -> AsyncGenerator[Key, None]:
        return self._ends.watch()


@contextmanager
def _asking() -> Iterator[None]:
    """A full disk or a lack of descriptors makes one question wait; it must not end the spawner."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"this machine does not let the spawner work: {error}", retry_after_s=5) from error


def marker_of(spec: BootSpec) -> str:
    """What everything that a boot starts carries in its environment."""
    return f"{spec.settings.installation}/{spec.key.org}/{spec.key.session}/{spec.boot_id}"


def _same_life(boot: Boot, spec: BootSpec) -> bool:
    return boot.installation == spec.settings.installation and boot.incarnation == spec.incarnation


def _death(boot: Boot) -> Death:
    return Death(cause=boot.cause or "exited", exit_code=boot.exit_code)
