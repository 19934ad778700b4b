"""`sandreel turn`: let a coding agent work on a prompt, watch it, see it again, list what was done."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sandreel_core.cli.connection import connect, login, options, options_of
from sandreel_core.cli.duration import slug
from sandreel_core.cli.hangup import ends_with_terminal
from sandreel_core.cli.pipes import STDOUT
from sandreel_core.cli.turn_list import listed
from sandreel_core.cli.turn_prompt import Upload, budget, prompt_of, uploads_of
from sandreel_core.cli.usual import usual_verb
from sandreel_core.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from sandreel_core.client import Client, TurnHandle
    from sandreel_core.contract.message import Owner

DEFAULT_AGENT = "claude-code"
_DESCRIPTION = """\
Let a coding agent work on a prompt in a session, and watch it: what it says, its tools as they begin and end with what
they change, what it used and what that cost. The session is made, resumed or made again as needed; without --session it is
your own, the same each time (--owner: another's).

  sandreel turn "Fix the failing test in the workspace"
  sandreel turn --session s1 --plan --file task.md      a plan, for `sandreel approve` or `sandreel reject`
  git diff | sandreel turn - --attach notes.pdf         the prompt from stdin, a file beside it
  sandreel turn -c "And the docs?"                      go on from the newest turn
  sandreel turn show TURN                               see it again, or go on watching, from anywhere
  sandreel turn list                                    the newest turns

Ctrl-C once interrupts the turn; a second time leaves it running and says how to come back. If this process dies the turn
goes on. `sandreel steer TURN TEXT` says something to it while it works. A prompt that is called like a verb (list, show) or
begins with a dash stands behind --: sandreel turn -- list

exit codes: 0 it succeeded (or proposed a plan), 1 it failed, 3 it met --max-turns, 4 it ended without saying how it went,
  5 it was interrupted, 130 you left it running, 2 when sandreel could not do what was asked
"""
_SHOW = """\
Show a turn from its beginning, or behind a cursor, until its end, as `sandreel turn` does; with the same exit codes.
Ctrl-C leaves, prints the cursor to come back to, and does nothing to the turn (`sandreel interrupt` does).
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("turn", help="let a coding agent work on a prompt, and watch it", allow_abbrev=False)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    usual_verb(parser, "start")
    _add_start(verbs)
    showing = verbs.add_parser(
        "show",
        parents=[options()],
        help="a turn from its beginning or from a cursor, live",
        description=_SHOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    turn_arguments(showing)
    showing.add_argument("--after", metavar="CURSOR", help="only what follows; printed when you leave, and by --json")
    showing.add_argument("--no-follow", action="store_true", help="end with what is stored now")
    showing.set_defaults(run=_show)
    listing = verbs.add_parser(
        "list",
        aliases=["ls"],
        parents=[options()],
        help="the newest turns of the org, or of a session",
        description="Print the newest turns of the org, or of a session, those last that were heard of last.",
        allow_abbrev=False,
    )
    listing.add_argument("session", metavar="SESSION", nargs="?", help="only of this one")
    listing.add_argument("--limit", type=int, default=20, metavar="N", help="so many (20, up to 10000)")
    listing.set_defaults(run=listed)


def turn_arguments(parser: argparse.ArgumentParser) -> None:
    """TURN, and the session where several have one of that id."""
    parser.add_argument("turn", metavar="TURN")
    parser.add_argument("--session", metavar="SESSION", help="whose turn (looked for in all of the org's unless given)")


def _add_start(verbs: Any) -> None:
    parser = verbs.add_parser(
        "start",
        prog="sandreel turn",
        parents=[options()],
        help="let an agent work on a prompt (what is meant without a verb)",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("prompt", metavar="PROMPT", nargs="*", help="what to do, in quotes; `-` reads it from stdin")
    parser.add_argument("--file", metavar="FILE", help="the prompt stands in this file")
    parser.add_argument("--agent", metavar="AGENT", help=f"{DEFAULT_AGENT} unless given; with -c, as before")
    parser.add_argument("--model", metavar="MODEL", help="one of the org's models (its default unless given)")
    where = parser.add_argument_group("where")
    where.add_argument("--session", metavar="SESSION", help="in this one")
    where.add_argument("--owner", metavar="TYPE:ID", help="in this owner's own session (user: and you, unless given)")
    where.add_argument("--workdir", metavar="PATH", help="below the workspace; made if it is not there")
    where.add_argument("--attach", metavar="FILE", action="append", default=[], help="a file, or a URL; repeatable")
    how = parser.add_argument_group("how")
    how.add_argument("--plan", action="store_true", help="change nothing: propose a plan")
    conversation = how.add_mutually_exclusive_group()
    conversation.add_argument("--conversation", metavar="ID", help="go on from the turns of this conversation")
    conversation.add_argument(
        "-c",
        "--continue",
        dest="goes_on",
        action="store_true",
        help="go on from the session's newest turn, with its agent and model",
    )
    how.add_argument("--append-system-prompt", metavar="TEXT", help="behind the agent's own")
    how.add_argument("--max-turns", type=int, default=40, metavar="N", help="replies of the model (40)")
    how.add_argument(
        "--grant",
        type=slug,
        action="append",
        default=[],
        metavar="SLUG",
        help="a credential of the org, until the turn ends; repeatable",
    )
    how.add_argument("--budget", type=budget, metavar="USD", help="what it may spend, like 2.50")
    parser.add_argument("--id", metavar="TURN", help="the turn's id, used once per session (made up unless given)")
    parser.add_argument("-d", "--detach", action="store_true", help="print the turn's id and leave it running")
    parser.set_defaults(run=_start, takes_rest=True)


@ends_with_terminal(STDOUT)
async def _start(args: argparse.Namespace) -> int:
    """Raises Malformed, Misconfigured, Refused, Unavailable."""
    prompt = prompt_of(args)
    uploads = uploads_of(args.attach)
    owner = _owner(args)
    async with connect(args) as client:
        turn = await _started(client, args, prompt, uploads, owner)
        if args.detach:
            _announce(args, turn)
            return 0
        return await watch(args, turn, interruptible=True)


async def _started(
    client: Client, args: argparse.Namespace, prompt: str, uploads: list[Upload], owner: Owner
) -> TurnHandle:
    from sandreel_core import clock

    name = args.id or clock.new_token("t-")
    before = await _newest(client, args, owner) if args.goes_on else None
    agent = args.agent or (before.agent if before is not None else DEFAULT_AGENT)
    # Whoever goes on from it means its agent, and that agent's model, unless they say otherwise.
    model = args.model or (before.model if before is not None and before.agent == agent else None)
    sent = False
    try:
        files = [await each.put(client, args, name, owner) for each in uploads]
        sent = True
        return await client.turn(
            args.org,
            args.session,
            owner=owner,
            agent=agent,
            prompt=prompt,
            model=model,
            conversation_id=before.conversation_id if before is not None else args.conversation,
            permission_mode="plan" if args.plan else "execute",
            max_turns=args.max_turns,
            system_prompt_append=args.append_system_prompt,
            workdir=args.workdir,
            attachments=files,
            budget_micro_usd=args.budget,
            grants=args.grant,
            turn=name,
            # Nobody should be surprised later by a turn that was given up here.
            deadline=clock.now() + timedelta(seconds=client.answer_timeout_s),
        )
    except asyncio.CancelledError:
        if sent:
            end = f"sandreel interrupt {name}{options_of(args)}"
            print(f"sandreel: left; if the turn did start: {end}", file=sys.stderr)
        raise
    except Unavailable as error:
        if not sent:
            raise
        see = f"sandreel turn show {name}{options_of(args)}"
        raise Unavailable(f"{error}; `{see}` shows it if it did start") from error


class _Before(NamedTuple):
    """What a turn is gone on from with."""

    conversation_id: str
    agent: str
    model: str | None


async def _newest(client: Client, args: argparse.Namespace, owner: Owner) -> _Before:
    """The session's newest turn. Raises Malformed where there is none."""
    from sandreel_core.client.owners import session_of

    session = args.session or session_of(args.org, owner)
    turns = await client.turns(args.org, session, limit=1)
    if not turns or (asked := turns[0].requested) is None:
        raise Malformed(f"--continue: session {session} has had no turn that could be gone on from")
    return _Before(asked.conversation_id or turns[0].turn, asked.agent, asked.model)


def _announce(args: argparse.Namespace, turn: TurnHandle) -> None:
    from sandreel_core.json_line import json_text

    fields = {"turn": turn.id, "session": turn.session, "cursor": str(turn.cursor)}
    print(json_text(fields) if args.json else turn.id)


@ends_with_terminal(STDOUT)
async def _show(args: argparse.Namespace) -> int:
    """Raises NotFound, Malformed, Unavailable, Misconfigured."""
    from sandreel_core.contract.cursor import Cursor

    after = Cursor.parse(args.after) if args.after else None
    async with connect(args) as client:
        turn = await client.open_turn(args.org, args.turn, args.session)
        return await watch(args, turn, interruptible=False, after=after, live=not args.no_follow)


async def watch(
    args: argparse.Namespace, turn: TurnHandle, *, interruptible: bool, after: Any = None, live: bool = True
) -> int:
    """Show a turn until it ends; see `TurnWatch`. Raises what `TurnHandle.follow` does."""
    from sandreel_core.agent import AgentReader
    from sandreel_core.cli.agents import agents
    from sandreel_core.cli.turn_screen import TurnScreen
    from sandreel_core.cli.turn_watch import TurnWatch

    def reader_of(agent: str) -> AgentReader | None:
        make = agents().get(agent)
        return make() if make is not None else None

    screen = TurnScreen(turn, json=args.json, after=after)
    items = turn.follow(live=live, reader_of=reader_of if screen.animated and live else None)
    return await TurnWatch(turn, screen, options=options_of(args)).watch(items, interruptible=interruptible)


def _owner(args: argparse.Namespace) -> Owner:
    from sandreel_core.cli.owner import owner_of
    from sandreel_core.contract.message import Owner

    if args.owner is not None:
        return owner_of(args.owner)
    if args.session is not None:
        return Owner(type="session", id=args.session)
    return Owner(type="user", id=login())
