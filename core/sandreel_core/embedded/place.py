"""The data directory of an embedded stack: what lies where, whose it is, and who has it open.

up.lock          held (flock) by the `sandreel up` that runs here, with its pid
keys.json        ports and the installation's name, made once                      0600
identity/        keys and credentials of NATS' users (embedded/authority.py)       0700
vault.key        in identity/: opens the vault of credentials; the broker's, and `sandreel credential`'s      0600
client.toml      where the stack is, for clients and the command line              0600
roles.toml       the same for the roles                                            0600
gateway.toml     the same for the gateway, with the providers' keys in it if the operator's own file had them   0600
gateway-state/   the gateway's: calls that NATS may not have yet                   0700
nats/ postgres/  the servers' own; as root they belong to users that no session uses
state/           the spawner's: sessions and their workspaces
logs/ run/       of the roles: log files, pid files; run/parts.json is every part's state (embedded/roster.py)
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sandreel_core.embedded.secret_file import write_secret
from sandreel_core.errors import Misconfigured
from sandreel_core.settings import Port

CLIENT_FILE = "client.toml"
_POLL_S = 0.05
# Below the range from which the kernel takes the ports of outgoing connections (32768 by default): a client that
# knocks at a dead server's port from that very port would talk to itself.
_PORTS = range(20_000, 32_000)


class Keys(Struct, frozen=True, kw_only=True):
    """Made at the first start and kept; a port moves only when somebody else has taken it. Earlier versions kept
    passwords here too, which are skipped."""

    installation: str
    nats_port: int
    postgres_port: int
    # Of the roles' `/healthz` and `/metrics`, by the role's name in the stack; each gets its own when it first starts.
    health_ports: dict[str, Port] = {}
    # Where sessions that are processes of this machine reach the gateway; it has one once there is a gateway.
    gateway_port: Port | None = None


class Place:
    """Paths below one data directory. Made by `open_place`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.lock = data / "up.lock"
        self.keys_file = data / "keys.json"
        self.client = data / CLIENT_FILE
        self.roles = data / "roles.toml"
        self.gateway = data / "gateway.toml"
        self.gateway_state = data / "gateway-state"
        self.identity = data / "identity"
        self.vault_key = self.identity / "vault.key"
        self.nats = data / "nats"
        self.postgres = data / "postgres"
        self.state = data / "state"
        # There while `sandreel backup restore` puts streams back: some are there again, others not yet.
        self.restoring = data / "restoring"
        self.parts = data / "run" / "parts.json"

    def log(self, part: str) -> Path:
        return self.data / "logs" / f"{part}.log"

    def pid(self, part: str) -> Path:
        return self.data / "run" / f"{part}.pid"

    def keys(self) -> Keys:
        """The kept ones, or new ones. Raises Misconfigured when the file is not in order."""
        try:
            return msgspec.json.decode(self.keys_file.read_bytes(), type=Keys)
        except FileNotFoundError:
            keys = Keys(
                installation=secrets.token_hex(8),
                nats_port=free_port(),
                postgres_port=free_port(),
            )
            self.keep(keys)
            return keys
        except (OSError, msgspec.DecodeError) as error:
            raise Misconfigured(
                f"{self.keys_file} holds the stack's ports and name and cannot be read ({error}): restore it, or begin anew with another --data"
            ) from None

    def keep(self, keys: Keys) -> None:
        write_secret(self.keys_file, msgspec.json.encode(keys).decode())


@contextmanager
def open_place(data: Path) -> Iterator[Place]:
    """Make the directory, and be the only one who has it open, until the end of the block.

    Raises Misconfigured with what to do: it cannot be made or written, or is open elsewhere.
    """
    place = Place(data)
    try:
        data.mkdir(parents=True, exist_ok=True)
        # A server that runs as another user passes through; what it may not read is 0600 or 0700 itself.
        data.chmod(0o711 if os.geteuid() == 0 else 0o700)
        for directory, mode in (("logs", 0o700), ("run", 0o700), ("state", 0o711)):
            (data / directory).mkdir(mode=mode, exist_ok=True)
        lock = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        why = (error.strerror or "error").lower()
        raise Misconfigured(f"the data directory {data} cannot be used ({why}): give another with --data") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misconfigured(
                f"sandreel is up on {data} already (pid {holder(data) or 'unknown'}): stop it with `sandreel down --data {data}`, or give another --data"
            ) from None
        _write_all(lock, f"{os.getpid()}\n".encode(), place.lock)
        yield place
    finally:
        os.close(lock)


def check_readable(data: Path) -> None:
    """Raises Misconfigured when the directory is closed to us. One that is not there is not."""
    try:
        os.stat(data / "up.lock")  # noqa: PTH116 - the way there is asked for, not the file
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        why = (error.strerror or "error").lower()
        raise Misconfigured(
            f"the data directory {data} cannot be read ({why}): run this as its owner, or give another with --data"
        ) from error


def holder(data: Path) -> int | None:
    """The pid of the `sandreel up` that has the directory open, None when nobody has."""
    try:
        with (data / "up.lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read(32).strip()
                return int(text) if text.isdigit() else 0
    except OSError:
        return None
    return None


def closed(data: Path, *, within_s: float) -> bool:
    """Whether nobody has the directory open any more, after `within_s` at the latest. Blocking."""
    deadline = time.monotonic() + within_s
    while holder(data) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def keep_vault_key(path: Path) -> None:
    """A key-encryption key for the vault (`sandreel_bridge.broker.keyring`), where there is none. Raises Misconfigured."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(path, f"{base64.b64encode(secrets.token_bytes(32)).decode()}\n")


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Settings as TOML. Values are strings, numbers, booleans and lists of them; None is left out."""
    parts = []
    for name, table in tables.items():
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if value is not None]
        parts.append("\n".join([f"[{name}]", *lines, ""]))
    return "\n".join(parts)


def free_port() -> int:
    """A port on loopback that nobody has now."""
    while True:
        port = secrets.choice(_PORTS)
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def moved(keys: Keys, part: str) -> Keys:
    """The keys with another port for `nats`, `postgres` or `gateway`."""
    return replace(keys, **{f"{part}_port": free_port()})


def moved_health(keys: Keys, part: str) -> Keys:
    """The keys with a (new) port for the role's `/healthz` and `/metrics`."""
    return replace(keys, health_ports=keys.health_ports | {part: free_port()})


def _write_all(descriptor: int, text: bytes, path: Path) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text, 0)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be written: {(error.strerror or 'error').lower()}") from error
