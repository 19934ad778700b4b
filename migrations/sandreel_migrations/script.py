"""Runs a text of many statements in the migration's own transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.util import await_only


def run(connection: Connection, text: str) -> None:
    """SQLAlchemy prepares each statement, which takes one at a time; asyncpg itself takes a whole script."""
    # An empty statement through SQLAlchemy opens its transaction first, so that the script is part of it.
    connection.exec_driver_sql("SELECT 1")
    driver: Any = connection.connection.driver_connection
    await_only(driver.execute(text))
