"""A vault in Postgres: values sealed with keys of their own, those with the key-encryption key, and every read written down.

A database that is stolen without the key-encryption key gives names, fingerprints and times. What is sealed names its org,
slug and version, so that rows cannot be exchanged for each other; and its recipe and options, for who could change these would say
to which host a token goes, and that an app's private key is a value to be handed out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from sandreel_bridge.broker import sealing
from sandreel_bridge.broker.keyring import Keyring, KeySource
from sandreel_bridge.broker.schema import FROM_SCHEMA, LOCK, SCHEMA, STATEMENTS
from sandreel_bridge.broker.vault import KEPT_VERSIONS, MAX_VALUE_BYTES, Entry, Name, Note, Opened, Reader, Unreadable
from sandreel_core.errors import Malformed, Misconfigured, NotFound, TooLarge, Unavailable
from sandreel_projections.database import CONNECT_S, Connection, place, readable, translated

if TYPE_CHECKING:
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Pool = asyncpg.Pool

# A vault that takes longer is away: runnerd gives a lease 10 s in all (`sandreel_runnerd.secrets`).
ANSWERS_WITHIN_S = 5.0
_CONNECTIONS = 8
_CLOSE_S = 2.0
_FINGERPRINTS = "fingerprints"

_ENTRY = "org, slug, version, recipe, options, fingerprint, created_at, created_by"
_ENTRIES = f"""
SELECT * FROM (
  SELECT DISTINCT ON (org, slug) {_ENTRY}, sealed IS NOT NULL AS there FROM vault.credentials
  WHERE ($1::text IS NULL OR org = $1) AND ($2::text[] IS NULL OR slug = ANY ($2))
  ORDER BY org, slug, version DESC) newest
WHERE there ORDER BY org, slug"""  # noqa: S608 - a constant of ours
_NEWEST = f"""
SELECT {_ENTRY}, key_id, wrapped, sealed FROM vault.credentials
WHERE org = $1 AND slug = $2 ORDER BY version DESC LIMIT 1"""  # noqa: S608
# One statement, so that no read is without its line.
_READ = f"""
WITH newest AS ({_NEWEST}), noted AS (
  INSERT INTO vault.audit (org, slug, version, action, by, session, lease, purpose)
  SELECT org, slug, version, 'read', $3, $4, $5, $6 FROM newest WHERE sealed IS NOT NULL)
