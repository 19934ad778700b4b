"""`sandreel up`: everything on this machine, in one terminal. `sandreel down` ends it from another one."""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import DATA, configured, data_of
from sandreel_core.cli.interrupts import ending_signals

if TYPE_CHECKING:
    from sandreel_core.embedded.part import Status
    from sandreel_core.embedded.stack import Stack

_DETACHED_WITHIN_S = 120.0
# The roles, the bridge before them, then the servers; sessions have had their own time before.
_DOWN_WITHIN_S = 75.0

_UP = """\
Start everything on this machine: NATS, Postgres, the spawner, the projector and the bridge, each a process of its own that
is started again when it dies. Sessions run in containers where a container engine and the images (`make image`) are, else as
processes of this machine; it says which. A session in a container starts only when it is proven that nothing gets out
of its network but by the bus, the gateway and the egress proxy (--unfenced: without that). Data and passwords stay in --data; Ctrl-C (or
`sandreel down`) stops everything, the sessions too: their jobs end, their workspaces stay. A second Ctrl-C leaves the
sessions running.

Agents reach a model by the gateway, which is started too where a provider has a key: ANTHROPIC_API_KEY, OPENAI_API_KEY or
GEMINI_API_KEY in the environment, or [gateway] in the settings. No other role and no session gets to see it.

With [bus] nats_urls or [postgres] dsn in the settings, those servers are used and none are started.
"""


def add(subparsers: Any) -> None:
    up = subparsers.add_parser(
        "up",
        help="start everything on this machine",
        description=_UP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _common(up)
    up.add_argument(
        "--backend", choices=("process", "docker"), help="where sessions run (docker if it and its images are here)"
    )
    up.add_argument(
        "--unfenced", action="store_true", help="start sessions without a proof that nothing gets out of their network"
    )
    up.add_argument("-d", "--detach", action="store_true", help="return when it is ready; `sandreel down` ends it")
    up.add_argument("--keep-sessions", action="store_true", help="leave sessions running when it ends")
    up.set_defaults(run=run_up)
    down = subparsers.add_parser(
        "down",
        help="stop what `up` has started",
        description="Stop everything that `sandreel up` has started on --data, also what one that was killed has left.",
        allow_abbrev=False,
    )
    _common(down)
    down.set_defaults(run=run_down)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"where the data is ({DATA})")


def run_up(args: argparse.Namespace) -> int:
    """Raises Misconfigured, Unavailable."""
    from sandreel_core.errors import Misconfigured

    if (data := configured()) is not None:
        raise Misconfigured(
            f"SANDREEL_CONFIG names a file that a stack writes for its clients in {data}: unset it, or name settings of your own"
        )
    return _detach(args) if args.detach else asyncio.run(_up(args))


async def _up(args: argparse.Namespace) -> int:
    from sandreel_core import __version__
    from sandreel_core.embedded.choice import choose
    from sandreel_core.embedded.part import Status
    from sandreel_core.embedded.stack import Stack
    from sandreel_core.runtime import notify

    data, began = data_of(args), time.monotonic()
    environ, report = dict(os.environ), reporter(json=args.json)
    if args.unfenced:
        environ["SANDREEL_DOCKER_UNFENCED"] = "true"
    choice = await choose(environ, data, asked=args.backend)
    environ["SANDREEL_STACK_BACKEND"] = choice.backend
    _log_to(data)
    stack = Stack(data, environ=environ, report=report, stop_sessions=not args.keep_sessions)
    if args.json:
        report(Status("backend", "ready", None, f"{choice.backend}: {choice.why}"))
    else:
        _print(f"sandreel {__version__} · data in {data} · {choice.why}")
    told = asyncio.Event()
    _on_signals(stack, told)
    try:
        async with stack:
            if not args.json:
                _print(_hints(args, time.monotonic() - began, agents="gateway" in stack.parts))
            notify("READY=1")
            await _until(told, stack)
            if not args.json:
                _print("stopping (Ctrl-C again leaves the sessions running)")
    except asyncio.CancelledError:
        if not told.is_set():
            raise
    return 0


