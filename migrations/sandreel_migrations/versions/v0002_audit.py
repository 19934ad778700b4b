"""Commands, the audit log, stages of sessions, agent turns; and rows only for those who belong to their organisation."""

from __future__ import annotations

from pathlib import Path

from alembic import op

from sandreel_migrations.script import run

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
# Of its tables: what the views had read before comes into them by a rebuild (`upgrade` says so, and `sandreel doctor`).
begins_empty = True

# By the column that says whose a row is. A quarantined message may have no other mark of it than its subject.
_TABLES = {
    "sessions": "org",
    "session_stages": "org",
    "execs": "org",
    "exec_blocks": "org",
    "exec_events": "org",
    "event_log": "org",
    "command_log": "org",
    "command_outcomes": "org",
    "ops": "org",
    "quarantine": "split_part(subject, '.', 3)",
}


def upgrade() -> None:
    for name in ("access", "tables", "views"):
        run(op.get_bind(), Path(__file__).with_name(f"v0002_{name}.sql").read_text())
    for view in ("exec_lines", "projection_lag"):
        run(op.get_bind(), f"ALTER VIEW {view} SET (security_invoker = true)")
    for table, org in _TABLES.items():
        run(op.get_bind(), _secured(table, org))


def _secured(table: str, org: str) -> str:
    """The subquery is run once a statement, and what it yields is looked for in indexes.

    Whoever has Postgres' own role for reading everything sees everything; the tables' owner, who writes them, too.
    """
    return (
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;"
        f"CREATE POLICY own_orgs ON {table} FOR SELECT USING ({org} = ANY ((SELECT reel_access.my_orgs())::text[]));"
        f"CREATE POLICY operators ON {table} FOR SELECT TO pg_read_all_data USING (true)"
    )
