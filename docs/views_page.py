"""Writes `views.md` beside this file: `python docs/views_page.py`. It asks a Postgres of its own what its views say."""

import asyncio
import shutil
import tempfile
from pathlib import Path

from sandreel_core.embedded.postgres import PostgresServer
from sandreel_migrations.upgrade import upgrade
from sandreel_projections.catalogue import catalogue
from sandreel_projections.database import connected
from sandreel_projections.document import page


async def main() -> None:
    # Not below /tmp/pytest-… or the like: the server runs as another user where this runs as root.
    data = Path(tempfile.mkdtemp(prefix="sandreel-views-"))
    try:
        async with PostgresServer(data / "postgres", settings={"fsync": "off"}) as server:
            await upgrade(server.dsn(), wait_s=30)
            async with connected(server.dsn(), "views page") as connection:
                text = page(await catalogue(connection))
    finally:
        shutil.rmtree(data)
    (Path(__file__).parent / "views.md").write_text(text)


if __name__ == "__main__":
    asyncio.run(main())
