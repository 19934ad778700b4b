"""The views' schema brought up to date, by a program of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sandreel_core.embedded.place import Place
from sandreel_core.embedded.process import PYTHON, tail
from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_core.settings import CONFIG

_WITHIN_S = 120.0


async def migrate(place: Place, environ: Mapping[str, str], dsn: str) -> None:
    """`environ`: of the roles. Raises Unavailable when it takes too long, Misconfigured with the program's own line."""
    log = place.log("migrations")
    offset = log.stat().st_size if log.exists() else 0
    # The password is in the environment of a child of ours, which only we and root can read.
    own = {name: value for name, value in environ.items() if name != CONFIG} | {"SANDREEL_POSTGRES_DSN": dsn}
    with log.open("ab") as output:
        child = await asyncio.create_subprocess_exec(
            *(*PYTHON, "sandreel_migrations"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=own,
            cwd=place.data,
        )
    try:
        async with asyncio.timeout(_WITHIN_S):
            status = await child.wait()
    except TimeoutError as error:
        raise Unavailable(f"the migrations took longer than {_WITHIN_S:g} s; see {log}") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if status:
        raise Misconfigured(tail(log, offset) or f"the migrations ended with {status}; see {log}")
