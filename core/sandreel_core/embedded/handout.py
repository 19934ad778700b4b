"""What the services of an installation are told when each is a container of its own: `compose.yml`'s first step.

`python -m sandreel_core.embedded.handout SECRETS DATA`

SECRETS/authority/   the installation's keys (embedded/authority.py) and the database's password; no service sees it
SECRETS/<service>/   settings and secrets of one service, which has this directory and no other; 0600, of its user
DATA/<service>       where a server keeps its data: given to its user

Made once and kept; what is there is written again as this version says, so every start may do it. Blocking.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.nats import server_config
from sandreel_core.embedded.place import keep_vault_key, toml
from sandreel_core.embedded.secret_file import write_secret
from sandreel_core.errors import Misconfigured
from sandreel_core.permissions import ACCOUNTS
from sandreel_core.spawner.docker_services import BUS_PORT, EGRESS_PORT, GATEWAY_PORT
from sandreel_core.spawner.docker_settings import BUS_ALIAS, GATEWAY_ALIAS

# Of the images (image/*/Dockerfile) and, for Postgres, of the ordinary one. The spawner is root without a capability: the
# engine's socket belongs to root, and whoever may use it can do anything anyway.
USERS: Mapping[str, int] = {
    "nats": 10002,
    "postgres": 999,
    "spawner": 0,
    "projector": 10003,
    "broker": 10003,
    "egress": 10003,
    "gateway": 10003,
    "bridge": 10003,
    "operator": 10003,
}
CONFIG = "sandreel.toml"
POSTGRES_PORT = 5432
# Where the broker's container has it. The file is the broker's alone, and so is its rotation: it is made here once, and never
# written again.
_BROKER_KEY = "/run/sandreel/vault.key"
MAX_PAYLOAD_BYTES = 1024 * 1024
_USAGE = 64  # sysexits.h, EX_USAGE
_NATS_URL = f"nats://{BUS_ALIAS}:{BUS_PORT}"


def hand_out(root: Path, data: Path) -> None:
    """Raises Misconfigured."""
    try:
        authority = Authority(root / "authority")
        authority.open()
        password = _password(root / "authority" / "postgres.password")
        dsn = f"postgresql://sandreel:{password}@postgres:{POSTGRES_PORT}/sandreel"
        for service, files in _files(authority, password, dsn).items():
            directory = root / service
            directory.mkdir(mode=0o700, exist_ok=True)
            for name, text in files.items():
                write_secret(directory / name, text)
                os.chown(directory / name, USERS[service], USERS[service])
            if service == "broker":
                keep_vault_key(directory / "vault.key")
                os.chown(directory / "vault.key", USERS[service], USERS[service])
            directory.chmod(0o700)
            os.chown(directory, USERS[service], USERS[service])
            if (data / service).is_dir():
                os.chown(data / service, USERS[service], USERS[service])
        _accounts(authority, data / "nats" / "accounts", USERS["nats"])
    except OSError as error:
        raise Misconfigured(f"{error.filename}: {(error.strerror or 'error').lower()}") from error


def _accounts(authority: Authority, directory: Path, user: int) -> None:
    """What the server is to know of the accounts before it starts. It takes newer versions itself."""
    directory.mkdir(mode=0o700, exist_ok=True)
    os.chown(directory, user, user)
    for account in ACCOUNTS:
        path = directory / f"{authority.account_key(account.name)}.jwt"
        write_secret(path, authority.account_jwt(account.name))
        os.chown(path, user, user)


def _files(authority: Authority, password: str, dsn: str) -> dict[str, dict[str, str]]:
    def bus(user: str) -> dict[str, str]:
        return {"bus.creds": authority.creds_file(user).read_text()}

    store = Path("/data")
    server = server_config(store, host="0.0.0.0", port=BUS_PORT, max_payload_bytes=MAX_PAYLOAD_BYTES)  # noqa: S104 - the container's own
    # For the health check of the ordinary image; the container's loopback, where nobody else is.
    server |= authority.server_config(store / "accounts") | {"http": "127.0.0.1:8222"}
    return {
        "nats": {"nats.json": json.dumps(server, indent=1)},
        "postgres": {"password": password},
        "spawner": bus("spawner")
        | {
            "sessions.seed": authority.sessions_file.read_text(),
            CONFIG: _settings(
                spawner={
                    "backend": "docker",
                    "data": "/state",
                    # The same after the container was made anew: sessions belong to the engine, not to it.
                    "node": "engine",
                    "sessions_account": authority.account_key("SESSIONS"),
                    "sessions_key_file": "sessions.seed",
                    "runnerd_nats_urls": [_NATS_URL],
                }
            ),
        },
        "projector": bus("projector") | {"dsn": dsn, CONFIG: _settings(postgres={"dsn_file": "dsn"})},
        "broker": bus("broker")
        | {"dsn": dsn, CONFIG: _settings(postgres={"dsn_file": "dsn"}, broker={"key_file": _BROKER_KEY})},
        "egress": bus("egress") | {CONFIG: _settings(egress={"listen": f"0.0.0.0:{EGRESS_PORT}"})},
        "bridge": bus("bridge") | {CONFIG: _settings(bridge={"gateway_url": f"http://{GATEWAY_ALIAS}:{GATEWAY_PORT}"})},
        "gateway": bus("gateway") | {CONFIG: _settings(gateway={"port": GATEWAY_PORT})},
        "operator": bus("operator") | {"dsn": dsn, CONFIG: _settings(postgres={"dsn_file": "dsn"})},
    }


def _settings(**tables: dict[str, Any]) -> str:
    return toml({"bus": {"nats_urls": [_NATS_URL], "creds_file": "bus.creds"}, **tables})


def _password(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        password = secrets.token_urlsafe(24)
        write_secret(path, password)
        return password


def main(words: list[str]) -> int:
    if len(words) != 2:
        print("usage: python -m sandreel_core.embedded.handout SECRETS DATA", file=sys.stderr)  # noqa: T201 - it has no log
        return _USAGE
    try:
        hand_out(Path(words[0]), Path(words[1]))
    except Misconfigured as error:
        print(f"handout: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
