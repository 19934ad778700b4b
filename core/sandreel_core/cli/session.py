"""`sandreel session`: make sessions, look at them, stop them and start them again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import connect, options
from sandreel_core.cli.duration import seconds, size, slug, variable
from sandreel_core.cli.state import add_at, show

if TYPE_CHECKING:
    from sandreel_core.client import Client, ExecInfo, SessionInfo

_WAITED = {
    "stop": "end its boot and keep its workspace",
    "resume": "boot it again, on the workspace that it has",
    "destroy": "end its boot and delete its workspace",
}
# Sessions whose execs are looked at beside each other.
_LOOKS_AT = 8
_AT_ONCE = {"pin": "never stop it for idleness or age", "unpin": "let it be stopped for idleness and age again"}


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("session", help="make, list and end sessions", allow_abbrev=False)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_create(verbs)
    listing = _verb(verbs, "ls", "list the org's sessions", _ls)
    listing.add_argument("-a", "--all", action="store_true", help="destroyed ones too")
    showing = _verb(verbs, "show", "one session, and its execs", _show)
    showing.add_argument("session", metavar="SESSION")
    add_at(showing)
    for name, text in _WAITED.items():
        verb = _verb(verbs, name, text, _change)
        verb.add_argument("session", metavar="SESSION")
        verb.add_argument("--no-wait", action="store_true", help="return when it is decided, not when it is done")
        verb.set_defaults(verb=name)
    for name, text in _AT_ONCE.items():
        verb = _verb(verbs, name, text, _change)
        verb.add_argument("session", metavar="SESSION")
        verb.set_defaults(verb=name, no_wait=True)
    extending = _verb(verbs, "extend", "let it live for so long from now", _extend)
    extending.add_argument("session", metavar="SESSION")
    extending.add_argument("ttl", type=seconds, metavar="TIME", help="like 90s, 30m, 8h, 2d")


def _verb(verbs: Any, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, parents=[options()], help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
    )
    parser.set_defaults(run=run)
    return parser


def _add_create(verbs: Any) -> None:
    parser = _verb(verbs, "create", "make a session and wait until it is ready; prints its id", _create)
    parser.add_argument("session", metavar="SESSION", nargs="?", help="its id (made up unless given)")
    parser.add_argument("--owner", metavar="TYPE:ID", help="who it counts for (the session itself unless given)")
    parser.add_argument("--profile", choices=("default", "agent"), default="default")
    parser.add_argument("--image", metavar="IMAGE", help="for backends that have images")
    parser.add_argument("-e", "--env", type=variable, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--grant", type=slug, action="append", default=[], metavar="SLUG", help="a credential of the org; repeatable"
    )
    parser.add_argument(
        "--ttl", type=seconds, metavar="TIME", help="stop it after so long (the installation's maximum)"
    )
    parser.add_argument("--idle-timeout", type=seconds, metavar="TIME", help="stop it after so long without work")
    parser.add_argument("--cpus", type=float, metavar="N")
    parser.add_argument("--memory", type=size, metavar="SIZE")
    parser.add_argument("--pids", type=int, metavar="N")
    parser.add_argument("--disk", type=size, metavar="SIZE", help="of the workspace, where the storage keeps limits")
    parser.add_argument("--execs", type=int, metavar="N", help="how many may run at once")
    parser.add_argument("--no-wait", action="store_true", help="return when it is requested, not when it is ready")
    parser.add_argument("--timeout", type=seconds, default=200.0, metavar="TIME", help="how long to wait (200s)")


async def _create(args: argparse.Namespace) -> int:
    from sandreel_core.cli.owner import owner_of
    from sandreel_core.contract.session import Limits

    owner = owner_of(args.owner) if args.owner else None
    async with connect(args) as client:
        info = await client.create_session(
            args.org,
            args.session,
            owner=owner,
            profile=args.profile,
            image=args.image,
            env=dict(args.env),
            grants=args.grant,
            ttl_s=args.ttl,
            idle_timeout_s=args.idle_timeout,
            limits=Limits(
                cpus=args.cpus, memory_bytes=args.memory, pids=args.pids, disk_bytes=args.disk, execs=args.execs
            ),
            wait="requested" if args.no_wait else "ready",
            timeout_s=args.timeout,
        )
    _print(args, info, info.session)
    return 0


async def _change(args: argparse.Namespace) -> int:
    async with connect(args) as client:
        info = await _changed(client, args)
    _print(args, info, f"{info.session} {info.phase}{' (pinned)' if info.state.pinned else ''}")
    return 0


async def _changed(client: Client, args: argparse.Namespace) -> SessionInfo:
    org, session, wait = args.org, args.session, not args.no_wait
    match args.verb:
        case "stop":
            return await client.stop(org, session, wait="stopped" if wait else "stopping")
        case "resume":
            return await client.resume(org, session, wait="ready" if wait else "resuming")
        case "destroy":
            return await client.destroy(org, session, wait="destroyed" if wait else "destroying")
        case "pin":
            return await client.pin(org, session)
    return await client.unpin(org, session)


async def _extend(args: argparse.Namespace) -> int:
    async with connect(args) as client:
        info = await client.extend(args.org, args.session, args.ttl)
    _print(args, info, f"{info.session} until {_time(info.state.expires_at)}")
    return 0


async def _ls(args: argparse.Namespace) -> int:
    async with connect(args) as client:
        shown = [info for info in await client.sessions(args.org) if args.all or info.state.exists]
        words = await _words(client, shown)
    if args.json:
        for info, read in zip(shown, words, strict=True):
            _json(_fields(info, read))
        return 0
    rows = [("SESSION", "STATE", "PHASE", "PROFILE", "OWNER", "BACKEND", "FENCE", "CREATED", "EXPIRES")]
    for info, read in zip(shown, words, strict=True):
        state = info.state
        owner = f"{state.owner.type}:{state.owner.id}" if state.owner else ""
        expires = "pinned" if state.pinned else _time(state.expires_at)
        row = (info.session, read or "", state.phase, state.profile, owner, state.backend, state.fence)
        rows.append((*row, _time(state.created_at), expires))
    _table(rows)
    return 0


async def _show(args: argparse.Namespace) -> int:
    if args.at is not None:
        return await show(args)
    async with connect(args) as client:
        info = await client.session(args.org, args.session)
        execs = await client.execs(args.org, args.session)
    fields = _fields(info, _word(info, execs))
    if args.json:
        _json(fields | {"execs": [_exec_fields(one) for one in execs]})
        return 0
    from sandreel_core.cli.text import field_line

    for name, value in fields.items():
        if value not in (None, "", [], {}):
            print(field_line(name, value))
    if execs:
        print()
        _table([("EXEC", "STATE", "EXIT"), *((one.exec_id, one.phase, _exit(one)) for one in execs)])
    return 0


def _print(args: argparse.Namespace, info: SessionInfo, text: str) -> None:
    if args.json:
        _json(_fields(info))
    else:
        print(text)


def _json(value: dict[str, Any]) -> None:
    from sandreel_core.json_line import json_text

    print(json_text(value))


def _fields(info: SessionInfo, read: str | None = None) -> dict[str, Any]:
    """`read`: the word, as `state`."""
    import msgspec

    names = {"org": info.org, "session": info.session, "phase": info.phase}
    found = {**names, **msgspec.to_builtins(info.state), "cursor": str(info.cursor)}
    return found | ({"state": read} if read is not None else {})


async def _words(client: Client, infos: Sequence[SessionInfo]) -> list[str | None]:
    """What people read of each. The execs of those alone are looked at of which it depends on them."""
    import asyncio

    limit = asyncio.Semaphore(_LOOKS_AT)

    async def look(info: SessionInfo) -> str | None:
        if info.phase != "ready":
            return _word(info, ())
        async with limit:
            return _word(info, await client.execs(info.org, info.session))

    async with asyncio.TaskGroup() as group:
        looks = [group.create_task(look(info)) for info in infos]
    return [task.result() for task in looks]


def _word(info: SessionInfo, execs: Sequence[ExecInfo]) -> str | None:
    """As people read it. Of an agent's turn only its exec is seen here; `reel.session_states` sees all of it."""
    from sandreel_core.session_word import word

    working = any(one.ended is None for one in execs)
    return word(info.phase, pinned=info.state.pinned, working=working)


def _exec_fields(info: ExecInfo) -> dict[str, Any]:
    import msgspec

    fields: dict[str, Any] = {"exec": info.exec_id, "phase": info.phase, "cursor": str(info.cursor)}
    return fields | ({"ended": msgspec.to_builtins(info.ended)} if info.ended else {})


def _exit(info: ExecInfo) -> str:
    from sandreel_core.contract.exec import Exited

    if not isinstance(info.ended, Exited):
        return ""
    return str(info.ended.exit_code) if info.ended.exit_code is not None else info.ended.signal or info.ended.reason


def _time(at: datetime | None) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
