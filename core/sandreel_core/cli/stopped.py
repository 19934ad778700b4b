"""An installation whose roles are stopped, with its servers up for one command alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandreel_core.backup import postgres as views
from sandreel_core.backup.streams import ours
from sandreel_core.errors import Misconfigured
from sandreel_core.settings import CONFIG

if TYPE_CHECKING:
    from sandreel_core.bus.jetstream import JetStreamBus
    from sandreel_core.embedded.place import Place
    from sandreel_core.embedded.wiring import Wiring

_CONNECT_S = 20.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """`dsn` is None where the installation has no Postgres; `restoring`: the file that says that streams are missing,
    where `sandreel up` keeps them itself."""

    bus: JetStreamBus
    dsn: str | None
    programs: Path | None
    data: Path
    restoring: Path | None


@asynccontextmanager
async def stopped(data: Path) -> AsyncGenerator[Stopped, None]:
    """The embedded servers are started, NATS at a port that nobody knows: what still runs in sessions comes back only
    with the roles. Servers of the operator's own are connected to, and nobody else may read there.

    Raises Misconfigured while roles run, Unavailable, Denied.
    """
    from sandreel_core.bus.credentials import Creds, identity_of
    from sandreel_core.bus.jetstream import JetStreamBus
    from sandreel_core.embedded.authority import Authority, read_creds
    from sandreel_core.embedded.nats import NatsServer
    from sandreel_core.embedded.place import open_place
    from sandreel_core.embedded.postgres import PostgresServer
    from sandreel_core.embedded.stack import ROLES
    from sandreel_core.embedded.wiring import Wiring
    from sandreel_core.permissions import ADMINISTRATOR

    wiring = Wiring.read(_environ(data))
    async with AsyncExitStack() as exit:
        place = exit.enter_context(open_place(data))
        _check_gone(place, tuple(ROLES))
        bus = wiring.bus
        urls, identity = list(bus.nats_urls), identity_of(bus)
        if wiring.embeds_nats:
            authority = Authority(place.identity)
            # With a sync after each message of a copy, the server may work on one chunk for longer than the 5 s after
            # which it takes the restore for stalled. So all of it is synced once, behind the server's end.
            exit.push_async_callback(asyncio.to_thread, os.sync)
            embedded = NatsServer(place.nats, authority=authority, sync_interval="1s")
            server = await exit.enter_async_context(embedded)
            urls, identity = [server.url], Creds.parse(read_creds(authority.creds_file(ADMINISTRATOR.name)))
        connected = await JetStreamBus.connect(
            urls, name="sandreel backup", identity=identity, connect_timeout_s=_CONNECT_S
        )
        exit.push_async_callback(connected.close)
        dsn = wiring.postgres.dsn
        if wiring.embeds_postgres:
            dsn = (await exit.enter_async_context(PostgresServer(place.postgres))).dsn()
        found = Stopped(connected, dsn, programs(), data, place.restoring if wiring.embeds_nats else None)
        await _check_silent(found, wiring)
        yield found


def programs() -> Path | None:
    """Where the wheel has Postgres' own programs, None without it."""
    from sandreel_core.embedded.postgres import find_programs

    try:
        return find_programs()
    except Misconfigured:
        return None


def _environ(data: Path) -> dict[str, str]:
    """Without a settings file that `sandreel up` has written: it says where the servers were, not whose they are."""
    environ = dict(os.environ)
    named = environ.get(CONFIG, "").strip()
    if named and Path(named).absolute().parent == data:
        del environ[CONFIG]
    return environ


def _check_gone(place: Place, roles: tuple[str, ...]) -> None:
    """Roles outlive an `up` that was killed."""
    from sandreel_core.embedded import pidfile

    left = {name: pid for name in roles if (pid := pidfile.alive(place.pid(name))) is not None}
    if left:
        said = ", ".join(f"{name} (pid {pid})" for name, pid in left.items())
        raise Misconfigured(f"roles still run on {place.data}, their `sandreel up` was killed: end {said}")


async def _check_silent(found: Stopped, wiring: Wiring) -> None:
    if not wiring.embeds_nats:
        for stream in ours(await found.bus.stream_names()):
            reading = await found.bus.readers(stream)
            if reading:
                raise Misconfigured(f"somebody reads {stream} (consumer {reading[0]}): stop every role first")
    if not wiring.embeds_postgres and found.dsn and await views.projectors(found.dsn, found.programs):
        raise Misconfigured("a projector is connected to Postgres: stop every role first")
