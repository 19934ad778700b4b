"""The keys by which an embedded server knows its users, and what is signed with them. Blocking.

authority.json    the operator's and the accounts' seeds, and what was revoked. Only `sandreel up` and
                  `sandreel access` read it; whoever has it can be anybody
sessions.seed     the key that signs runnerds: the spawner's
<user>.creds      one user each (`permissions.USERS`): a role gets its own and no other
access/           what `sandreel access` has handed out, without the private keys

All of it is 0600 in a directory that is 0700 (decision 0017).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sandreel_core import jwt
from sandreel_core import permissions as p
from sandreel_core.embedded.secret_file import write_secret
from sandreel_core.errors import Malformed, Misconfigured
from sandreel_core.keys import Key, new_key

_FILE = "authority.json"
_SESSIONS = "sessions.seed"


class Seeds(Struct, frozen=True, kw_only=True):
    """`accounts` and `signing` by the account's name, `users` by the user's; `revoked`: by account, then public key, the
    Unix time up to which JWTs of that key are refused."""

    operator: str
    accounts: dict[str, str]
    signing: dict[str, str]
    users: dict[str, str]
    revoked: dict[str, dict[str, int]] = {}


class Authority:
    """Made once in `directory`, and kept."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._seeds: Seeds | None = None

    def open(self) -> None:
        """Make what is missing, and write every user's credentials as this version's permissions say.
        Raises Misconfigured."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            self._make()
        for user in p.USERS:
            key = Key(self._known().users[user.name])
            write_secret(self.creds_file(user.name), jwt.creds(self.issue(user.at(key=key.public), key), key.seed))
        write_secret(self.sessions_file, self._known().signing["SESSIONS"])

    def _make(self) -> None:
        seeds = self._read() or Seeds(operator=new_key("operator").seed, accounts={}, signing={}, users={})
        for account in p.ACCOUNTS:
            seeds.accounts.setdefault(account.name, new_key("account").seed)
            seeds.signing.setdefault(account.name, new_key("account").seed)
        for user in p.USERS:
            seeds.users.setdefault(user.name, new_key("user").seed)
        self._keep(seeds)

    def creds_file(self, user: str) -> Path:
        return self.directory / f"{user}.creds"

    @property
    def sessions_file(self) -> Path:
        return self.directory / _SESSIONS

    def account_key(self, name: p.AccountName) -> str:
        """Its public key."""
        return Key(self._known().accounts[name]).public

    def issue(self, user: p.User, key: Key, *, name: str | None = None, expires_at_s: int | None = None) -> str:
        """The user's JWT, signed by its account's signing key. `expires_at_s` is Unix time, None: never."""
        claims = jwt.user(
            key.public,
            name or user.name,
            account=self.account_key(user.account),
            publish=user.publish,
            subscribe=user.subscribe,
            deny_publish=user.deny,
            expires_at_s=expires_at_s,
            max_subscriptions=user.max_subscriptions or jwt.NO_LIMIT,
            responds=user.responds,
        )
        return _signed(claims, Key(self._known().signing[user.account]))

    def revoke(self, account: p.AccountName, public: str) -> str:
        """The account's new JWT, in which no JWT of that user issued until now is valid any more; it is kept."""
        with self._locked():
            self._seeds = None  # somebody else may have revoked another meanwhile
            seeds = self._known()
            revoked = seeds.revoked | {account: seeds.revoked.get(account, {}) | {public: int(time.time())}}
            self._keep(replace(seeds, revoked=revoked))
        return self.account_jwt(account)

    def account_jwt(self, name: p.AccountName) -> str:
        seeds = self._known()
        account = next(each for each in p.ACCOUNTS if each.name == name)
        claims = jwt.account(
            self.account_key(name),
            name,
            jetstream=account.jetstream,
            signing_keys=[Key(seeds.signing[name]).public],
            exports=[_export(each) for each in account.exports],
            imports=[self._import(each) for each in account.imports],
            revoked=seeds.revoked.get(name),
        )
        return _signed(claims, Key(seeds.operator))

    def server_config(self, accounts: Path) -> dict[str, Any]:
        """The server's own form. `accounts` is where it keeps the accounts' JWTs, and takes new ones."""
        key = Key(self._known().operator)
        system = self.account_key("SYSTEM")
        return {
            "operator": _signed(jwt.operator(key.public, "sandreel", system_account=system), key),
            "system_account": system,
            "resolver": {"type": "full", "dir": str(accounts), "allow_delete": False},
        }

    def _import(self, each: p.Import) -> dict[str, Any]:
        local = {} if each.local is None else {"local_subject": each.local}
        return {
            "name": each.subject,
            "subject": each.subject,
            "account": self.account_key(each.of),
            "type": "service",
        } | local

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """While somebody reads and writes: a revocation must not be lost."""
        lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _known(self) -> Seeds:
        if self._seeds is None:
            self._seeds = self._read()
        if self._seeds is None:
            raise Misconfigured(
                f"there are no keys at {self.directory}: `sandreel up` or `sandreel access export` makes them"
            )
        return self._seeds

    def _read(self) -> Seeds | None:
        path = self.directory / _FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=Seeds)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError):
            raise Misconfigured(
                f"{path} holds the installation's keys and cannot be read: restore it, or begin anew with another --data"
            ) from None

    def _keep(self, seeds: Seeds) -> None:
        write_secret(self.directory / _FILE, msgspec.json.encode(seeds).decode())
        self._seeds = seeds


def _signed(claims: jwt.Claims, key: Key) -> str:
    return jwt.encode(claims, issuer=key.public, issued_at_s=int(time.time()), sign=key.sign)


def _export(each: p.Export) -> dict[str, Any]:
    answers = "Stream" if each.stream else "Singleton"
    return {"name": each.subject, "subject": each.subject, "type": "service", "response_type": answers}


def read_creds(path: Path) -> str:
    """The text of a credentials file. Raises Misconfigured."""
    try:
        text = path.read_text()
        jwt.parse_creds(text)
    except (OSError, UnicodeDecodeError, Malformed):
        raise Misconfigured(
            f"the credentials {path} cannot be read: start the installation with `sandreel up`"
        ) from None
    return text