SELECT * FROM newest WHERE sealed IS NOT NULL"""  # noqa: S608
_NOTE = "INSERT INTO vault.audit (org, slug, version, action, by) VALUES ($1, $2, $3, $4, $5)"
_PUT = f"""
INSERT INTO vault.credentials (org, slug, version, recipe, options, fingerprint, key_id, wrapped, sealed, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING {_ENTRY}"""  # noqa: S608
_CLEAR = "UPDATE vault.credentials SET key_id = NULL, wrapped = NULL, sealed = NULL WHERE org = $1 AND slug = $2 AND sealed IS NOT NULL"


class PostgresVault:
    """See `vault.Vault`. Made by `open_vault`."""

    def __init__(self, pool: Pool, source: KeySource, keys: Keyring, dsn: str) -> None:
        self._pool = pool
        self._source = source
        self._keys = keys
        self._dsn = dsn
        self._fingerprints = b""

    @property
    def keys(self) -> Keyring:
        return self._keys

    @property
    def source(self) -> KeySource:
        return self._source

    async def begin(self) -> None:
        """Make the tables where there are none, and see that the keys are the right ones. Raises Misconfigured, which
        says which key is missing."""
        async with self.connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            if await connection.fetchval("SELECT to_regclass('vault.tokens')") is None:
                for statement in STATEMENTS:
                    await connection.execute(statement)
                raised = "UPDATE vault.installation SET schema = $1 WHERE schema = $2"
                await connection.execute(raised, SCHEMA, FROM_SCHEMA)
            row = await connection.fetchrow("SELECT schema, key_id, wrapped FROM vault.installation")
            if row is None:
                self._fingerprints = sealing.new_key()
                key_id, wrapped = self._keys.wrap(self._fingerprints, _FINGERPRINTS)
                made = "INSERT INTO vault.installation (schema, key_id, wrapped) VALUES ($1, $2, $3)"
                await connection.execute(made, SCHEMA, key_id, wrapped)
                return
        if row["schema"] != SCHEMA:
            raise Misconfigured(
                f"the vault at {place(self._dsn)} has schema {row['schema']}, and this version knows {SCHEMA}"
            )
        if row["key_id"] not in self._keys:
            raise Misconfigured(
                f"the vault at {place(self._dsn)} is sealed with the key {row['key_id']}, and {self._source} holds"
                f" {', '.join(self._keys.ids)}: give it the right one"
            )
        try:
            self._fingerprints = self._keys.open(row["key_id"], row["wrapped"], _FINGERPRINTS)
        except Malformed:
            raise Misconfigured(f"vault.installation at {place(self._dsn)} was changed: restore it") from None

    async def put(self, name: Name, value: bytes, *, recipe: str, options: Mapping[str, str], by: str) -> Entry:
        """See `Vault.put`. Raises TooLarge, Malformed (nothing)."""
        if not value:
            raise Malformed(f"the value of {name} is empty")
        if len(value) > MAX_VALUE_BYTES:
            raise TooLarge(f"the value of {name} is longer than {MAX_VALUE_BYTES} bytes")
        fingerprint = await self.fingerprint(name.org, value)
        async with self.to_seal() as (connection, keys):
            # Two that put the same credential are one after the other.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"vault {name}")
            newest = await connection.fetchval(
                "SELECT max(version) FROM vault.credentials WHERE org = $1 AND slug = $2", *name
            )
            version = (newest or 0) + 1
            own = sealing.new_key()
            key_id, wrapped = keys.wrap(own, _context(name, version))
            sealed = sealing.encrypt(own, value, _use_context(name, version, recipe, options))
            row = await connection.fetchrow(
                *(_PUT, *name, version, recipe, json.dumps(dict(options)), fingerprint, key_id, wrapped, sealed, by)
            )
            await connection.execute(f"{_CLEAR} AND version <= $3", *name, version - KEPT_VERSIONS)
            await connection.execute(_NOTE, *name, version, "put", by)
        assert row is not None  # noqa: S101 - RETURNING
        return _entry(row)

    async def entries(self, org: str | None, slugs: Collection[str] | None = None) -> list[Entry]:
        async with self.connection() as connection:
            rows = await connection.fetch(_ENTRIES, org, None if slugs is None else list(slugs))
        return [_entry(row) for row in rows]

    async def read(self, name: Name, reader: Reader) -> Opened:
        async with self.connection() as connection:
            row = await connection.fetchrow(_READ, *name, reader.by, reader.session, reader.lease, reader.purpose)
            if row is None:
                raise NotFound(f"the vault holds no {name}")
            entry = _entry(row)
            context = _context(name, entry.version)
            try:
                keys = await self.keys_with(row["key_id"])
                own = keys.open(row["key_id"], row["wrapped"], context)
                use = _use_context(name, entry.version, entry.recipe, entry.options)
                return Opened(entry=entry, value=sealing.decrypt(own, row["sealed"], use))
            except (KeyError, Malformed):
                await connection.execute(_NOTE, *name, entry.version, "unreadable", reader.by)
                raise Unreadable(
                    f"version {entry.version} of {name} does not open with the keys of {self._source}"
                ) from None

    async def fingerprint(self, org: str, value: bytes) -> str:
        return sealing.fingerprint(self._fingerprints, org, value)

    async def delete(self, name: Name, *, by: str) -> int:
        async with self.connection() as connection, connection.transaction():
            done = await connection.execute(_CLEAR, *name)
            count = int(done.rpartition(" ")[2])
            if not count:
                raise NotFound(f"the vault holds no {name}")
            await connection.execute(_NOTE, *name, None, "deleted", by)
        return count

    async def notes(self, org: str | None, slug: str | None = None, *, limit: int = 100) -> list[Note]:
        select = """SELECT * FROM vault.audit WHERE ($1::text IS NULL OR org = $1) AND ($2::text IS NULL OR slug = $2)
                    ORDER BY id DESC LIMIT $3"""
        async with self.connection() as connection:
            rows = await connection.fetch(select, org, slug, limit)
        return [_note(row) for row in reversed(rows)]

    async def forget_notes(self, days: float) -> int:
        """Drop the audit's lines that are older; how many there were."""
        async with self.connection() as connection:
            done = await connection.execute(
                "DELETE FROM vault.audit WHERE at < now() - make_interval(secs => $1)", days * 86_400
            )
        return int(done.rpartition(" ")[2])

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Raises Unavailable, also when the vault answers too late."""
        with translated():
            try:
                async with asyncio.timeout(ANSWERS_WITHIN_S), self._pool.acquire() as connection:
                    yield connection  # type: ignore[misc]
            except TimeoutError:
                raise Unavailable(f"the vault does not answer within {ANSWERS_WITHIN_S:g} s") from None

    @asynccontextmanager
    async def to_seal(self) -> AsyncIterator[tuple[Connection, Keyring]]:
        """A transaction in which something is sealed, and what with. Raises Unavailable; Misconfigured when the key that
        seals now is not the source's first."""
        async with self.connection() as connection, connection.transaction():
            # Whoever rotates waits for us, or we for them: nothing is sealed with a key that is about to go.
            await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", LOCK)
            await self._seal_with(await connection.fetchval("SELECT key_id FROM vault.installation"))
            yield connection, self._keys

    def take(self, keys: Keyring) -> None:
        """Seal and open with these from now on."""
        self._keys = keys

    async def keys_with(self, key_id: str) -> Keyring:
        """The keys, read again where that one is not among them: somebody may have rotated. It may be none of them."""
        if key_id not in self._keys:
            self._keys = await asyncio.to_thread(self._source.load)
        return self._keys

    async def _seal_with(self, key_id: str) -> None:
        """Raises Misconfigured when the key that seals now is not the source's first."""
        if key_id != self._keys.current:
            self._keys = await asyncio.to_thread(self._source.load)
        if key_id != self._keys.current:
            raise Misconfigured(
                f"the vault is sealed with the key {key_id}, and the first in {self._source} is {self._keys.current}:"
                " run `sandreel credential rewrap`"
            )


@asynccontextmanager
async def open_vault(dsn: str, source: KeySource) -> AsyncIterator[PostgresVault]:
    """Raises Unavailable, Misconfigured: no key, another key, no right to make the tables."""
    keys = await asyncio.to_thread(source.load)
    with translated(), readable(dsn):
        pool: Pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=_CONNECTIONS,
            timeout=CONNECT_S,
            command_timeout=ANSWERS_WITHIN_S,
            server_settings={"application_name": "sandreel broker", "timezone": "UTC"},
        )
    try:
        vault = PostgresVault(pool, source, keys, dsn)
        await vault.begin()
        yield vault
    finally:
        try:
            async with asyncio.timeout(_CLOSE_S):
                await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()


def _context(name: Name, version: int) -> str:
    """What a value's sealed key says of itself. Neither an org nor a slug holds a slash."""
    return f"{name.org}/{name.slug}/{version}"


def _use_context(name: Name, version: int, recipe: str, options: Mapping[str, str]) -> str:
    """What a sealed value says of itself, and of what it is for."""
    return f"{_context(name, version)}/{json.dumps([recipe, sorted(options.items())])}"


def _entry(row: asyncpg.Record) -> Entry:
    return Entry(
        name=Name(row["org"], row["slug"]),
        version=row["version"],
        recipe=row["recipe"],
        options=json.loads(row["options"]),
        fingerprint=row["fingerprint"],
        created_at=row["created_at"],
        created_by=row["created_by"],
    )


def _note(row: asyncpg.Record) -> Note:
    reader = Reader(by=row["by"], session=row["session"], lease=row["lease"], purpose=row["purpose"])
    name = Name(row["org"], row["slug"])
    return Note(id=row["id"], at=row["at"], name=name, version=row["version"], action=row["action"], reader=reader)
