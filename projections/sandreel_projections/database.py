"""Connections to Postgres, and its errors as sandreel's own: asyncpg's never leave this folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

import asyncpg

from sandreel_core.errors import Malformed, Misconfigured, Unavailable

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

CONNECT_S = 10.0
_CLOSE_S = 2.0

# What a person has to mend: no waiting helps.
_MENDABLE = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.InvalidSchemaNameError,
)
# What goes by: the server restarts, is full, or picked us as a deadlock's victim.
_PASSING = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ObjectInUseError,
)


class SchemaMissing(Misconfigured):
    """A table, a column or the whole schema is not there. Somebody may be about to bring it back."""


@contextmanager
def translated() -> Generator[None, None, None]:
    """Raises Unavailable, Misconfigured, or Malformed for values that Postgres cannot keep."""
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidSchemaNameError) as error:
        raise SchemaMissing(
            f"the views' schema is missing or old ({_line(error)}): run python -m sandreel_migrations"
        ) from error
    except _MENDABLE as error:
        raise Misconfigured(f"Postgres refuses: {_line(error)}; look at [postgres] dsn") from error
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        raise Malformed(f"Postgres cannot keep it: {_line(error)}") from error
    except _PASSING as error:
        raise Unavailable(f"Postgres: {_line(error)}") from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:  # the connection was lost under our hands
        raise Unavailable(f"Postgres: {_line(error)}") from error
    except asyncpg.PostgresError as error:  # of no class above: tried again and said, instead of ending the projector
        raise Unavailable(f"Postgres: {_line(error)}") from error


@asynccontextmanager
async def connected(dsn: str, name: str, schema: str | None = None) -> AsyncGenerator[Connection, None]:
    """A connection that ends with the context. With a `schema`, tables without one are looked for there alone.

    Raises as `translated` does.
    """
    settings = {} if schema is None else {"search_path": f'"{schema}"'}
    with translated(), readable(dsn):
        connection: Connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_S,
            ssl=_encryption(dsn),
            server_settings={
                "application_name": f"sandreel {name}",
                "timezone": "UTC",
                **settings,
                # A projector whose machine is gone lets go of its partition after half a minute.
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "4",
            },
        )
    try:
        yield connection
    finally:
        await _close(connection)


def _encryption(dsn: str) -> Literal["allow"] | None:
    """On this machine's loopback it is not asked for first (where it is needed it comes second): the question is a round trip,
    and when it is cut short, by Ctrl-C say, asyncpg 0.32 leaves a future behind that complains to the terminal. None: as
    the DSN and the environment say."""
    parts = urlsplit(dsn)
    said = "sslmode" in parts.query or "PGSSLMODE" in os.environ
    return "allow" if parts.hostname in ("127.0.0.1", "::1", "localhost") and not said else None


@contextmanager
def readable(dsn: str) -> Generator[None, None, None]:
    """Raises Misconfigured for a DSN that asyncpg cannot read. What it says of it may quote the password."""
    try:
        yield
    except ValueError as error:
        if not isinstance(error, asyncpg.PostgresError):
            raise Misconfigured(
                "[postgres] dsn cannot be read: it is postgresql://user:password@host:port/database, and in a password"
                " characters such as / # ? @ [ ] are written as %2F %23 %3F %40 %5B %5D"
            ) from None
        raise


async def _close(connection: Connection) -> None:
    try:
        await asyncio.shield(connection.close(timeout=_CLOSE_S))
    except (*_PASSING, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
    except asyncio.CancelledError:
        connection.terminate()
        raise


def place(dsn: str) -> str:
    """Host, port and database, without the password."""
    try:
        parts = urlsplit(dsn)
        return f"{parts.hostname}:{parts.port or 5432}{parts.path}"
    except ValueError:  # a password with a slash in it, or several hosts: nothing of it is quoted
        return "[postgres] dsn"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
