"""`sandreel access`: credentials for services of an organisation, and for those who run NATS themselves."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import data_of, options
from sandreel_core.cli.duration import seconds

if TYPE_CHECKING:
    from sandreel_core.embedded.access import Access, AccessList
    from sandreel_core.embedded.authority import Authority

_CONNECT_S = 5.0
_DESCRIPTION = """\
Give a service of one organisation credentials of its own, for the NATS that `sandreel up` runs, or for one of your own
that has the accounts of `sandreel access export`.

command  it may send commands to the organisation's sessions, type into terminals, and read and write files
follow   it may read the log of the organisation's sessions
What each may publish and hear is in docs/permissions.md. The server itself refuses everything else.
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "access",
        help="credentials for services of an organisation",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    create = verbs.add_parser(
        "create", parents=[options()], help="make credentials, and write them to a .creds file", allow_abbrev=False
    )
    create.add_argument("name", metavar="NAME", nargs="?", help="what to call it (the org's name)")
    create.add_argument("--can", required=True, metavar="RIGHT[,RIGHT]", help="command, follow, or both")
    create.add_argument("--for", dest="lasts_s", type=seconds, metavar="TIME", help="ends by itself after this (never)")
    create.add_argument(
        "--out", type=Path, metavar="FILE", help="where to (NAME.creds), which must not exist; -: standard output"
    )
    create.set_defaults(run=_create)
    listed = verbs.add_parser("ls", parents=[options(org=False)], help="what was given", allow_abbrev=False)
    listed.set_defaults(run=_list)
    removed = verbs.add_parser(
        "rm", parents=[options(org=False)], help="take it back: connections with it end at once", allow_abbrev=False
    )
    removed.add_argument("name", metavar="NAME")
    removed.add_argument("--url", metavar="URL", help="of a NATS of your own, which has to be told")
    removed.set_defaults(run=_remove)
    exported = verbs.add_parser(
        "export",
        parents=[options(org=False)],
        help="write what a NATS of your own, and the roles in front of it, need",
        description="Write the accounts for a NATS server of your own, and settings and credentials of every role, each in a"
        " directory of its own below DIR (files 0600). Makes the keys in --data where there are none, and changes none.",
        allow_abbrev=False,
    )
    exported.add_argument("directory", metavar="DIR", type=Path)
    exported.add_argument(
        "--url", required=True, action="append", metavar="URL", help="where roles find that server; may be repeated"
    )
    exported.add_argument(
        "--accounts", default="accounts", metavar="PATH", help="where that server keeps the accounts (accounts)"
    )
    exported.set_defaults(run=_export)


async def _create(args: argparse.Namespace) -> int:
    """Raises Misconfigured, Malformed, AlreadyExists."""
    from sandreel_core.errors import Misconfigured
    from sandreel_core.ids import check_id, check_org

    org = args.org or os.environ.get("SANDREEL_ORG", "").strip()
    if not org:
        raise Misconfigured("whose service is it? Say so with --org")
    name = check_id("access", args.name or org)
    rights = _rights(args.can)
    access = _known(args)
    out: Path = args.out or Path(f"{name}.creds")
    if str(out) == "-":
        if args.json:
            raise Misconfigured("--out - prints the credentials and nothing else: leave out --json")
        _, text = access.create(name, check_org(org), rights, lasts_s=args.lasts_s)
        print(text, end="")
        return 0
    try:
        # Before anything is given: 0600 from its first moment on, and nothing is overwritten.
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Misconfigured(
            f"{out} cannot be made ({(error.strerror or 'error').lower()}): give another with --out"
        ) from error
    try:
        made, text = access.create(name, check_org(org), rights, lasts_s=args.lasts_s)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
    except BaseException:
        os.unlink(out)  # noqa: PTH108 - one call on a file that we have just made
        raise
    fields = _fields(made) | {"file": str(out)}
    _print(args, fields, f"{name}: {', '.join(rights)} for {org}; credentials in {out}")
    return 0


async def _list(args: argparse.Namespace) -> int:
    from sandreel_core.cli.text import table

    found = [_fields(each) for each in _known(args).all()]
    if args.json:
        for fields in found:
            _print(args, fields, "")
        return 0
    rows = [("NAME", "ORG", "CAN", "CREATED", "EXPIRES")]
    rows += [
        (each["name"], each["org"], ",".join(each["can"]), each["created_at"], each["expires_at"] or "never")
        for each in found
    ]
    print("\n".join(table(rows)))
    return 0


