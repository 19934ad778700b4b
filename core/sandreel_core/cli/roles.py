"""Where the roles serve their health and metrics, and what they say there."""

from __future__ import annotations

import argparse
import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandreel_core.cli.connection import data_of

if TYPE_CHECKING:
    from sandreel_core.health_reading import Reading

# Roles that are asked at the same time.
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Place:
    """A role that should be there. `pid` is that of the stack's own, which must be who answers; 0: not known (a
    container's is another one to itself). `own`: it is the stack's. `down`: why it cannot answer, as the stack says.
    `off`: it is not meant to be there."""

    name: str
    listen: str
    pid: int = 0
    down: str = ""
    off: bool = False
    own: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What a role said, or why it said nothing."""

    place: Place
    reading: Reading | None
    problem: str = ""

    @property
    def name(self) -> str:
        """As the stack calls it, else as it calls itself."""
        return self.place.name if self.place.own or self.reading is None else self.reading.report.role


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="a role's [health] listen, where it does not run below `sandreel up`; may be repeated",
    )


def places(args: argparse.Namespace) -> list[Place]:
    """The addresses of `--at`; without any, the roles of the stack, also those that are down, and what `[health] listen`
    of the settings names. Raises Misconfigured."""
    from sandreel_core.embedded.place import check_readable
    from sandreel_core.health_endpoint import address
    from sandreel_core.settings import HealthListen, load

    if args.at:
        for listen in args.at:
            address(listen)
        return [Place(listen, listen) for listen in args.at]
    check_readable(data_of(args))
    found = _of_stack(data_of(args))
    environ = {name: value for name, value in os.environ.items() if name != "SANDREEL_ORG"}
    listen = load(HealthListen, environ=environ).listen if args.data is None else None
    return [*found, Place(listen, listen)] if listen else found


def _of_stack(directory: Path) -> list[Place]:
    """A role that a killed stack has left running is among them."""
    from sandreel_core.embedded import pidfile, roster
    from sandreel_core.embedded.place import Place as Data
    from sandreel_core.embedded.place import holder
    from sandreel_core.embedded.stack import EGRESS, GATEWAY, ROLES
    from sandreel_core.embedded.wiring import LOOPBACK

    data = Data(directory)
    ports = data.keys().health_ports if data.keys_file.exists() else {}
    heard = roster.read(data.parts) if holder(directory) is not None else {}
    found = []
    for name in (*ROLES, EGRESS, GATEWAY):
        listen = f"{LOOPBACK}:{ports[name]}" if name in ports else ""
        pid = pidfile.alive(data.pid(name)) if name != EGRESS else None
        entry = heard.get(name)
        if listen and (pid is not None or (name not in ROLES and entry is not None and entry.state == "ready")):
            found.append(Place(name, listen, pid or 0, own=True))
        elif entry is not None:
            off = name not in ROLES and entry.state == "stopped"  # there is no image of it
            found.append(Place(name, listen, down=roster.why_down(entry), off=off, own=True))
    return found


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

    if place.down:
        return Told(place, None, place.down)
    try:
        reading = await read(place.listen)
    except SandreelError as error:
        return Told(place, None, str(error))
    if place.pid and reading.report.pid != place.pid:
        # Any program of this machine may take a port that a dead role has left.
        return Told(place, None, f"pid {reading.report.pid} answers at {place.listen}, which is not the role's")
    if place.own and not place.pid and reading.report.role != place.name:
        return Told(place, None, f"{reading.report.role} answers at {place.listen}, which is not {place.name}")
    return Told(place, reading)
