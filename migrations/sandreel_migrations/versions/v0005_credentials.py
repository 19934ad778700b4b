"""Who may have which credential and who has had it; and what a call was charged where that is not its cost."""

from __future__ import annotations

from pathlib import Path

from alembic import op

from sandreel_migrations.script import run

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
# Of its tables: what the views had read before comes into them by a rebuild (`upgrade` says so, and `sandreel doctor`).
begins_empty = True


def upgrade() -> None:
    for name in ("tables", "views"):
        run(op.get_bind(), Path(__file__).with_name(f"v0005_{name}.sql").read_text())
    # As in 0002.
    run(
        op.get_bind(),
        """ALTER TABLE credential_log ENABLE ROW LEVEL SECURITY;
           CREATE POLICY own_orgs ON credential_log FOR SELECT
               USING (org = ANY ((SELECT reel_access.my_orgs())::text[]));
           CREATE POLICY operators ON credential_log FOR SELECT TO pg_read_all_data USING (true)""",
    )