async def _remove(args: argparse.Namespace) -> int:
    """Raises Misconfigured, NotFound, Unavailable: then it counts from the server's next start."""
    from sandreel_core.errors import SandreelError, Unavailable
    from sandreel_core.ids import check_id

    authority = _authority(args)
    urls = _urls(args)
    access, account = _list_of(authority).remove(check_id("access", args.name))
    if urls:
        try:
            await _tell(urls, authority, account)
        except SandreelError as error:
            raise Unavailable(
                f"{access.name} is taken back from the server's next start on: it could not be told ({error})"
            ) from error
    _print(args, _fields(access) | {"removed": True}, f"{access.name} is taken back")
    return 0


async def _export(args: argparse.Namespace) -> int:
    """Raises Misconfigured."""
    from sandreel_core.embedded.authority import Authority
    from sandreel_core.embedded.export import export
    from sandreel_core.embedded.place import Place, check_readable
    from sandreel_core.json_line import json_text

    check_readable(data_of(args))
    authority = Authority(Place(data_of(args)).identity)
    for path in export(authority, args.directory, [_checked(url) for url in args.url], args.accounts):
        print(json_text({"file": str(path)}) if args.json else path)
    return 0


async def _tell(urls: Sequence[str], authority: Authority, account: str) -> None:
    """The server, which ends the connections."""
    import msgspec

    from sandreel_core.bus.credentials import Creds
    from sandreel_core.bus.jetstream import JetStreamBus
    from sandreel_core.embedded.authority import read_creds
    from sandreel_core.errors import Unavailable
    from sandreel_core.permissions import SYSTEM

    identity = Creds.parse(read_creds(authority.creds_file(SYSTEM.name)))
    bus = await JetStreamBus.connect(urls, name="sandreel access", identity=identity, connect_timeout_s=_CONNECT_S)
    try:
        answer = msgspec.json.decode(
            await bus.raw_request("$SYS.REQ.CLAIMS.UPDATE", account.encode(), timeout_s=_CONNECT_S)
        )
    finally:
        await bus.close()
    if "error" in answer:
        raise Unavailable(str(answer["error"].get("description", "the server refused it"))[:200])


def _urls(args: argparse.Namespace) -> Sequence[str]:
    """Of the server that runs: which one the command line names, or a settings file or a variable, or where the stack
    wrote down that its own listens. Empty where none does."""
    from sandreel_core.cli.connection import settings
    from sandreel_core.embedded.place import holder
    from sandreel_core.settings import CONFIG

    if args.url:
        return [_checked(args.url)]
    named = os.environ.get(CONFIG, "").strip() or os.environ.get("SANDREEL_BUS_NATS_URLS", "").strip()
    if holder(data_of(args)) is None and not (named and args.data is None):
        return []
    return settings(args).bus.nats_urls


def _checked(url: str) -> str:
    """Raises Misconfigured, also for one that holds a password: it would stand in every settings file."""
    import msgspec

    from sandreel_core.errors import Misconfigured
    from sandreel_core.settings import NatsUrl

    try:
        return str(msgspec.convert(url, type=NatsUrl))
    except msgspec.ValidationError:
        raise Misconfigured(f"--url {url[:80]!r} is no URL of a NATS server: nats://HOST:PORT") from None


def _rights(text: str) -> list[Any]:
    from sandreel_core.errors import Misconfigured
    from sandreel_core.permissions import RIGHTS

    wanted = [part.strip() for part in text.split(",") if part.strip()]
    for right in wanted:
        if right not in RIGHTS:
            raise Misconfigured(f"--can {right[:40]!r} is no right: there are {' and '.join(RIGHTS)}")
    if not wanted:
        raise Misconfigured(f"--can names no right: there are {' and '.join(RIGHTS)}")
    return [right for right in RIGHTS if right in wanted]


def _authority(args: argparse.Namespace) -> Authority:
    from sandreel_core.embedded.authority import Authority
    from sandreel_core.embedded.place import Place, check_readable

    check_readable(data_of(args))
    authority = Authority(Place(data_of(args)).identity)
    authority.account_key("PLATFORM")  # says what to do where there is none
    return authority


def _list_of(authority: Authority) -> AccessList:
    from sandreel_core.embedded.access import AccessList

    return AccessList(authority)


def _known(args: argparse.Namespace) -> AccessList:
    return _list_of(_authority(args))


def _fields(access: Access) -> dict[str, Any]:
    return {
        "name": access.name,
        "org": access.org,
        "can": list(access.can),
        "public_key": access.public,
        "created_at": _time(access.created_at_s),
        "expires_at": None if access.expires_at_s is None else _time(access.expires_at_s),
    }


def _time(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print(args: argparse.Namespace, fields: dict[str, Any], line: str) -> None:
    from sandreel_core.json_line import json_text

    print(json_text(fields) if args.json else line, flush=True)
