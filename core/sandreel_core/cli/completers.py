"""What can stand where somebody presses tab, as far as only the installation knows: each function here gives names and
what they are.

It asks for a short while and is silent about everything that goes wrong, because the line that is being typed is not its
business.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from sandreel_core.errors import SandreelError

if TYPE_CHECKING:
    from sandreel_core.bus.port import Bus

# How long a person may wait for the installation, beside the start of the interpreter. What answers takes 0.05 s.
ASK_S = 1.0
MAX_NAMES = 1000
_MAX_LOOKED_AT = 64
_DESTROYED = b'"type":"session.destroyed"'


class Asked(NamedTuple):
    """What was typed: `args` of the line so far, `prefix` of the word."""

    bus: Bus
    partitions: int
    args: argparse.Namespace
    prefix: str


Names: TypeAlias = Callable[[Asked], Awaitable[dict[str, str]]]


class Either:
    """Files of this machine, and places in sessions; only files for what can be nothing else."""

    def __init__(self, local: Callable[..., Iterable[str]], remote: Live) -> None:
        self._local = local
        self._remote = remote

    def __call__(self, *, prefix: str, **more: Any) -> dict[str, str]:
        colon, slash = prefix.find(":"), prefix.find("/")
        if prefix.startswith((".", "/", "~")) or (slash >= 0 and (colon < 0 or slash < colon)):
            return dict.fromkeys(self._local(prefix=prefix, **more), "")
        files = dict.fromkeys(self._local(prefix=prefix, **more), "") if colon < 0 else {}
        return files | self._remote(prefix=prefix, **more)


class Live:
    """A completer that asks the installation, in a thread that is left behind when it takes too long."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def __call__(self, *, prefix: str, parsed_args: argparse.Namespace, **_: Any) -> dict[str, str]:
        found: dict[str, str] = {}

        def ask() -> None:
            try:
                found.update(asyncio.run(self._ask(parsed_args, prefix)))
            except (SandreelError, OSError, TimeoutError, ValueError):
                return

        # Before the clock begins: on a busy machine importing takes longer than all the rest. So not the client's either.
        import sandreel_core.bus.jetstream
        import sandreel_core.contract.files  # noqa: F401

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(ASK_S)
        return dict(sorted(found.items())[:MAX_NAMES]) if not thread.is_alive() else {}

    async def _ask(self, args: argparse.Namespace, prefix: str) -> dict[str, str]:
        from sandreel_core.bus.credentials import identity_of
        from sandreel_core.bus.jetstream import JetStreamBus
        from sandreel_core.cli.connection import section
        from sandreel_core.settings import Bus

        # A line that is half typed may lack what every command's options have.
        asked = argparse.Namespace(**{"data": None, "org": None} | vars(args))
        found = section(asked, Bus)
        asked.org = asked.org or _usual_org(asked)
        bus = await JetStreamBus.connect(
            found.nats_urls, name="completion", identity=identity_of(found), connect_timeout_s=ASK_S
        )
        try:
            return await self._names(Asked(bus, found.partitions, asked, prefix))
        finally:
            await bus.close()


def _usual_org(args: argparse.Namespace) -> str:
    """As `connection.connect` finds it."""
    import os
    import tomllib

    from sandreel_core.cli.connection import CLIENT_FILE, data_of
    from sandreel_core.settings import CONFIG

    named = os.environ.get("SANDREEL_ORG", "").strip() or os.environ.get("SANDREEL_CLIENT_ORG", "").strip()
    if named:
        return named
    given = os.environ.get(CONFIG, "").strip() if args.data is None else ""
    path = Path(given) if given else data_of(args) / CLIENT_FILE
    tables = tomllib.loads(path.read_text()) if path.is_file() else {}
    return str(tables.get("client", {}).get("org", "default"))


def agents(**_: Any) -> dict[str, str]:
    """Those whose output can be read."""
    from sandreel_core.cli.agents import agents as known

    return dict.fromkeys(known(), "coding agent")