def _on_signals(stack: Stack, told: asyncio.Event) -> None:
    """The first signal ends the stack, the second one hurries."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def tell() -> None:
        if told.is_set():
            stack.hurry.set()
            return
        told.set()
        if not stack.entered and task is not None:
            task.cancel()

    for number in ending_signals():
        loop.add_signal_handler(number, tell)


async def _until(told: asyncio.Event, stack: Stack) -> None:
    waiting = {asyncio.ensure_future(told.wait()), asyncio.ensure_future(stack.wait())}
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()


def reporter(*, json: bool) -> Callable[[Status], None]:
    """Prints a line for everything that happens to a part; starts only once they are over."""

    def report(status: Status) -> None:
        if json:
            from sandreel_core.json_line import json_text

            _print(json_text(status))
        elif status.state != "starting" or status.detail:
            pid = f"pid {status.pid}" if status.pid else ""
            took = f"{status.took_s:.2f} s" if status.took_s is not None else ""
            words = "  ".join(word for word in (status.detail, pid, took) if word)
            _print(f"  {status.part:<10} {status.state:<8} {words}".rstrip())

    return report


def _print(line: str) -> None:
    """For whoever looks. A reader that left, or a terminal that was closed, ends nothing and hears no more."""
    try:
        print(line, flush=True)
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.EIO):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def _hints(args: argparse.Namespace, took_s: float, *, agents: bool) -> str:
    """`agents`: there is a gateway, so that turns are possible."""
    where = f" --data {data_of(args)}" if args.data else ""
    turn = f"\n  sandreel turn{where} 'Write a haiku into haiku.txt'" if agents else ""
    return f"""ready in {took_s:.1f} s. In another terminal:
  sandreel session create{where} s1
  sandreel exec{where} s1 -- sh -c 'echo hello'{turn}
  sandreel doctor{where}
Ctrl-C stops everything; the data stays."""


def _log_to(data: Path) -> None:
    """The supervisor's own log goes to a file: the terminal is for people."""
    from sandreel_core import log
    from sandreel_core.embedded.process import cut

    path = data / "logs" / "stack.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        cut(path)
        log.set_up("stack", stream=path.open("a"))
    except OSError:  # the stack will say why in one line
        log.set_up("stack", "ERROR")


def _detach(args: argparse.Namespace) -> int:
    from sandreel_core.embedded.choice import last
    from sandreel_core.embedded.detached import start

    command = [sys.executable, "-P", "-m", "sandreel_core.cli", "up", "--data", str(data_of(args))]
    command += ["--backend", args.backend] if args.backend else []
    command += ["--unfenced"] if args.unfenced else []
    command += ["--keep-sessions"] if args.keep_sessions else []
    pid = start(command, data_of(args) / "logs" / "up.log", within_s=_DETACHED_WITHIN_S)
    backend = last(data_of(args))
    if args.json:
        from sandreel_core.json_line import json_text

        print(json_text({"pid": pid, "data": str(data_of(args)), "backend": backend}))
    else:
        down = f"sandreel down --data {shlex.quote(str(args.data))}" if args.data else "sandreel down"
        print(f"sandreel is up (pid {pid}, backend {backend}), data in {data_of(args)}; `{down}` stops it")
    return 0


async def run_down(args: argparse.Namespace) -> int:
    """Raises Misconfigured, Unavailable."""
    from sandreel_core.embedded.choice import last
    from sandreel_core.embedded.ending import left_over
    from sandreel_core.embedded.place import closed, holder
    from sandreel_core.embedded.stack import Stack
    from sandreel_core.errors import Unavailable

    data, within_s = data_of(args), _DOWN_WITHIN_S + _sessions_within_s()
    pid = holder(data)
    if pid:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            raise Unavailable(f"pid {pid} is somebody else's: stop it as the user who started it") from error
        if not await asyncio.to_thread(closed, data, within_s=within_s):
            raise Unavailable(f"sandreel up (pid {pid}) has not ended after {within_s:g} s: it may still be at it")
        _say(args, data, f"stopped (pid {pid})")
    elif left_over(data):
        # One that was killed has left its parts and sessions: take them over, and end them in order.
        _log_to(data)
        environ = dict(os.environ) | {"SANDREEL_STACK_BACKEND": await asyncio.to_thread(last, data)}
        async with Stack(data, environ=environ, report=reporter(json=args.json)):
            pass
        _say(args, data, "what was left over is stopped")
    else:
        _say(args, data, "nothing is running")
    return 0


def _sessions_within_s() -> float:
    """What an `up` that was started with the settings that we see gives its sessions."""
    from sandreel_core.embedded.wiring import StackSettings
    from sandreel_core.errors import Misconfigured
    from sandreel_core.settings import load

    try:
        return load(StackSettings).stop_sessions_within_s
    except Misconfigured:  # with which nothing could be started, but what was can be ended
        return StackSettings().stop_sessions_within_s


def _say(args: argparse.Namespace, data: Path, text: str) -> None:
    if args.json:
        from sandreel_core.json_line import json_text

        print(json_text({"data": str(data), "result": text}))
    else:
        print(f"{text}, data in {data}")
