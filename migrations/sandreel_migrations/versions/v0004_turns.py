"""What turns did and what they cost: their timeline, the ledger of model calls, roll-ups; sessions in people's words."""

from __future__ import annotations

from pathlib import Path

from alembic import op

from sandreel_migrations.script import run

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
# Of its tables: what the views had read before comes into them by a rebuild (`upgrade` says so, and `sandreel doctor`).
begins_empty = True

_TABLES = ("turn_items", "usage_calls", "usage_reconciled")


def upgrade() -> None:
    for name in ("tables", "views"):
        run(op.get_bind(), Path(__file__).with_name(f"v0004_{name}.sql").read_text())
    for table in _TABLES:
        run(op.get_bind(), _secured(table))


def _secured(table: str) -> str:
    """As in 0002. The table of turns has kept its policies under its new name."""
    return (
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;"
        f"CREATE POLICY own_orgs ON {table} FOR SELECT USING (org = ANY ((SELECT reel_access.my_orgs())::text[]));"
        f"CREATE POLICY operators ON {table} FOR SELECT TO pg_read_all_data USING (true)"
    )
