"""Runs a text of many statements in the migration's own transaction.

The law of these texts: names have no schema, because a rebuild makes the same tables in a schema of another name
beside the live one; the search path of the transaction says which. For the same reason a function that reads
tables has a body that is parsed when it is made (`BEGIN ATOMIC`): a string would look for them wherever the caller
does, and under the old name after the schemas were swapped. (Comments say `reel.`: that is what people type.)
"""

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
