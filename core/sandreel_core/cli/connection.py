"""The options that every command shares, and the client that they lead to."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sandreel_core.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from sandreel_core.client import Client, ClientSettings
    from sandreel_core.settings import Section

T = TypeVar("T", bound="Section")
DATA = "~/.local/share/sandreel"
CLIENT_FILE, ROLES_FILE = "client.toml", "roles.toml"  # written by `sandreel up`
_ORG = "SANDREEL_ORG"
# How long a command waits for NATS: it may be starting again. Where nothing was started, one look is enough.
_PATIENCE_S, _DOWN_S = 10.0, 0.5


def options(*, org: bool = True) -> argparse.ArgumentParser:
    """A parent parser with `--json`, `--data` and `--org`."""
    parent = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    group = parent.add_argument_group("common options")
    group.add_argument("--json", action="store_true", help="print one JSON object a line")
    group.add_argument("--data", type=Path, metavar="DIR", help=f"where `sandreel up` keeps its data ({DATA})")
    if org:
        group.add_argument("--org", metavar="ORG", help=f"whose sessions (${_ORG}, else the settings', else default)")
    return parent


def settings(args: argparse.Namespace, *, operator: bool = False) -> ClientSettings:
    """From the file that SANDREEL_CONFIG names, else the one that `sandreel up` wrote, and from `SANDREEL_*`.

    operator  in the roles' name: a client may not take anything out of a stream
    Raises Misconfigured when none of them says where an installation is, or the data directory cannot be read.
    """
    from sandreel_core.client import ClientSettings

    return section(args, ClientSettings, operator=operator)


def section(args: argparse.Namespace, kind: type[T], *, operator: bool = False) -> T:
    """Any section, from where `settings` takes the client's. Raises as it does."""
    from sandreel_core.embedded.place import check_readable
    from sandreel_core.settings import CONFIG, load

    environ = {name: value for name, value in os.environ.items() if name != _ORG}
    if args.data is None and environ.get(CONFIG, "").strip():
        return load(kind, environ=environ)
    written = data_of(args) / (ROLES_FILE if operator else CLIENT_FILE)
    if _is_there(written):
        return load(kind, environ=environ, path=written)
    if args.data is None and any(name.startswith("SANDREEL_BUS_") for name in environ):
        return load(kind, environ=environ)
    check_readable(written.parent)
    raise Misconfigured(
        f"no installation at {written.parent}: start one with `sandreel up`, or say where it is with --data or SANDREEL_BUS_NATS_URLS"
    )


@asynccontextmanager
async def connect(args: argparse.Namespace, *, operator: bool = False) -> AsyncIterator[Client]:
    """The client of the parsed options; `args.org` is filled in. `operator`: see `settings`."""
    from sandreel_core.client import Client
    from sandreel_core.embedded.place import holder

    found = settings(args, operator=operator)
    args.org = getattr(args, "org", None) or os.environ.get(_ORG, "").strip() or found.org
    down = found.bus.nats_urls == _written_urls(args) and holder(data_of(args)) is None
    patience_s = _DOWN_S if down else _PATIENCE_S
    try:
        async with Client.connect(found, actor=found.actor or f"cli:{login()}", connect_timeout_s=patience_s) as client:
            down = False
            yield client
    except Unavailable as error:
        if down:
            raise Misconfigured(f"nothing runs on {data_of(args)}: start it with `sandreel up`") from error
        raise


def dsn_of(args: argparse.Namespace) -> str | None:
    """Where the views are, from where `settings` takes the bus; None where there are none."""
    from sandreel_core.settings import CONFIG, Postgres, load

    environ = {name: value for name, value in os.environ.items() if name != _ORG}
    written = data_of(args) / CLIENT_FILE
    if _is_there(written) and (args.data is not None or not environ.get(CONFIG, "").strip()):
        return load(Postgres, environ=environ, path=written).dsn
    return load(Postgres, environ=environ).dsn


def data_of(args: argparse.Namespace) -> Path:
    """The directory that `--data` names, else that of the stack whose settings SANDREEL_CONFIG names, else the usual one."""
    return Path(args.data or configured() or DATA).expanduser().absolute()


def configured() -> Path | None:
    """Where the stack keeps its data that wrote the file which SANDREEL_CONFIG names; None where that is another file."""
    from sandreel_core.embedded.place import Place
    from sandreel_core.settings import CONFIG

    path = Path(os.environ.get(CONFIG, "").strip()).expanduser().absolute()
    written = path.name in (CLIENT_FILE, ROLES_FILE) and _is_there(Place(path.parent).keys_file)
    return path.parent if written else None


def _written_urls(args: argparse.Namespace) -> tuple[str, ...] | None:
    """Where the stack that `sandreel up` wrote down listens; None without one."""
    from sandreel_core.client import ClientSettings
    from sandreel_core.settings import load

    written = data_of(args) / CLIENT_FILE
    return load(ClientSettings, environ={}, path=written).bus.nats_urls if _is_there(written) else None


def _is_there(path: Path) -> bool:
    """Also False where we may not look."""
    try:
        return path.is_file()
    except OSError:
        return False


def login() -> str:
    """Whoever is at the terminal, for the record; an id where there is no name."""
    return os.environ.get("USER", "").strip()[:200] or f"uid-{os.getuid()}"


def options_of(args: argparse.Namespace) -> str:
    """Those that lead another command to the same installation and org, with a blank before each: for sentences that say
    what to type next. After `connect`, which fills in the org."""
    words = ["--org", args.org] if args.org != "default" else []
    words += ["--data", str(args.data)] if args.data is not None else []
    return f" {shlex.join(words)}" if words else ""
