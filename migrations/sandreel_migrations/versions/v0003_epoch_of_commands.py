"""Which stream of commands a command was sent to: rows of one that was replaced stand beside those of the new one."""

from __future__ import annotations

from alembic import op

from sandreel_migrations.script import run

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # All rows that are there were read from the stream that the cursor is of.
    run(
        op.get_bind(),
        """ALTER TABLE command_log ADD COLUMN epoch text;
           UPDATE command_log SET epoch = coalesce((SELECT epoch FROM cursors WHERE stream = 'CMD'), '');
           ALTER TABLE command_log ALTER COLUMN epoch SET NOT NULL;
           COMMENT ON COLUMN command_log.epoch IS
               'epoch of the stream of commands that it was sent to: another one after that was replaced';
           COMMENT ON COLUMN command_log.sequence IS 'place in the stream of commands, as it was then';""",
    )
