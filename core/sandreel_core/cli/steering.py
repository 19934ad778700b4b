"""`sandreel steer`, `interrupt`, `queue`, `approve`, `reject`: what is said to a turn that is there already."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import connect, options, options_of
from sandreel_core.cli.hangup import ends_with_terminal
from sandreel_core.cli.pipes import STDOUT
from sandreel_core.cli.turn import turn_arguments, watch
from sandreel_core.errors import Malformed, NotFound, Unavailable

if TYPE_CHECKING:
    from sandreel_core.client import Client, Outcome, TurnHandle

# A bridge asks for the turn that carries a plan out as soon as the one that proposed it is settled.
_GOES_ON_WITHIN_S = 15.0
_STEER = """\
Say something to an agent while it works. It is told as soon as it listens: at once where its program takes messages,
else at its next step; what it has not read when its turn ends opens the next one. `sandreel queue TURN` says how far it is.
"""
_INTERRUPT = """\
End a turn: no program starts any more, and the one that runs is asked to end, then told to, then made to. Without --no-wait
this returns when the turn has ended.
"""
_QUEUE = """\
Print what was said to a turn while it worked: queued (not handed over, or handed over and never read), delivered (the
program has it), consumed (the agent has read it).
"""


def add(subparsers: Any) -> None:
    steer = _command(subparsers, "steer", "say something to an agent while it works", _STEER, _steer)
    steer.add_argument("text", metavar="TEXT", nargs="+", help="in quotes")
    interrupt = _command(subparsers, "interrupt", "end a turn", _INTERRUPT, _interrupt)
    interrupt.add_argument("--no-wait", action="store_true", help="return when it is decided, not when it is done")
    _command(subparsers, "queue", "what was said to a turn while it worked", _QUEUE, _queue)
    said = "Let a turn's plan be carried out; prints the turn in which it goes on, or shows it as `sandreel turn` does."
    approve = _command(subparsers, "approve", "let a turn's plan be carried out", said, _approve)
    approve.add_argument("-w", "--watch", action="store_true", help="watch it being carried out")
    reject = _command(subparsers, "reject", "turn a turn's plan down", "Turn a turn's plan down, once.", _reject)
    reject.add_argument("--reason", metavar="TEXT", default="", help="why, for those who ask later")


def _command(subparsers: Any, name: str, help: str, description: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        parents=[options()],
        help=help,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    turn_arguments(parser)
    parser.set_defaults(run=run)
    return parser


@asynccontextmanager
async def _opened(args: argparse.Namespace) -> AsyncIterator[TurnHandle]:
    async with connect(args) as client:
        yield await client.open_turn(args.org, args.turn, args.session)


async def _steer(args: argparse.Namespace) -> int:
    """Raises NotFound, Malformed, Refused (TURN_FINISHED, QUEUE_FULL), Unavailable, Misconfigured."""
    from sandreel_core.contract.turn import MAX_PROMPT_BYTES

    if len(args.text) > 1:
        raise Malformed(f"put the text in quotes: it came as {len(args.text)} words")
    text = args.text[0]
    if not text.strip():
        raise Malformed("there is nothing in the text")
    if (size := len(text.encode(errors="replace"))) > MAX_PROMPT_BYTES:
        raise Malformed(f"the text has {size} bytes; the limit is {MAX_PROMPT_BYTES}")
    async with _opened(args) as turn:
        outcome = await turn.steer(text)
    _print(args, outcome, f"queued; sandreel queue {args.turn}{options_of(args)} says when it is read")
    return 0


async def _interrupt(args: argparse.Namespace) -> int:
    """Raises NotFound, Malformed, Refused (TURN_FINISHED), Unavailable, Misconfigured."""
    async with _opened(args) as turn:
        outcome = await turn.interrupt()
        status = "interrupting" if args.no_wait else (await turn.finished()).status
    _print(args, outcome, status.replace("_", " "), status=status)
    return 0


async def _queue(args: argparse.Namespace) -> int:
    """Raises NotFound, Malformed, Unavailable, Misconfigured."""
    from sandreel_core.cli.text import clean, cut, table
    from sandreel_core.json_line import json_text

    async with _opened(args) as turn:
        messages = await turn.queue()
    if args.json:
        for each in messages:
            named = {"message": each.message_id, "state": each.state, "channel": each.channel, "actor": each.actor}
            print(json_text({"turn": args.turn, **named, "at": each.at.isoformat(), "text": each.text}))
        return 0
    rows = [("MESSAGE", "STATE", "BY", "SENT", "ACTOR", "TEXT")]
    for each in messages:
        sent = each.at.astimezone().strftime("%H:%M:%S")
        text = cut(clean(" ".join(each.text.split())), 60)
        rows.append((clean(each.message_id), each.state, each.channel or "", sent, clean(each.actor or ""), text))
    print("\n".join(table(rows)))
    return 0


@ends_with_terminal(STDOUT)
async def _approve(args: argparse.Namespace) -> int:
    """Raises NotFound, Malformed, Refused, Unavailable, Misconfigured."""
    async with connect(args) as client:
        turn = await client.open_turn(args.org, args.turn, args.session)
        outcome = await turn.approve()
        following = await turn.goes_on_in() if outcome.settled else outcome.data.next_turn
        going_on = await _going_on(client, turn, following, args) if following else None
        if args.watch and going_on is not None:
            return await watch(args, going_on, interruptible=True)
    _print(args, outcome, following or "approved", **({"next_turn": following} if following else {}))
    return 0


async def _going_on(client: Client, turn: TurnHandle, following: str, args: argparse.Namespace) -> TurnHandle:
    """Whoever is told its name may look at it. Raises Unavailable."""
    try:
        return await client.open_turn(turn.org, following, turn.session, within_s=_GOES_ON_WITHIN_S)
    except NotFound as error:
        see = f"sandreel turn show {following}{options_of(args)}"
        raise Unavailable(
            f"the plan is approved, and turn {following} has not begun within {_GOES_ON_WITHIN_S:g} s; later: {see}"
        ) from error


async def _reject(args: argparse.Namespace) -> int:
    """Raises NotFound, Malformed, Refused, Unavailable, Misconfigured."""
    async with _opened(args) as turn:
        outcome = await turn.reject(args.reason)
    _print(args, outcome, "rejected")
    return 0


def _print(args: argparse.Namespace, outcome: Outcome, text: str, **more: str) -> None:
    import msgspec

    from sandreel_core.json_line import json_text

    if args.json:
        said = {"turn": args.turn, "type": outcome.event.type, "cursor": str(outcome.cursor)}
        print(json_text({**said, "data": msgspec.to_builtins(outcome.data), **more}))
    else:
        print(text)
