"""`python -m sandreel_migrations`: bring the views' schema to the newest version, once."""

from __future__ import annotations

import asyncio
import sys

from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_core.settings import Postgres, load
from sandreel_migrations.upgrade import upgrade


def main() -> int:
    """0 when the schema is up to date, else 2 and one line that says what to do."""
    try:
        settings = load(Postgres)
        if settings.dsn is None:
            raise Misconfigured("Postgres is not set: give [postgres] dsn or SANDREEL_POSTGRES_DSN")
        version = asyncio.run(upgrade(settings.dsn))
    except (Misconfigured, Unavailable) as error:
        print(f"sandreel migrations: {error}", file=sys.stderr)  # noqa: T201 - for the operator
        return 2
    print(f"sandreel migrations: the views' schema is at version {version}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
