"""`sandreel completion`, and what the shell is told when somebody presses tab.

argcomplete reads the parser; what only the installation knows (orgs, sessions, execs, files of a session) comes from
`completers`, and is found by what an argument is called in the help.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from sandreel_core.errors import Misconfigured

SHELLS = ("bash", "zsh", "fish")
# The environment variable by which the shell's script asks (argcomplete's protocol).
ASKED = "_ARGCOMPLETE"
_DESCRIPTION = """\
Print the script that makes a shell complete commands, options, orgs, sessions, execs and the files of a session:

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


def _name(parser: argparse.ArgumentParser, local: Callable[..., Any]) -> None:
    """By what they are called in the help: whatever stands for a session, an exec, an org or a file is completed as one,
    and nothing else is guessed at."""
    from sandreel_core.cli import completers

    named: dict[str, Callable[..., Any]] = {
        "SESSION": completers.Live(completers.sessions),
        "EXEC": completers.Live(completers.execs),
        "TURN": completers.Live(completers.turns),
        "ORG": completers.Live(completers.orgs),
        "AGENT": completers.agents,
        "PATH": completers.Live(completers.paths),  # in a session's workspace
        "FILE": local,
        "DIR": local,
    }
    either = completers.Either(local, completers.Live(completers.places))
    named |= {"SRC": either, "DST": either}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _name(each, local)
        elif "--id" in action.option_strings:  # of a new exec or turn
            continue
        elif "--cwd" in action.option_strings:
            action.completer = completers.Live(completers.directories)  # type: ignore[attr-defined]
        elif isinstance(action.metavar, str) and action.metavar in named:
            action.completer = named[action.metavar]  # type: ignore[attr-defined]
