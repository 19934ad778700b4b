"""Who may read what: carried from one schema to another of the same tables, whoever gave it."""

from __future__ import annotations

from sandreel_projections.database import Connection

# Every privilege that is not the owner's own, as a statement about the same object of the other schema. Objects that
# are not there, and what somebody has already, are passed over.
_STATEMENTS = """
WITH given (what, target, privilege, grantee, option) AS (
    SELECT 'SCHEMA', quote_ident($2), a.privilege_type, a.grantee, a.is_grantable
    FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
    WHERE n.nspname = $1 AND a.grantee <> n.nspowner AND $3::text[] IS NULL
  UNION ALL
    SELECT 'TABLE', format('%I.%I', $2::text, c.relname), a.privilege_type, a.grantee, a.is_grantable
    FROM pg_class AS c, aclexplode(c.relacl) AS a
    WHERE c.relnamespace = to_regnamespace($1) AND a.grantee <> c.relowner AND c.relkind IN ('r', 'p', 'v', 'm')
      AND to_regclass(format('%I.%I', $2::text, c.relname)) IS NOT NULL
      AND ($3::text[] IS NULL OR c.relname = ANY ($3))
  UNION ALL
    SELECT 'TABLE', format('%I.%I', $2::text, c.relname), format('%s (%I)', a.privilege_type, t.attname), a.grantee,
           a.is_grantable
    FROM pg_class AS c JOIN pg_attribute AS t ON t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped,
         aclexplode(t.attacl) AS a
    WHERE c.relnamespace = to_regnamespace($1) AND a.grantee <> c.relowner
      AND to_regclass(format('%I.%I', $2::text, c.relname)) IS NOT NULL
      AND ($3::text[] IS NULL OR c.relname = ANY ($3))
  UNION ALL
    SELECT 'FUNCTION', f.target, a.privilege_type, a.grantee, a.is_grantable
    FROM pg_proc AS p,
         LATERAL (SELECT format('%I.%I(%s)', $2::text, p.proname, pg_get_function_identity_arguments(p.oid))) AS f (target),
         aclexplode(p.proacl) AS a
    WHERE p.pronamespace = to_regnamespace($1) AND a.grantee <> p.proowner
      AND to_regprocedure(format('%I.%I(%s)', $2::text, p.proname, oidvectortypes(p.proargtypes))) IS NOT NULL
      AND ($3::text[] IS NULL OR p.proname = ANY ($3))
)
SELECT format('GRANT %s ON %s %s TO %s%s', privilege, what, target,
              CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
              CASE WHEN option THEN ' WITH GRANT OPTION' ELSE '' END)
FROM given"""


async def carry(connection: Connection, source: str, target: str, only: list[str] | None = None) -> None:
    """Give whoever may something in the schema `source` the same in `target`; with `only`, on objects of these names.

    In the caller's transaction. Raises asyncpg's errors: the caller translates.
    """
    for record in await connection.fetch(_STATEMENTS, source, target, only):
        await connection.execute(record[0])
