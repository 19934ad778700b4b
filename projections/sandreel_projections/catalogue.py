"""What the views say of themselves: names, types and comments, as Postgres has them."""

from __future__ import annotations

from dataclasses import dataclass

from sandreel_projections.columns import SCHEMA
from sandreel_projections.database import Connection, translated

# A view's columns have no constraints, so what kind of thing it is decides about the rest.
_RELATIONS = """\
SELECT c.relname AS name, c.relkind IN ('v', 'm') AS is_view, obj_description(c.oid, 'pg_class') AS meaning
FROM pg_class AS c
WHERE c.relnamespace = to_regnamespace($1) AND c.relkind IN ('r', 'v', 'p') AND NOT c.relispartition
  AND c.relname <> 'schema_version'
ORDER BY c.relname"""
_COLUMNS = """\
SELECT c.relname AS relation, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       col_description(c.oid, a.attnum) AS meaning
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace($1) ORDER BY c.relname, a.attnum"""
_FUNCTIONS = """\
SELECT p.proname AS name, pg_get_function_arguments(p.oid) AS takes, pg_get_function_result(p.oid) AS gives,
       obj_description(p.oid, 'pg_proc') AS meaning
FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace($1) ORDER BY p.proname"""


@dataclass(frozen=True, slots=True)
class ColumnText:
    name: str
    type: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A view, or a table where `is_view` is false."""

    name: str
    is_view: bool
    meaning: str
    columns: tuple[ColumnText, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """`takes` and `gives` as Postgres writes them in a declaration."""

    name: str
    takes: str
    gives: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    relations: tuple[Relation, ...]
    functions: tuple[Function, ...]


async def catalogue(connection: Connection, schema: str = SCHEMA) -> Catalogue:
    """Everything in the schema, by name. Raises Unavailable, Misconfigured."""
    with translated():
        relations = await connection.fetch(_RELATIONS, schema)
        columns = await connection.fetch(_COLUMNS, schema)
        functions = await connection.fetch(_FUNCTIONS, schema)
    found = tuple(
        Relation(
            row["name"],
            row["is_view"],
            row["meaning"],
            tuple(ColumnText(c["name"], c["type"], c["meaning"]) for c in columns if c["relation"] == row["name"]),
        )
        for row in relations
    )
    return Catalogue(found, tuple(Function(r["name"], r["takes"], r["gives"], r["meaning"]) for r in functions))
