"""`--agent`: an exec's output as a coding agent's, by adapters that core knows by name alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from sandreel_core.errors import Malformed

if TYPE_CHECKING:
    from sandreel_core.agent import AgentReader

# Entry points of this group are functions () -> Mapping[str, () -> AgentReader]: a fresh reader by the agent's name.
GROUP = "sandreel.agents"


def agent_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--agent`; what it names is looked up by `reader_of` when the command runs, so that help stays quick."""
    parser.add_argument(
        "--agent", metavar="AGENT", help="show its stdout as that coding agent's text, tools and usage: claude-code, …"
    )


def reader_of(args: argparse.Namespace) -> AgentReader | None:
    """For what `--agent` says; None without it. Raises Malformed for an agent that there is not."""
    if args.agent is None:
        return None
    known = agents()
    if args.agent not in known:
        raise Malformed(f"--agent: there is no adapter for {args.agent[:80]!r}; there are {', '.join(sorted(known))}")
    return known[args.agent]()


def agents() -> Mapping[str, Callable[[], AgentReader]]:
    """Of all packages that are installed whole."""
    found: dict[str, Callable[[], AgentReader]] = {}
    for point in entry_points(group=GROUP):
        try:
            readers = point.load()
        except ImportError:
            continue  # what it needs is not installed
        found |= readers()
    return found
