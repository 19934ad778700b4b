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
from typing import NamedTuple

from msgspec import Struct

from sandreel_bridge.broker import postgres_tokens
from sandreel_bridge.broker.postgres import PostgresVault
from sandreel_bridge.broker.schema import LOCK
from sandreel_core.errors import Malformed, Misconfigured

BATCH = 100


_Where = tuple[str | int, ...]


class _Kind(NamedTuple):
    """A table whose rows are sealed: what tells them apart, where to begin, and what a row says of itself."""

    table: str
    columns: tuple[str, ...]
    first: _Where
    context: Callable[[_Where], str]


_KINDS = (
    _Kind("credentials", ("org", "slug", "version"), ("", "", 0), lambda where: "/".join(map(str, where))),
    _Kind("tokens", ("lease",), ("",), lambda where: postgres_tokens.context(str(where[0]))),
)


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
    for kind in _KINDS:
        after = kind.first
        while batch := await _batch(vault, kind, after, by):
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


async def _batch(vault: PostgresVault, kind: _Kind, after: _Where, by: str) -> list[tuple[_Where, bool]]:
    """The next rows that another key sealed, and whether each is sealed with the current one now."""
    names, many = ", ".join(kind.columns), len(kind.columns)
    places = [f"${number}" for number in range(1, many + 3)]
    select = f"""SELECT * FROM vault.{kind.table}
                 WHERE key_id <> ${many + 1} AND ({names}) > ({", ".join(places[:many])})
                 ORDER BY {names} LIMIT {BATCH} FOR UPDATE"""  # noqa: S608 - constants of ours
    update = f"""UPDATE vault.{kind.table} SET key_id = {places[-2]}, wrapped = {places[-1]}
                 WHERE ({names}) = ({", ".join(places[:many])})"""  # noqa: S608
    note = "INSERT INTO vault.audit (org, slug, version, action, by, lease) VALUES ($1, $2, $3, 'rewrapped', $4, $5)"
    found: list[tuple[_Where, bool]] = []
    async with vault.connection() as connection, connection.transaction():
        for row in await connection.fetch(select, *after, vault.keys.current):
            where = tuple(row[name] for name in kind.columns)
            context = kind.context(where)
            try:
                plain = vault.keys.open(row["key_id"], row["wrapped"], context)
            except (KeyError, Malformed):
                found.append((where, False))
                continue
            await connection.execute(update, *where, *vault.keys.wrap(plain, context))
            await connection.execute(note, row["org"], row["slug"], row.get("version"), by, row.get("lease"))
            found.append((where, True))
    return found


async def _retire(vault: PostgresVault) -> int:
    """Only while nobody puts, and only when no row needs an old key."""
    async with vault.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        tables = ("installation", *(kind.table for kind in _KINDS))
        counts = [f"(SELECT count(*) FROM vault.{table} WHERE key_id <> $1)" for table in tables]  # noqa: S608
        left = await connection.fetchval(f"SELECT {' + '.join(counts)}", vault.keys.current)
        return 0 if left else await asyncio.to_thread(vault.source.retire, vault.keys.current)
