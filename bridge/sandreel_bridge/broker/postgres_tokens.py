"""Minted tokens in the vault's schema: each sealed with a key of its own, and that with the key-encryption key, as values are."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

import asyncpg

from sandreel_bridge.broker import sealing
from sandreel_bridge.broker.postgres import PostgresVault
from sandreel_bridge.broker.tokens import Kept, Late, Place
from sandreel_bridge.broker.vault import Name
from sandreel_core.errors import Malformed
from sandreel_core.log import Log

# At one look; of more the next look finds the rest.
_MAX_ROWS = 1000
_MAX_AGAIN_S = 60.0
# By how much clocks of an issuer and of the database may differ.
_SKEW_S = 60.0

_KEEP = """
INSERT INTO vault.tokens (lease, org, slug, session, options, expires_at, key_id, wrapped, sealed)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"""
_END = "UPDATE vault.tokens SET due_at = now() WHERE lease = ANY ($1) AND due_at IS NULL"
_UNCLAIMED = """
SELECT lease, org, slug, session FROM vault.tokens WHERE due_at IS NULL AND minted_at < now() - make_interval(secs => $1)
ORDER BY minted_at LIMIT $2"""
# One statement, so that no read is without its line.
_CLAIM = """
WITH due AS (
  SELECT lease FROM vault.tokens WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED),
claimed AS (
  UPDATE vault.tokens AS t SET tries = tries + 1, due_at = now() + make_interval(secs => least($2 * 2.0 ^ least(tries, 16), $3))
  FROM due WHERE t.lease = due.lease RETURNING t.*),
noted AS (
  INSERT INTO vault.audit (org, slug, action, by, session, lease, purpose)
  SELECT org, slug, 'read', $4, session, lease, 'to end the token, try ' || tries FROM claimed)
SELECT * FROM claimed"""
_FORGOTTEN = """
INSERT INTO vault.audit (org, slug, action, by, session, lease, purpose) SELECT org, slug, '{action}', $1, session, lease, '{why}'
FROM gone"""
_ENDED = f"""
WITH gone AS (DELETE FROM vault.tokens WHERE lease = $2 RETURNING *)
{_FORGOTTEN.format(action="ended", why="the token works no more")}"""  # noqa: S608 - constants of ours
_EXPIRED = f"""
WITH gone AS (
  DELETE FROM vault.tokens WHERE expires_at < now() - make_interval(secs => $2) RETURNING *),
noted AS ({_FORGOTTEN.format(action="outlived", why="the token has ended by itself")} WHERE due_at IS NOT NULL)
SELECT * FROM gone WHERE due_at IS NOT NULL"""  # noqa: S608
_LATE = "SELECT count(*), max(expires_at) FROM vault.tokens WHERE due_at IS NOT NULL AND tries >= $1"


class PostgresTokens:
    """See `tokens.Tokens`. `vault` is open."""

    def __init__(self, vault: PostgresVault) -> None:
        self._vault = vault
        self._log = Log("broker.tokens")

    async def keep(self, kept: Kept) -> None:
        """See `Tokens.keep`. Raises Misconfigured, when the key that seals is none of the source's."""
        assert kept.token is not None  # noqa: S101 - it has just been made
        place = kept.place
        async with self._vault.to_seal() as (connection, keys):
            own = sealing.new_key()
            key_id, wrapped = keys.wrap(own, context(place.lease))
            sealed = sealing.encrypt(own, kept.token.encode(), _use_context(place.lease, kept.options))
            await connection.execute(
                *(_KEEP, place.lease, *place.name, place.session, json.dumps(dict(kept.options)), kept.expires_at),
                *(key_id, wrapped, sealed),
            )

    async def end(self, leases: Collection[str]) -> int:
        async with self._vault.connection() as connection:
            return int((await connection.execute(_END, list(leases))).rpartition(" ")[2])

    async def unclaimed(self, older_s: float) -> list[Place]:
        async with self._vault.connection() as connection:
            return [_place(row) for row in await connection.fetch(_UNCLAIMED, older_s, _MAX_ROWS)]

    async def claim(self, limit: int, again_s: float, *, by: str) -> list[Kept]:
        async with self._vault.connection() as connection:
            rows = await connection.fetch(_CLAIM, limit, again_s, _MAX_AGAIN_S, by)
            return [_kept(row, await self._open(row)) for row in rows]

    async def said(self, lease: str) -> None:
        async with self._vault.connection() as connection:
            await connection.execute("UPDATE vault.tokens SET said = true WHERE lease = $1", lease)

    async def ended(self, kept: Kept, *, by: str) -> None:
        async with self._vault.connection() as connection:
            await connection.execute(_ENDED, by, kept.place.lease)

    async def expired(self, *, by: str) -> list[Kept]:
        async with self._vault.connection() as connection:
            return [_kept(row, None) for row in await connection.fetch(_EXPIRED, by, _SKEW_S)]

    async def late(self, tries: int) -> Late:
        async with self._vault.connection() as connection:
            row = await connection.fetchrow(_LATE, tries)
        assert row is not None  # noqa: S101 - an aggregate
        return Late(*row)

    async def _open(self, row: asyncpg.Record) -> str | None:
        try:
            keys = await self._vault.keys_with(row["key_id"])
            own = keys.open(row["key_id"], row["wrapped"], context(row["lease"]))
            use = _use_context(row["lease"], json.loads(row["options"]))
            return sealing.decrypt(own, row["sealed"], use).decode()
        except (KeyError, Malformed):
            self._log.error("a token cannot be opened", lease=row["lease"], keys=str(self._vault.source))
            return None


def context(lease: str) -> str:
    """What a sealed token says of itself. No org begins so: a value of the vault is never taken for a token."""
    return f"/token/{lease}"


def _use_context(lease: str, options: Mapping[str, str]) -> str:
    """With whom it is ended, too: who can write rows has no token sent to a place of their own."""
    return f"{context(lease)}/{json.dumps(sorted(options.items()))}"


def _place(row: asyncpg.Record) -> Place:
    return Place(lease=row["lease"], name=Name(row["org"], row["slug"]), session=row["session"])


def _kept(row: asyncpg.Record, token: str | None) -> Kept:
    return Kept(
        place=_place(row),
        expires_at=row["expires_at"],
        options=json.loads(row["options"]),
        token=token,
        tries=row["tries"],
        said=row["said"],
    )
