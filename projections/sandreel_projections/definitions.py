"""What reads a table: views, functions and policies, as texts that make the same again over another table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sandreel_projections import grants
from sandreel_projections.database import Connection


@dataclass(slots=True)
class Definitions:
    """Of the schema `schema`: in the order in which they can be made. Texts name nothing by schema."""

    schema: str
    statements: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    @classmethod
    async def of(cls, connection: Connection, schema: str, tables: Sequence[str]) -> Definitions:
        """Everything that reads one of these tables, directly or through something else that does. In a transaction,
        whose search path this sets. Raises asyncpg's errors: the caller translates."""
        made = cls(schema)
        # Postgres writes a name without its schema when that is in the search path.
        await connection.execute(f"SET LOCAL search_path = {schema}")
        for row in await connection.fetch(_READERS, schema, list(tables)):
            made.names.add(row["name"])
            made.statements += [row["definition"], *(row["comments"] or [])]
        for row in await connection.fetch(_POLICIES, schema, list(tables)):
            made.statements.append(row["statement"])
        return made

    async def make(self, connection: Connection, schema: str) -> None:
        """The same in another schema, in the place of what is there. Who may read them in `self.schema` may read them
        there too."""
        await connection.execute(f"SET LOCAL search_path = {schema}")
        for statement in self.statements:
            await connection.execute(statement)
        if self.names:
            await grants.carry(connection, self.schema, schema, sorted(self.names))


# Views come with their options (whose rights they read with), functions with their bodies. `depth` is the longest way
# from a table: what is read by something else is made before it.
_READERS = """
WITH RECURSIVE edges (kind, oid, reads_kind, reads) AS (
    SELECT DISTINCT 'pg_class'::regclass, r.ev_class, d.refclassid, d.refobjid
    FROM pg_rewrite AS r JOIN pg_class AS v ON v.oid = r.ev_class AND v.relkind = 'v'
    JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
    WHERE v.relnamespace = to_regnamespace($1) AND d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass)
      AND d.refobjid <> r.ev_class
  UNION
    SELECT DISTINCT 'pg_proc'::regclass, p.oid, d.refclassid, d.refobjid
    FROM pg_proc AS p JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
    WHERE p.pronamespace = to_regnamespace($1) AND d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass)
      AND d.refobjid <> p.oid
), readers (kind, oid, depth) AS (
    SELECT 'pg_class'::regclass, c.oid, 0 FROM pg_class AS c
    WHERE c.relnamespace = to_regnamespace($1) AND c.relname = ANY ($2)
  UNION
    SELECT e.kind, e.oid, r.depth + 1 FROM readers AS r JOIN edges AS e ON e.reads_kind = r.kind AND e.reads = r.oid
    WHERE r.depth < 50
), ordered AS (SELECT kind, oid, max(depth) AS depth FROM readers WHERE depth > 0 GROUP BY kind, oid)
SELECT o.depth, c.relname::text AS name,
       format('CREATE OR REPLACE VIEW %I %s AS %s', c.relname,
              coalesce('WITH (' || array_to_string(c.reloptions, ', ') || ')', ''), pg_get_viewdef(c.oid)) AS definition,
       (SELECT array_agg(format('COMMENT ON %s IS %L',
                                CASE s.objsubid WHEN 0 THEN format('VIEW %I', c.relname)
                                                ELSE format('COLUMN %I.%I', c.relname, a.attname) END, s.description))
        FROM pg_description AS s LEFT JOIN pg_attribute AS a ON a.attrelid = s.objoid AND a.attnum = s.objsubid
        WHERE s.objoid = c.oid AND s.classoid = 'pg_class'::regclass) AS comments
FROM ordered AS o JOIN pg_class AS c ON c.oid = o.oid AND o.kind = 'pg_class'::regclass
UNION ALL
SELECT o.depth, p.proname::text,
       -- The head of what Postgres writes names the schema always, the body never.
       replace(pg_get_functiondef(p.oid), format('FUNCTION %I.%I(', $1::text, p.proname), format('FUNCTION %I(', p.proname)),
       (SELECT array_agg(format('COMMENT ON FUNCTION %I(%s) IS %L', p.proname, pg_get_function_identity_arguments(p.oid),
                                s.description))
        FROM pg_description AS s WHERE s.objoid = p.oid AND s.classoid = 'pg_proc'::regclass)
FROM ordered AS o JOIN pg_proc AS p ON p.oid = o.oid AND o.kind = 'pg_proc'::regclass
ORDER BY depth, name"""

# A policy goes along with its table, but what its condition reads would still be that of the other schema.
_POLICIES = """
SELECT format('ALTER POLICY %I ON %I%s%s', p.polname, c.relname,
              ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
              ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')') AS statement
FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid
WHERE c.relnamespace = to_regnamespace($1) AND c.relname = ANY ($2)"""
