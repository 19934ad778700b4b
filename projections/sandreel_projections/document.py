"""`docs/views.md`, from what the views say of themselves and the examples. Pure.

`python docs/views_page.py` writes it; a test fails when what is there is not what this says.
"""

from __future__ import annotations

from collections.abc import Iterable

from sandreel_projections.access import confinement
from sandreel_projections.catalogue import Catalogue, Function, Relation
from sandreel_projections.examples import EXAMPLES, QUESTIONS

# In the order in which an analyst needs them; what is not named here comes behind, by name.
_FIRST = (
    "sessions",
    "session_timeline",
    "execs",
    "exec_lines",
    "commands",
    "audit_log",
    "ops",
    "turn_events",
    "usage_ledger",
    "usage_turns",
    "usage_daily",
    "usage_weekly",
    "usage_monthly",
    "session_states",
    "credentials",
    "credential_audit",
)

_INTRODUCTION = """\
# Views

<!-- Written by `make views` from the comments in the database and sandreel_projections/examples.py. Do not edit. -->

What the log says, for SQL: everything in the schema `reel` is a fold of the log, written by the projector alone. The same
texts are in the database (`\\d+ reel.execs` in psql, `sandreel sql` without a statement).

- A row belongs to an organisation, `org`, and session ids are unique only within one.
- Times named `stored_at`, `began_at`, `ended_at`, `outcome_at` and `at` are the stream server's, so that they can be compared; all
  others are the clock of whoever said it.
- Units are in the names: `_ms`, `_s`, `_bytes`, `_micro_usd` (millionths of a US dollar, integers).
- A *cursor* is a place in the log, `epoch:partition:sequence`; `sandreel attach` and `replay` take it.

## An analyst's login

```sh
sandreel analyst add ann --org acme --org beta    # prints the password, once
sandreel analyst ls
sandreel sql --role ann "SELECT session, phase FROM reel.sessions"    # what ann would see
sandreel analyst rm ann
```

A login reads, and only the rows of its organisations: row-level security stands on every table that has rows of
organisations, and every view asks with the rights of whoever asks. Names of organisations are compared exactly. `reel.cursors` and
`reel.projection_lag` say how far streams have been read and have no rows of anybody.

On a Postgres of your own (16 or newer) the role of `[postgres] dsn` must own the views, which it does when it made them, and have
`CREATEROLE`. Without that right everything but `sandreel analyst` works; somebody who has it can make the group with
`CREATE ROLE sandreel_analysts; GRANT sandreel_analysts TO THAT_ROLE WITH ADMIN OPTION`. What you REVOKE from `sandreel_analysts` stays
revoked when you add another analyst; an upgrade of the views and a rebuild grant it again.

A role that you made yourself and that may read `reel` is no analyst: row-level security asks for its organisations, and Postgres says
`permission denied for schema reel_access`. Make it an analyst (`sandreel analyst add`), or, if it may see everybody's rows, grant it Postgres'
own `pg_read_all_data`.

What Postgres lets everybody do, an analyst might too: temporary tables, large objects, advisory locks (on which projectors decide who leads).
In a database that holds nothing but the views, `sandreel analyst add` takes that back from PUBLIC, if `[postgres] dsn` is a superuser's: so
it is below `sandreel up`. Elsewhere do it yourself, as a superuser, PROJECTOR being the role of `[postgres] dsn`:

```sql
{confinement}```

## Five questions
"""


def page(found: Catalogue) -> str:
    """The whole page. Raises KeyError for a view or function that has no example: give it one."""
    parts = [_INTRODUCTION.replace("{confinement}", confinement("sandreel", "PROJECTOR"))]
    parts += [f"**{question}**\n\n{_sql(statement)}" for question, statement in QUESTIONS.items()]
    order = {name: i for i, name in enumerate(_FIRST)}
    relations = sorted(found.relations, key=lambda each: (order.get(each.name, len(order)), each.name))
    main = [each for each in relations if each.is_view or each.name in order]
    parts += ["## Views\n", *_relations(main)]
    parts += ["## Functions\n", *(_function(each) for each in found.functions)]
    parts += ["## Tables behind them\n", *_relations(each for each in relations if each not in main)]
    return "\n".join(parts)


def _relations(relations: Iterable[Relation]) -> list[str]:
    return [_relation(each) for each in relations]


def _relation(each: Relation) -> str:
    rows = [f"| `{column.name}` | {column.type} | {_cell(column.meaning)} |" for column in each.columns]
    table = "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])
    question, statement = EXAMPLES[each.name]
    return f"### reel.{each.name}\n\n{each.meaning}\n\n{question}\n\n{_sql(statement)}\n{table}\n"


def _function(each: Function) -> str:
    question, statement = EXAMPLES[each.name]
    gives = f"`{each.gives}`"
    return f"### reel.{each.name}\n\n`({each.takes})` → {gives}\n\n{each.meaning}\n\n{question}\n\n{_sql(statement)}"


def _sql(statement: str) -> str:
    return f"```sql\n{statement};\n```\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
