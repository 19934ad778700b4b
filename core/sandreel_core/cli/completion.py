"""`sandreel completion`, and what the shell is told when somebody presses tab.

argcomplete reads the parser; this file adds what only the installation knows: orgs, sessions and execs. It asks for a
short while and is silent about everything that goes wrong, because the line that is being typed is not its business.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from sandreel_core.errors import Misconfigured, SandreelError

if TYPE_CHECKING:
    from sandreel_core.bus.port import Bus

# With the start of the interpreter this stays within the second that nobody minds.
ASK_S = 0.7
MAX_NAMES = 1000
SHELLS = ("bash", "zsh", "fish")
# The environment variable by which the shell's script asks (argcomplete's protocol).
ASKED = "_ARGCOMPLETE"

_Names: TypeAlias = Callable[["Bus", int, argparse.Namespace], Awaitable[list[str]]]
_MAX_LOOKED_AT = 64
_DESTROYED = b'"type":"session.destroyed"'
_DESCRIPTION = """\
Print the script that makes a shell complete commands, options, orgs, sessions and execs:

  bash   eval "$(sandreel completion bash)"        in ~/.bashrc
  zsh    eval "$(sandreel completion zsh)"         in ~/.zshrc, after compinit
  fish   sandreel completion fish | source         in ~/.config/fish/config.fish
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "completion",
        help="the script that makes a shell complete sandreel's commands",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Raises Misconfigured when argcomplete is not installed."""
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError as error:
        raise Misconfigured("completion needs argcomplete: pip install 'sandreel[cli]'") from error
    # No fallback to file names where we know nothing: a file is no session.
    print(shellcode(["sandreel"], shell=args.shell, use_defaults=False))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end the process; return where argcomplete is not installed."""
    try:
        from argcomplete.completers import ChoicesCompleter, FilesCompleter
        from argcomplete.finders import CompletionFinder
    except ImportError:
        return
    _name(parser, FilesCompleter())
    CompletionFinder()(parser, always_complete_options=False, default_completer=ChoicesCompleter({}))


def _name(parser: argparse.ArgumentParser, files: Callable[..., Any]) -> None:
    """By what they are called in the help: whatever stands for a session, an exec, an org or a file is completed as one,
    and nothing else is guessed at."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _name(each, files)
        elif action.metavar == "SESSION":
            action.completer = _Live(_sessions)  # type: ignore[attr-defined]
        elif action.metavar == "EXEC" and "--id" not in action.option_strings:  # that one is a new exec's
            action.completer = _Live(_execs)  # type: ignore[attr-defined]
        elif action.metavar == "ORG":
            action.completer = _Live(_orgs)  # type: ignore[attr-defined]
        elif action.metavar in ("FILE", "DIR"):
            action.completer = files  # type: ignore[attr-defined]


class _Live:
    """A completer that asks the installation, in a thread that is left behind when it takes too long."""

    def __init__(self, names: _Names) -> None:
        self._names = names

    def __call__(self, *, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        found: list[str] = []

        def ask() -> None:
            try:
                found.extend(asyncio.run(self._ask(parsed_args)))
            except (SandreelError, OSError, TimeoutError, ValueError):
                return

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(ASK_S)
        return sorted(set(found))[:MAX_NAMES] if not thread.is_alive() else []

    async def _ask(self, args: argparse.Namespace) -> list[str]:
        # Not the client: it takes longer to import than all the rest together.
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
            return await self._names(bus, found.partitions, asked)
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


async def _subjects(bus: Bus, partitions: int, rest: str) -> list[str]:
    """Of all partitions, those that end like this."""
    from sandreel_core.contract.subjects import reel

    found = [await bus.subjects(reel(partition), f"evt.{partition}.{rest}") for partition in range(partitions)]
    return [subject for each in found for subject in each]


async def _sessions(bus: Bus, partitions: int, args: argparse.Namespace) -> list[str]:
    """Those that are not destroyed; of very many also the others, for which there is no time."""
    from sandreel_core.contract.subjects import stream_of

    subjects = await _subjects(bus, partitions, f"{args.org}.*.session")
    if len(subjects) > _MAX_LOOKED_AT:
        return [subject.split(".")[3] for subject in subjects]
    last = await asyncio.gather(*(bus.last(stream_of(subject), subject) for subject in subjects))
    return [each.subject.split(".")[3] for each in last if each is not None and _DESTROYED not in each.body]


async def _execs(bus: Bus, partitions: int, args: argparse.Namespace) -> list[str]:
    named = getattr(args, "session", None)
    if isinstance(named, list):
        named = named[0] if len(named) == 1 else None
    return (
        [each.rpartition(".")[2] for each in await _subjects(bus, partitions, f"{args.org}.{named}.exec.*")]
        if named
        else []
    )


async def _orgs(bus: Bus, partitions: int, args: argparse.Namespace) -> list[str]:
    return [subject.split(".")[2] for subject in await _subjects(bus, partitions, "*.*.session")]
