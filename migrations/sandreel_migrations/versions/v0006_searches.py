"""How many searches a provider ran for a call: their price is in its cost. (And what `attempt` counts, in the words of today.)"""

from __future__ import annotations

from pathlib import Path

from alembic import op

from sandreel_migrations.script import run

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(op.get_bind(), Path(__file__).with_name("v0006_views.sql").read_text())
