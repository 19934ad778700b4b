"""A NATS server with JetStream out of the wheel's own program, for one machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sandreel_core.embedded import pidfile
from sandreel_core.embedded.account import Account, account
from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.nats_users import USERS, NatsUser
from sandreel_core.embedded.secret_file import write_secret
from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_core.log import Log
from sandreel_core.permissions import ACCOUNTS

_START_S = 60.0  # reading some 10 GiB of streams after a crash, on a slow disk
_STOP_S = 10.0
_POLL_S = 0.01
_LOG_BYTES = 16 << 20
# The soft limit of the server's heap. For ten seconds it keeps what was written and is read; where that is more than this, it collects
# garbage all the time instead (decision 0048).
HEAP = "1GiB"


class NatsServer:
    """One server on loopback. Everything that it keeps, and its log, is below `data`.

    port       0 takes a free one at the first start and keeps it for every restart of this object
    authority  whose users it knows, by their JWTs (operator mode); None: `users` with passwords
    passwords  by the name of the user; those who have none get one, kept in `data/passwords.json` (0600)
    listen     address and port where others reach it at another one (a container's own), which is `port`
    memory     the soft limit of its heap (GOMEMLIMIT): a replay over a cold stream took 3.8 GB without
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int = 0,
        authority: Authority | None = None,
        users: Sequence[NatsUser] = USERS,
        passwords: dict[str, str] | None = None,
        memory: str = HEAP,
        max_payload_bytes: int = 1024 * 1024,
        listen: tuple[str, int | None] = ("127.0.0.1", None),
        sync_interval: str = "always",
    ) -> None:
        self.data = data
        self.port = port
        self.authority = authority
        self.users = tuple(users)
        self._given = dict(passwords or {})
        self._memory = memory
        self._max_payload = max_payload_bytes
        self._listen = listen
        self._sync_interval = sync_interval
        self._passwords: dict[str, str] = {}
        self._child: asyncio.subprocess.Process | None = None
        self._log = Log("embedded.nats")

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        return self.data / "store" / "nats.log"

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child and self._child.returncode is None else None

    def password(self, user: str) -> str:
        """Never to be logged. Known from the first `start` on."""
        return self._passwords[user]

    async def start(self) -> None:
        """Until it takes connections. Raises Unavailable when it does not, Misconfigured for what only an
        operator can mend."""
        if self.pid is not None:
            return
        binary = find_program()
        user = account()
        await asyncio.to_thread(self._prepare, binary, user)
        if await pidfile.end(self._pid_file, grace_s=_STOP_S):
            self._log.warning("a server was left running on this data; stopped it")
        chosen = self.port
        for attempt in range(5):
            self.port = self.port or _free_port()
            await asyncio.to_thread(self._write_config, user)
            if await self._launch(binary, user):
                self._log.info("nats is up", port=self.port, pid=self.pid)
                return
            said = self._last_words()
            if chosen or attempt == 4 or "address already in use" not in said:
                raise Unavailable(f"nats-server did not start: {said or 'it said nothing'} (see {self.log_path})")
            self.port = 0

    async def wait(self) -> int:
        """The exit status (negative: the signal), as soon as it has ended."""
        return await self._child.wait() if self._child else 0

    def kill(self) -> None:
        """SIGKILL, and nothing else."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()

    async def end(self) -> None:
        """SIGKILL; returns when it has ended."""
        self.kill()
        await self.wait()

    async def stop(self) -> None:
        """Everything acknowledged is kept. Returns when it has ended."""
        child = self._child
        if child is not None and child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            try:
                await asyncio.wait_for(child.wait(), _STOP_S)
            except TimeoutError:
                self.kill()
                await child.wait()
        self._pid_file.unlink(missing_ok=True)

    async def restart(self) -> None:
        """The same data on the same port, after whatever end."""
        await self.stop()
        await self.start()

    async def __aenter__(self) -> NatsServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self.stop())

    @property
    def _pid_file(self) -> Path:
        return self.data / "nats.pid"

    @property
    def _config(self) -> Path:
        return self.data / "nats.json"

    def _prepare(self, binary: Path | None, user: Account | None) -> None:
        store = self.data / "store"
        store.mkdir(parents=True, exist_ok=True)
        self.data.chmod(0o711 if user else 0o700)
        store.chmod(0o700)
        if user:
            if binary is not None:
                user.reach(binary)
            user.reach(store)
            user.own(store)
        if self.authority is not None:
            self._prepare_accounts(self.authority, store, user)
            return
        kept = self.data / "passwords.json"
        known = json.loads(kept.read_text()) if kept.exists() else {}
        self._passwords = {u.name: known.get(u.name) or secrets.token_urlsafe(24) for u in self.users} | self._given
        if known != self._passwords:
            write_secret(kept, json.dumps(self._passwords))

    def _prepare_accounts(self, authority: Authority, store: Path, user: Account | None) -> None:
        authority.open()
        accounts = store / "accounts"
        accounts.mkdir(mode=0o700, exist_ok=True)
        for each in ACCOUNTS:
            path = accounts / f"{authority.account_key(each.name)}.jwt"
            write_secret(path, authority.account_jwt(each.name), user)
        if user:
            user.own(accounts)
        # A server that knew its users by passwords kept its streams under the account that has no name.
        before, now = (store / "jetstream" / name for name in ("$G", authority.account_key("LOG")))
        if before.is_dir() and not now.exists():
            before.rename(now)

    def _who(self) -> dict[str, Any]:
        if self.authority is not None:
            return self.authority.server_config(self.data / "store" / "accounts")
        return {"authorization": {"users": [u.config(self._passwords[u.name]) for u in self.users]}}

    def _write_config(self, user: Account | None) -> None:
        common = server_config(
            self.data / "store",
            host=self._listen[0],
            port=self._listen[1] or self.port,
            max_payload_bytes=self._max_payload,
            sync_interval=self._sync_interval,
        )
        own = {"log_file": str(self.log_path), "logfile_size_limit": _LOG_BYTES, "logfile_max_num": 2}
        write_secret(self._config, json.dumps(common | own | self._who(), indent=1), user)

    async def _launch(self, binary: Path, user: Account | None) -> bool:
        """Whether it takes connections; False when it ended."""
        self._child = await asyncio.create_subprocess_exec(
            *(binary, "-c", self._config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            # Nothing of ours: it may hold settings with secrets.
            env={"PATH": os.environ.get("PATH", os.defpath), "GOMEMLIMIT": self._memory},
            start_new_session=True,  # Ctrl-C in a terminal is for its owner, who then stops it in order
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
        try:
            pidfile.write(self._pid_file, self._child.pid)
            async with asyncio.timeout(_START_S):
                while self._child.returncode is None:
                    if await greets(self.port):
                        return self._child.returncode is None
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            await self.stop()
            raise Unavailable(f"nats-server was not ready within {_START_S:g} s (see {self.log_path})") from error
        except (asyncio.CancelledError, OSError):
            await asyncio.shield(self.stop())
            raise
        return False

    def _last_words(self) -> str:
        try:
            lines = self.log_path.read_bytes()[-4096:].decode(errors="replace").splitlines()
        except OSError:
            return ""
        return next(
            (line for line in reversed(lines) if "[FTL]" in line or "[ERR]" in line), lines[-1] if lines else ""
        )


def server_config(
    store: Path, *, host: str, port: int, max_payload_bytes: int, sync_interval: str = "always"
) -> dict[str, Any]:
    """What every server of an installation is told, beside its log and who its users are."""
    return {
        "host": host,
        "port": port,
        "server_name": "sandreel",
        "max_payload": max_payload_bytes,
        "max_connections": 65536,
        # A viewer whose socket is full is cut off after this; what it has not read it pulls again.
        "write_deadline": "10s",
        "ping_interval": "20s",
        "jetstream": {
            "store_dir": str(store),
            "sync_interval": sync_interval,
            # Streams have their own limits; the disk's free space is the operator's to watch.
            "max_file_store": 1 << 44,
            "max_memory_store": 1 << 30,
        },
    }


def find_program() -> Path:
    """The wheel's nats-server, else one on the PATH. Raises Misconfigured."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = beside if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise Misconfigured("no nats-server is installed: pip install 'sandreel[embedded]', or give [bus] nats_urls")
    return Path(found)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def greets(port: int) -> bool:
    """Whether a NATS server answers on that port of loopback."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(1.0):
            return (await reader.readline()).startswith(b"INFO ")
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
