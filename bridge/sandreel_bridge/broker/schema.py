"""The vault's own tables, in a schema of their own: neither a rebuild of the views nor their migrations know of it (decision 0034)."""

from __future__ import annotations

# 2: a value is sealed with its recipe and options. 3: minted tokens are kept (`tokens`); a 2 becomes that by the statements below.
SCHEMA = 3
FROM_SCHEMA = 2

# One statement after the other, each of which does nothing where it has been done.
STATEMENTS = (
    "CREATE SCHEMA IF NOT EXISTS vault",
    # `key_id` is the key that seals from now on: who puts a value with another one has old keys in hand. `wrapped` is the
    # fingerprints' key.
    """CREATE TABLE IF NOT EXISTS vault.installation (
         one boolean PRIMARY KEY DEFAULT true CHECK (one),
         schema integer NOT NULL,
         key_id text NOT NULL,
         wrapped bytea NOT NULL)""",
    # `wrapped` is the value's own key, sealed by the key-encryption key `key_id`; `sealed` the value, sealed by that. Both
    # are NULL once the version was deleted, or has become too old.
    """CREATE TABLE IF NOT EXISTS vault.credentials (
         org text NOT NULL,
         slug text NOT NULL,
         version integer NOT NULL CHECK (version > 0),
         recipe text NOT NULL,
         options jsonb NOT NULL,
         fingerprint text NOT NULL,
         key_id text,
         wrapped bytea,
         sealed bytea,
         created_at timestamptz NOT NULL DEFAULT now(),
         created_by text NOT NULL,
         PRIMARY KEY (org, slug, version),
         CHECK (num_nulls(key_id, wrapped, sealed) IN (0, 3)))""",
    "CREATE INDEX IF NOT EXISTS credentials_by_key ON vault.credentials (key_id) WHERE key_id IS NOT NULL",
    """CREATE TABLE IF NOT EXISTS vault.audit (
         id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
         at timestamptz NOT NULL DEFAULT now(),
         org text NOT NULL,
         slug text NOT NULL,
         version integer,
         action text NOT NULL,
         by text NOT NULL,
         session text,
         lease text,
         purpose text NOT NULL DEFAULT '')""",
    "CREATE INDEX IF NOT EXISTS audit_by_credential ON vault.audit (org, slug, id)",
    # Of minted tokens that work still. `due_at`: when somebody is to end it next; NULL while its lease stands.
    """CREATE TABLE IF NOT EXISTS vault.tokens (
         lease text PRIMARY KEY,
         org text NOT NULL,
         slug text NOT NULL,
         session text NOT NULL,
         options jsonb NOT NULL,
         minted_at timestamptz NOT NULL DEFAULT now(),
         expires_at timestamptz NOT NULL,
         key_id text NOT NULL,
         wrapped bytea NOT NULL,
         sealed bytea NOT NULL,
         due_at timestamptz,
         tries integer NOT NULL DEFAULT 0,
         said boolean NOT NULL DEFAULT false)""",
    "CREATE INDEX IF NOT EXISTS tokens_by_due ON vault.tokens (due_at, minted_at)",
    "CREATE INDEX IF NOT EXISTS tokens_by_expiry ON vault.tokens (expires_at)",
    "REVOKE ALL ON SCHEMA vault FROM PUBLIC",
)

# Transactions that put take the lock shared, what changes the key that seals takes it alone. Any number will do.
LOCK = 0x5A4D_7661_756C_74
