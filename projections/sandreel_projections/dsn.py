"""Where the commands that read Postgres find it."""

from __future__ import annotations

import argparse

from sandreel_core.cli import connection


def dsn_of(args: argparse.Namespace) -> str:
    """From where the other commands take the bus. Raises Misconfigured when none of them says it."""
    from sandreel_projections.queries import required  # noqa: PLC0415 - asyncpg, when the command runs

    return required(connection.dsn_of(args))
