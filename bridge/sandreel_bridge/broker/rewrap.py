"""Another key-encryption key: every value's own key is sealed anew, batch by batch; the values themselves stay as they are.

    1  the new key is the first in the source, the old ones stand behind it            (nothing has changed yet)
    2  the installation says that the new one seals                                   (new values are sealed with it)
    3  rows are sealed anew, a batch a transaction                                     (either key opens its rows)
    4  when no row is left that another key sealed, those leave the source

Killed anywhere, it goes on where it was: each step looks at what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from sandreel_bridge.broker.postgres import PostgresVault
from sandreel_bridge.broker.schema import LOCK
from sandreel_core.errors import Malformed, Misconfigured

BATCH = 100


class Rewrapped(Struct, frozen=True, kw_only=True):
    """`stuck` rows were sealed by a key that is not here, or were changed; `retired` keys have left the source."""

    key_id: str
    rows: int
    stuck: int
    retired: int


async def rewrap(
    vault: PostgresVault, *, by: str, new_key: bool = False, progress: Callable[[int], None] = lambda rows: None
) -> Rewrapped:
    """Seal everything with the first key of the source (`new_key`: make one first). `progress` hears how many rows are done.
    Raises Misconfigured (also while another rotation is under way), Unavailable."""
    with vault.source.alone():
        return await _rewrap(vault, by, new_key, progress)


async def _rewrap(vault: PostgresVault, by: str, new_key: bool, progress: Callable[[int], None]) -> Rewrapped:
    source = vault.source
    vault.take(await asyncio.to_thread(source.renew if new_key else source.load))
    current = vault.keys.current
    await _seal_installation(vault)
    done, stuck = 0, 0
    after = ("", "", 0)
    while batch := await _batch(vault, after, by):
        done += sum(sealed for _, sealed in batch)
        stuck += sum(not sealed for _, sealed in batch)
        after = batch[-1][0]
        progress(done)
    retired = 0 if stuck else await _retire(vault)
    return Rewrapped(key_id=current, rows=done, stuck=stuck, retired=retired)


async def _seal_installation(vault: PostgresVault) -> None:
    async with vault.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        row = await connection.fetchrow("SELECT key_id, wrapped FROM vault.installation")
        assert row is not None  # noqa: S101 - the vault is open
        if row["key_id"] != vault.keys.current:
            try:
                plain = vault.keys.open(row["key_id"], row["wrapped"], "fingerprints")
            except (KeyError, Malformed):
                raise Misconfigured(
                    f"the vault is sealed with the key {row['key_id']}, which does not stand in {vault.source}: somebody has"
                    " rotated with another file"
                ) from None
            update = "UPDATE vault.installation SET key_id = $1, wrapped = $2"
            await connection.execute(update, *vault.keys.wrap(plain, "fingerprints"))


async def _batch(vault: PostgresVault, after: tuple[str, str, int], by: str) -> list[tuple[tuple[str, str, int], bool]]:
    """The next rows that another key sealed, and whether each is sealed with the current one now."""
    select = """SELECT org, slug, version, key_id, wrapped FROM vault.credentials
                WHERE key_id <> $1 AND (org, slug, version) > ($2, $3, $4)
                ORDER BY org, slug, version LIMIT $5 FOR UPDATE"""
    update = "UPDATE vault.credentials SET key_id = $4, wrapped = $5 WHERE org = $1 AND slug = $2 AND version = $3"
    note = "INSERT INTO vault.audit (org, slug, version, action, by) VALUES ($1, $2, $3, 'rewrapped', $4)"
    found: list[tuple[tuple[str, str, int], bool]] = []
    async with vault.connection() as connection, connection.transaction():
        for row in await connection.fetch(select, vault.keys.current, *after, BATCH):
            where = (row["org"], row["slug"], row["version"])
            context = "/".join(map(str, where))
            try:
                plain = vault.keys.open(row["key_id"], row["wrapped"], context)
            except (KeyError, Malformed):
                found.append((where, False))
                continue
            await connection.execute(update, *where, *vault.keys.wrap(plain, context))
            await connection.execute(note, *where, by)
            found.append((where, True))
    return found


async def _retire(vault: PostgresVault) -> int:
    """Only while nobody puts, and only when no row needs an old key."""
    async with vault.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        left = await connection.fetchval(
            "SELECT count(*) FROM (SELECT key_id FROM vault.credentials UNION ALL SELECT key_id FROM vault.installation) AS all_of_them"
            " WHERE key_id <> $1",
            vault.keys.current,
        )
        return 0 if left else await asyncio.to_thread(vault.source.retire, vault.keys.current)
