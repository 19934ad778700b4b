"""Processes that are there at once: one imports all that is needed, and forks for each. For tests that kill many.

    python -m tests.support.forks          reads `rebuild` or `projector` from standard input, forks one that does it, and
                                           prints its number; `<number> <exit code>` when a rebuild has ended by itself
Where the servers are is in the environment, as for every role.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from sandreel_core.runtime import connect
from sandreel_core.settings import Bus, Postgres, load
from sandreel_migrations.upgrade import upgrade
from sandreel_projections.follower import Pace
from sandreel_projections.order import Order
from sandreel_projections.projector import Projector
from sandreel_projections.rebuild import Rebuild
from sandreel_projections.registry import reel_source
from sandreel_projections.report import JsonLines

PACE = Pace(max_events=20, look_s=0.1)


class _Quiet(JsonLines):
    def _print(self, fields: object) -> None:
        """Standard output is the parent's."""


async def rebuild() -> int:
    dsn = load(Postgres).dsn or ""
    bus = await connect(load(Bus), "rebuild")

    async def make(schema: str) -> str:
        return await upgrade(dsn, schema=schema, wait_s=20)

    try:
        outcome = await Rebuild(bus, dsn, [reel_source(0)], make, _Quiet(), Order(), pace=PACE).run()
    finally:
        await bus.close()
    return 0 if outcome.swapped else 1


async def project() -> int:
    bus = await connect(load(Bus), "projector")
    await Projector(bus, load(Postgres).dsn or "", reel_source(0), pace=PACE).run()
    return 0


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    mains: dict[str, Callable[[], Awaitable[int]]] = {"rebuild": rebuild, "projector": project}
    os.write(1, b"ready\n")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = asyncio.run(mains[line.strip()]())  # type: ignore[arg-type]
            finally:
                os.write(1, f"{os.getpid()} {code}\n".encode())
                os._exit(code)
        os.write(1, f"{pid}\n".encode())


if __name__ == "__main__":
    main()
