"""What the main function of every role has in common: log, settings, bus, streams, signals, exit code.

A role ends with 0 after SIGTERM or SIGINT, with 2 and one line on stderr for what an operator has to mend,
with 1 and a traceback in the log for everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sandreel_core import __version__
from sandreel_core import log as logging
from sandreel_core.bus.credentials import identity_of
from sandreel_core.bus.crew import Crew
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.port import Bus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.errors import Denied, Misconfigured, SandreelError, Unavailable
from sandreel_core.health import Health
from sandreel_core.health_endpoint import endpoint
from sandreel_core.log import Log
from sandreel_core.metrics import Metrics
from sandreel_core.process_measures import ProcessMeasures
from sandreel_core.settings import Bus as Installation
from sandreel_core.settings import HealthListen, Logging, Section, load

T = TypeVar("T", bound=Section)

OPERATOR_ERROR = 2
# How soon a lost connection is noticed, and from when on it counts.
_LOOK_S = 0.5
_MENDABLE = (Misconfigured, Denied, Unavailable)


@dataclass(frozen=True, slots=True)
class Role(Generic[T]):
    """What a role's main coroutine gets. `bus` is connected and its streams exist; it is closed afterwards.

    `health` and `metrics` are what the role serves on `[health] listen`, from before it is connected on.
    """

    name: str
    settings: T
    installation: Installation
    bus: Bus
    log: Log
    health: Health
    metrics: Metrics

    def ready(self) -> None:
        """Say that the role serves now, in the manner of systemd's `Type=notify`: to whom `NOTIFY_SOCKET` names."""
        # What there is now stays: modules, for the most part. A full collection that looks at all of it again holds whatever the
        # role does, 60 to 200 ms for 50,000 objects, and 1 ms without.
        gc.freeze()
        self.health.ready()
        notify("READY=1")


def notify(state: str) -> None:
    """Send `state` to the supervisor, if there is one. One that is gone is nobody's trouble."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
            sender.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def run_role(name: str, settings: type[T], main: Callable[[Role[T]], Awaitable[None]], *, ensures: bool = True) -> int:
    """Run a role until it ends or is told to; the exit code for `sys.exit`. One that does not `ensure` the installation's
    streams may neither make nor change any.

    SIGTERM and SIGINT cancel `main`, which cleans up and lets the cancellation pass.
    """
    return run_process(name, lambda: _compose(name, settings, main, ensures))


def run_process(name: str, main: Callable[[], Awaitable[None]]) -> int:
    """As `run_role`, for a process that wants the same manners but brings its own collaborators."""
    try:
        level = load(Logging).level
    except Misconfigured as error:
        return _complain(name, error)
    logging.set_up(name, level)
    try:
        return asyncio.run(_until_told(main))
    except BaseExceptionGroup as group:
        _, rest = group.split(_MENDABLE)
        if rest is None:
            return _complain(name, _first(group))
        Log(name).exception("role died")
    except _MENDABLE as error:
        return _complain(name, error)
    except Exception:  # noqa: BLE001 - the last one to see it; it is logged with its traceback
        Log(name).exception("role died")
    return 1


async def _compose(name: str, type: type[T], main: Callable[[Role[T]], Awaitable[None]], ensures: bool) -> None:
    installation, settings, listen = load(Installation), load(type), load(HealthListen).listen
    log, metrics = Log(name), Metrics()
    health = Health(name, version=__version__, pid=os.getpid(), monotonic=time.monotonic)
    ProcessMeasures(metrics, health, role=name, version=__version__)
    async with contextlib.AsyncExitStack() as stack:
        # First of all: whoever waits for NATS should say so.
        if listen is not None:
            await stack.enter_async_context(endpoint(listen, health, metrics))
        health.trouble("nats", "not connected to NATS yet")
        bus = await connect(installation, name, metrics)
        stack.push_async_callback(bus.close)
        if ensures:
            await _ensure(bus, installation, log)
        crew = await stack.enter_async_context(Crew())
        crew.start(_watch(bus, health))
        log.info("role is up", urls=list(installation.nats_urls), health=listen)
        await main(Role(name, settings, installation, bus, log, health, metrics))


async def _watch(bus: Bus, health: Health) -> None:
    """Nobody is told when the connection is lost, so it is looked at."""
    while True:
        if bus.connected:
            health.well("nats")
        else:
            health.trouble("nats", "the connection to NATS is lost")
        await asyncio.sleep(_LOOK_S)


async def _ensure(bus: Bus, installation: Installation, log: Log) -> None:
    """A server that has just come up may not know its streams yet: asked until it does, or as long as was said."""
    deadline = time.monotonic() + (installation.connect_timeout_s or float("inf"))
    while True:
        try:
            return await ensure_installation(bus, installation)
        except Unavailable as error:
            if time.monotonic() > deadline:
                raise
            log.warning("streams are not ready", problem=str(error))
            await asyncio.sleep(error.retry_after_s * (0.5 + random.random()))  # noqa: S311 - jitter


async def connect(installation: Installation, name: str, metrics: Metrics | None = None) -> JetStreamBus:
    """A bus by settings, measured in `metrics`. Raises Unavailable after `connect_timeout_s` (0: waits for ever), Denied for a wrong identity, Misconfigured."""
    return await JetStreamBus.connect(
        list(installation.nats_urls),
        name=name,
        identity=identity_of(installation),
        connect_timeout_s=installation.connect_timeout_s or None,
        metrics=metrics,
    )


async def _until_told(main: Callable[[], Awaitable[None]]) -> int:
    loop = asyncio.get_running_loop()
    told = False
    task = asyncio.ensure_future(main())

    def tell() -> None:
        nonlocal told
        told = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell)
    try:
        await task
    except asyncio.CancelledError:
        if not told:
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return 0


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _complain(name: str, error: BaseException) -> int:
    """One line, for a person: no traceback for what only an operator can mend."""
    text = " ".join(str(error).split())
    if isinstance(error, SandreelError) and not isinstance(error, Misconfigured):
        text += " (is it running, and are [bus] and [postgres] right? `sandreel doctor` looks)"
    print(f"sandreel {name}: {text}", file=sys.stderr)  # noqa: T201 - what a role prints before it has a log
    return OPERATOR_ERROR
