"""The schema of the first release: sessions, execs, their output, and how far the log has been read."""

from __future__ import annotations

from pathlib import Path

from alembic import op

from sandreel_migrations.script import run

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("tables", "views"):
        run(op.get_bind(), Path(__file__).with_name(f"v0001_{name}.sql").read_text())
    # Blocks are compressed where the server has lz4: pglz, its default, costs more than the disk.
    run(
        op.get_bind(),
        """DO $$ BEGIN
               ALTER TABLE exec_blocks ALTER COLUMN data SET COMPRESSION lz4;
           EXCEPTION WHEN feature_not_supported THEN
               ALTER TABLE exec_blocks ALTER COLUMN data SET STORAGE EXTERNAL;
           END $$""",
    )
