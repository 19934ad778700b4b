"""A process session's folder: its workspace, its boot's record and its lock. Blocking; called in a thread.

<data>/sessions/<org>/<session>/{workspace/, boot.json, runnerd.log, lock}
<data>/trash/<token>              what is being deleted
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec
from msgspec import Struct

from sandreel_core.clock import new_token
from sandreel_core.errors import Refused, Unavailable
from sandreel_core.spawner.backend import Cause, Key

LOCK_TIMEOUT_S = 10.0
MAX_LOG_BYTES = 1024 * 1024
UNWRITABLE = "WORKSPACE_UNWRITABLE"


class Boot(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is written of a boot. `pid` 0: being started, and its runnerd has no settings yet, so it did nothing.

    `cause` is set when it is confirmed dead. `kernel` is the machine's own boot.
    """

    installation: str
    org: str
    session: str
    incarnation: int
    boot_id: str
    profile: str
    node: str
    kernel: str
    created_ms: int
    marker: str
    fresh: bool
    pid: int = 0
    started: int = 0
    outer: int = 0
    state: Literal["starting", "started", "dead"] = "starting"
    cause: Cause | None = None
    exit_code: int | None = None

    @property
    def key(self) -> Key:
        return Key(self.org, self.session)


class Folder:
    """The folder of one session."""

    def __init__(self, data: Path, key: Key) -> None:
        self._data = data
        self.path = data / "sessions" / key.org / key.session
        self.workspace = self.path / "workspace"
        self.log = self.path / "runnerd.log"
        self._record = self.path / "boot.json"

    def read(self) -> Boot | None:
        """Raises Unavailable when there is a record that cannot be read."""
        try:
            return msgspec.json.decode(self._record.read_bytes(), type=Boot)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise Unavailable(f"{self._record} cannot be read: {error}", retry_after_s=60) from error

    def write(self, boot: Boot) -> None:
        """Replace the record in one step."""
        draft = self._record.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(boot))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._record)

    def forget(self) -> None:
        self._record.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the session's lock; the folder is there meanwhile. Raises Unavailable after 10 s."""
        limit = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            self.path.mkdir(mode=0o711, parents=True, exist_ok=True)
            try:
                descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:
                continue  # destroyed between the two lines
            try:
                if self._take(descriptor):
                    yield
                    return
            finally:
                os.close(descriptor)
            if time.monotonic() > limit:
                raise Unavailable(f"another spawner holds the lock of {self.path.name}", retry_after_s=5)
            time.sleep(0.02)

    def _take(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Whoever destroyed the folder meanwhile has moved away the file that we hold: then it locks nothing.
        try:
            return os.path.samestat(os.fstat(descriptor), (self.path / "lock").stat())
        except FileNotFoundError:
            return False

    def make_workspace(self, user: tuple[int, int] | None) -> None:
        """Raises FileExistsError when there is one."""
        self.workspace.mkdir(mode=0o700)
        home = self.workspace / ".home"
        home.mkdir(mode=0o700)
        if user is not None:
            os.chown(home, *user)
            os.chown(self.workspace, *user)

    def open_log(self) -> int:
        """A descriptor that appends. `trim` may cut the file at any time."""
        return os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def trim(self) -> None:
        """Begin the log anew when it is over 1 MiB; the last one is kept as `runnerd.log.1`."""
        try:
            if self.log.stat().st_size <= MAX_LOG_BYTES:
                return
            shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)
        except FileNotFoundError:
            return

    def tail(self, limit: int = 400) -> str:
        """The end of the log, for an operator. It may hold what runnerd printed as it failed."""
        try:
            return self.log.read_bytes()[-limit:].decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def remove(self) -> None:
        """Move the folder away in one step, then delete it. The caller holds the lock."""
        trash = self._data / "trash"
        trash.mkdir(mode=0o700, exist_ok=True)
        doomed = trash / new_token()
        try:
            self.path.rename(doomed)
        except FileNotFoundError:
            return
        delete(doomed)


def check_writable(workspace: Path, user: tuple[int, int] | None) -> None:
    """Raises Refused where the session's user (None: ourselves) is no longer let in. An owner who can enter it may open
    it again, and runnerd finds what the mode does not show (a mount that is read-only)."""
    found = workspace.stat()
    uid, gid = user or (os.geteuid(), os.getegid())
    others = stat.S_IRWXG if found.st_gid == gid else stat.S_IRWXO
    needed = stat.S_IXUSR if found.st_uid == uid else others
    if uid != 0 and found.st_mode & needed != needed:
        mode = stat.filemode(found.st_mode)
        raise Refused(UNWRITABLE, f"{workspace} is {mode} of uid {found.st_uid}, and uid {uid} cannot write it")


def empty_trash(data: Path) -> list[str]:
    """Delete what a killed spawner had moved away and not deleted; what could not be, in a sentence each."""
    trash, problems = data / "trash", list[str]()
    if trash.is_dir():
        for doomed in trash.iterdir():
            try:
                delete(doomed)
            except Unavailable as error:
                problems.append(str(error))
    return problems


def folders(data: Path) -> Iterator[Key]:
    """Every session that has a folder."""
    root = data / "sessions"
    if not root.is_dir():
        return
    for org in sorted(root.iterdir()):
        for session in sorted(org.iterdir()):
            if (session / "boot.json").exists():
                yield Key(org.name, session.name)


def delete(path: Path) -> None:
    """Delete a tree that a session filled; a directory that it closed is opened. Raises Unavailable when something stays."""

    def open_and_repeat(
        function: Callable[..., Any], name: str, problem: tuple[type[BaseException], BaseException, TracebackType]
    ) -> None:
        if isinstance(problem[1], FileNotFoundError):
            return
        # Only a directory's own mode is changed, never what a link points at.
        for closed in (Path(name).parent, Path(name)):
            if closed.is_dir() and not closed.is_symlink():
                closed.chmod(0o700)
        if function in (os.unlink, os.rmdir):
            function(name)
        else:
            shutil.rmtree(name)

    try:
        shutil.rmtree(path, onerror=open_and_repeat)
    except OSError as error:
        raise Unavailable(f"{path.name} cannot be deleted: {error.strerror}", retry_after_s=60) from error