async def _subjects(asked: Asked, rest: str) -> list[str]:
    """Of all partitions, those that end like this."""
    from sandreel_core.contract.subjects import reel

    found = [
        await asked.bus.subjects(reel(partition), f"evt.{partition}.{rest}") for partition in range(asked.partitions)
    ]
    return [subject for each in found for subject in each]


async def orgs(asked: Asked) -> dict[str, str]:
    """Those that have or had sessions."""
    return {subject.split(".")[2]: "organisation" for subject in await _subjects(asked, "*.*.session")}


async def sessions(asked: Asked) -> dict[str, str]:
    """Those that are not destroyed; of very many also the others, for which there is no time."""
    from sandreel_core.contract.subjects import stream_of

    subjects = await _subjects(asked, f"{asked.args.org}.*.session")
    if len(subjects) <= _MAX_LOOKED_AT:
        last = await asyncio.gather(*(asked.bus.last(stream_of(subject), subject) for subject in subjects))
        subjects = [each.subject for each in last if each is not None and _DESTROYED not in each.body]
    return {subject.split(".")[3]: "session" for subject in subjects}


async def execs(asked: Asked) -> dict[str, str]:
    """Of the one session that is named."""
    session = _session_of(asked.args)
    subjects = await _subjects(asked, f"{asked.args.org}.{session}.exec.*") if session else []
    return {subject.rpartition(".")[2]: "exec" for subject in subjects}


async def turns(asked: Asked) -> dict[str, str]:
    """Of the one session that is named, else of all of the org's."""
    subjects = await _subjects(asked, f"{asked.args.org}.{_session_of(asked.args) or '*'}.turn.*")
    return {subject.rpartition(".")[2]: f"turn of {subject.split('.')[3]}" for subject in subjects}


async def paths(asked: Asked) -> dict[str, str]:
    """Of the workspace of the one session that is named: what is in the directory that has been typed so far."""
    session = _session_of(asked.args)
    return await _entries(asked, session, asked.prefix) if session else {}


async def directories(asked: Asked) -> dict[str, str]:
    return {path: what for path, what in (await paths(asked)).items() if path.endswith("/")}


async def places(asked: Asked) -> dict[str, str]:
    """`SESSION:PATH`: sessions up to the colon, then their files."""
    session, colon, path = asked.prefix.partition(":")
    if not colon:
        return {f"{name}:": what for name, what in (await sessions(asked)).items()}
    return {f"{session}:{each}": what for each, what in (await _entries(asked, session, path)).items()}


def _session_of(args: argparse.Namespace) -> str | None:
    named = getattr(args, "session", None)
    if isinstance(named, list):
        return named[0] if len(named) == 1 else None
    return named


async def _entries(asked: Asked, session: str, typed: str) -> dict[str, str]:
    """The first page of it. Names that begin with a dot are for those who type it; names that no line can hold are left
    out."""
    import msgspec

    from sandreel_core.cli.text import amount
    from sandreel_core.contract.files import FileList, ListFiles
    from sandreel_core.contract.subjects import SessionSubjects

    above, slash, begun = typed.rpartition("/")
    subject = SessionSubjects(asked.args.org, session, asked.partitions).request("runnerd", "list_files")
    body = msgspec.json.encode(ListFiles(path=(above or slash) or "."))
    answer = await asked.bus.request(subject, body, timeout_s=ASK_S)
    try:
        page = msgspec.json.decode(answer, type=FileList)
    except msgspec.DecodeError:
        return {}
    found: dict[str, str] = {}
    for entry in page.entries:
        if entry.name.isprintable() and (begun.startswith(".") or not entry.name.startswith(".")):
            is_dir = entry.kind == "dir"
            path = above + slash + entry.name + ("/" if is_dir else "")
            found[path] = "directory" if is_dir else amount(entry.size) if entry.kind == "file" else "link"
    return found
