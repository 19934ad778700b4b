"""`sandreel completion`, and what the shell is told when somebody presses tab.

argcomplete reads the parser; this file adds what only the installation knows: orgs, sessions and execs. It asks for a
short while and is silent about everything that goes wrong, because the line that is being typed is not its business.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from sandreel_core.errors import Misconfigured, SandreelError

if TYPE_CHECKING:
    from sandreel_core.client import Client

# With the start of the interpreter this stays within the second that nobody minds.
ASK_S = 0.7
MAX_NAMES = 1000
SHELLS = ("bash", "zsh", "fish")
# The environment variable by which the shell's script asks (argcomplete's protocol).
ASKED = "_ARGCOMPLETE"

_Names: TypeAlias = Callable[["Client", argparse.Namespace], Awaitable[list[str]]]
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
    print(shellcode(["sandreel"], shell=args.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end the process; return where argcomplete is not installed."""
    try:
        from argcomplete.finders import CompletionFinder
    except ImportError:
        return
    _name(parser)
    CompletionFinder()(parser)


def _name(parser: argparse.ArgumentParser) -> None:
    """By what they are called in the help: whatever stands for a session, an exec or an org is completed as one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _name(each)
        elif action.metavar == "SESSION":
            action.completer = _Live(_sessions)  # type: ignore[attr-defined]
        elif action.metavar == "EXEC" and "--id" not in action.option_strings:  # that one is a new exec's
            action.completer = _Live(_execs)  # type: ignore[attr-defined]
        elif action.metavar == "ORG":
            action.completer = _Live(_orgs)  # type: ignore[attr-defined]


class _Live:
    """A completer that asks the installation, in a thread that is left behind when it takes too long."""

    def __init__(self, names: _Names) -> None:
        self._names = names

    def __call__(self, *, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        found: list[str] = []

        def ask() -> None:
            try:
                found.extend(asyncio.run(self._ask(parsed_args)))
            except (SandreelError, OSError, TimeoutError):
                return

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(ASK_S)
        return sorted(set(found))[:MAX_NAMES] if not thread.is_alive() else []

    async def _ask(self, args: argparse.Namespace) -> list[str]:
        from sandreel_core.cli.connection import connect

        # A line that is half typed may lack what every command's options have.
        asked = argparse.Namespace(**{"data": None, "org": None} | vars(args))
        async with asyncio.timeout(ASK_S), connect(asked) as client:
            return await self._names(client, asked)


async def _sessions(client: Client, args: argparse.Namespace) -> list[str]:
    return [info.session for info in await client.sessions(args.org) if info.state.exists]


async def _execs(client: Client, args: argparse.Namespace) -> list[str]:
    named = getattr(args, "session", None)
    if isinstance(named, list):
        named = named[0] if len(named) == 1 else None
    if not named:
        return []
    subjects = client.subjects(args.org, named)
    found = await client.bus.subjects(subjects.stream, f"evt.{subjects.partition}.{args.org}.{named}.exec.*")
    return [subject.rpartition(".")[2] for subject in found]


async def _orgs(client: Client, args: argparse.Namespace) -> list[str]:
    from sandreel_core.contract.subjects import parse_event_subject, reel

    orgs: set[str] = set()
    for partition in range(client.partitions):
        found = await client.bus.subjects(reel(partition), f"evt.{partition}.*.*.session")
        orgs |= {parse_event_subject(subject).org for subject in found}
    return list(orgs)
