"""What an operator needs who runs NATS himself, written to files: the server's accounts, and each role's settings and
credentials. Blocking.

nats/accounts.conf    for the server: `include` it in its configuration; JetStream, ports and TLS are the operator's
up/                   for `sandreel up` in front of that server (`SANDREEL_CONFIG`): what the roles need, and the command line
<role>/               for one role, or a person at the command line (operator), that runs elsewhere; no more than it needs

Directories are 0700, files 0600. The keys stay where they are: the same again writes the same users, as this version's
permissions say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sandreel_core import permissions as p
from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.place import toml
from sandreel_core.embedded.secret_file import write_secret
from sandreel_core.errors import Misconfigured

CONFIG = "sandreel.toml"
_CREDS, _SEED = "bus.creds", "sessions.seed"
# Those who are told where NATS is by a settings file of their own. `system` is nobody's but `sandreel access`.
_ROLES = (p.SPAWNER, p.PROJECTOR, p.BROKER, p.BRIDGE, p.EGRESS, p.GATEWAY, p.OPERATOR, p.BACKUP, p.ADMINISTRATOR)


def export(authority: Authority, directory: Path, urls: Sequence[str], accounts: str) -> list[Path]:
    """The files, in order. `urls`: where roles and sessions find the server. `accounts`: a directory of the server's.

    Makes the keys where there are none. Raises Misconfigured.
    """
    authority.open()
    bus = {"nats_urls": list(urls), "creds_file": _CREDS}
    spawner = {"sessions_account": authority.account_key("SESSIONS"), "sessions_key_file": _SEED}
    seed = {_SEED: authority.sessions_file.read_text()}
    files = {"nats": {"accounts.conf": json.dumps(_server(authority, accounts), indent=1) + "\n"}}
    files["up"] = _files(authority, p.ADMINISTRATOR, bus=bus, spawner=spawner) | seed
    for user in _ROLES:
        if user is p.SPAWNER:
            files[user.name] = _files(authority, user, bus=bus, spawner=spawner) | seed
        else:
            files[user.name] = _files(authority, user, bus=bus)
    return _write(directory, files)


def _server(authority: Authority, accounts: str) -> dict[str, Any]:
    # A full resolver stores what it is given only where it has no newer: so a start takes back no revocation.
    known = {authority.account_key(each.name): authority.account_jwt(each.name) for each in p.ACCOUNTS}
    return authority.server_config(Path(accounts)) | {"resolver_preload": known}


def _files(authority: Authority, user: p.User, **tables: dict[str, Any]) -> dict[str, str]:
    return {CONFIG: toml(tables), _CREDS: authority.creds_file(user.name).read_text()}


def _write(directory: Path, files: dict[str, dict[str, str]]) -> list[Path]:
    written = []
    try:
        for name, texts in files.items():
            (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            (directory / name).chmod(0o700)
            for file, text in texts.items():
                write_secret(directory / name / file, text)
                written.append(directory / name / file)
    except OSError as error:
        raise Misconfigured(
            f"{error.filename or directory} cannot be made ({(error.strerror or 'error').lower()}): give another directory"
        ) from error
    return written
