"""Where the roles serve their health and metrics, and what they say there."""

from __future__ import annotations

import argparse
import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandreel_core.cli.connection import data_of

if TYPE_CHECKING:
    from sandreel_core.health_reading import Reading

# Roles that are asked at the same time.
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Place:
    """A role that should be there. `pid` is that of the stack's own, which must be who answers; 0: not known."""

    name: str
    listen: str
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """What a role said, or why it said nothing."""

    place: Place
    reading: Reading | None
    problem: str = ""

    @property
    def name(self) -> str:
        """As the stack calls it, else as it calls itself."""
        return self.place.name if self.place.pid or self.reading is None else self.reading.report.role


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="a role's [health] listen, where it does not run below `sandreel up`; may be repeated",
    )


def places(args: argparse.Namespace) -> list[Place]:
    """The addresses of `--at`; without any, those of the stack's roles that run, and what `[health] listen` of the
    settings names. Raises Misconfigured."""
    from sandreel_core.embedded import pidfile
    from sandreel_core.embedded.place import Place as Data
    from sandreel_core.embedded.place import check_readable
    from sandreel_core.embedded.stack import ROLES
    from sandreel_core.embedded.wiring import LOOPBACK
    from sandreel_core.health_endpoint import address
    from sandreel_core.settings import HealthListen, load

    if args.at:
        for listen in args.at:
            address(listen)
        return [Place(listen, listen) for listen in args.at]
    found = []
    check_readable(data_of(args))
    data = Data(data_of(args))
    ports = data.keys().health_ports if data.keys_file.exists() else {}
    for name in ROLES:
        pid = pidfile.alive(data.pid(name))
        if pid is not None and name in ports:
            found.append(Place(name, f"{LOOPBACK}:{ports[name]}", pid))
    environ = {name: value for name, value in os.environ.items() if name != "SANDREEL_ORG"}
    listen = load(HealthListen, environ=environ).listen if args.data is None else None
    return [*found, Place(listen, listen)] if listen else found


async def ask(wanted: list[Place]) -> list[Told]:
    """All of them, in this order. Never raises for a role that does not answer."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(place: Place) -> Told:
        async with room:
            return await _ask(place)

    return await asyncio.gather(*(one(place) for place in wanted))


async def _ask(place: Place) -> Told:
    from sandreel_core.errors import SandreelError
    from sandreel_core.health_reading import read

    try:
        reading = await read(place.listen)
    except SandreelError as error:
        return Told(place, None, str(error))
    if place.pid and reading.report.pid != place.pid:
        # Any program of this machine may take a port that a dead role has left.
        return Told(place, None, f"pid {reading.report.pid} answers at {place.listen}, which is not the role's")
    return Told(place, reading)
