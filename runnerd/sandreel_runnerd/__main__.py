"""`python -m sandreel_runnerd [--settings-stdin]`: one session's recorder, until it is told to end."""

from __future__ import annotations

# ruff: noqa: E402 - what is postponed has to be so before anything else is imported
from sandreel_runnerd import lean

lean.postpone()

import asyncio
import os
import sys

from sandreel_core import log
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.contract.boot import BOOT_MARKER, NO_ROOM, UNTOLD, UNWRITABLE, BootSettings
from sandreel_core.errors import Malformed, Misconfigured, Unavailable
from sandreel_runnerd import fence, init, settings, threads
from sandreel_runnerd.children import Children
from sandreel_runnerd.daemon import Daemon
from sandreel_runnerd.passport import Passport
from sandreel_runnerd.spool import NoRoom, Unwritable

USAGE = 64  # sysexits.h, EX_USAGE
CONFIG = 78  # sysexits.h, EX_CONFIG
UNAVAILABLE = 69  # sysexits.h, EX_UNAVAILABLE


def main() -> int:
    """The exit code: 0 told to end, 3 declared dead, 64, 69, 73, 74, 75 or 78 with one line on stderr that says why."""
    lean.imported()
    init.block()
    try:
        # Before the secrets are read: from here on nobody of the same user can look into this process.
        init.guard()
        boot = _settings(sys.argv[1:])
        log.set_up("runnerd", boot.log_level)
        with asyncio.Runner(loop_factory=threads.Loop) as runner:
            return runner.run(_run(boot))
    except settings.Untold as error:
        return _complain(str(error), UNTOLD)
    except Misconfigured as error:
        return _complain(str(error), CONFIG)
    except Unwritable as error:
        return _complain(str(error), UNWRITABLE)
    except NoRoom as error:
        return _complain(str(error), NO_ROOM)
    except Unavailable as error:
        return _complain(str(error), UNAVAILABLE)
    except OSError as error:
        return _complain(f"runnerd cannot begin: {error.strerror or error}", UNAVAILABLE)


def _settings(words: list[str]) -> BootSettings:
    if words not in ([], ["--settings-stdin"]):
        raise Misconfigured("usage: python -m sandreel_runnerd [--settings-stdin]")
    boot = settings.from_stdin(sys.stdin.buffer) if words else settings.from_environment(os.environ)
    settings.scrub(os.environ)
    os.environ[BOOT_MARKER] = settings.marker(boot)
    return boot


async def _run(boot: BootSettings) -> int:
    logger = log.Log("runnerd")
    children = Children()
    ended = asyncio.Event()
    daemons: list[Daemon] = []

    def end() -> None:
        ended.set()
        for daemon in daemons:
            daemon.end()

    with init.Init(reap=children.reap, end=end, log=logger):
        await threads.start()
        passport = _passport(boot, logger)
        bus = await _connected(boot, passport, ended)
        if bus is None:
            return 0
        if passport is not None:
            passport.attach(bus)
        try:
            daemon = Daemon(boot, bus, children, logger, passport=passport, fence=fence.close)
            daemons.append(daemon)
            return await daemon.run()
        finally:
            await bus.close()


def _passport(boot: BootSettings, logger: log.Log) -> Passport | None:
    """None where runnerds share one user. Raises Misconfigured."""
    if boot.nats_creds is None:
        return None
    try:
        return Passport(boot, boot.nats_creds, logger)
    except Malformed as error:
        raise Misconfigured(f"nats_creds: {error}") from None


async def _connected(boot: BootSettings, passport: Passport | None, ended: asyncio.Event) -> JetStreamBus | None:
    """None when the end came first."""
    name = f"runnerd {boot.org}/{boot.session} {boot.boot_id}"
    connecting = asyncio.ensure_future(
        JetStreamBus.connect(
            boot.nats_urls, name=name, identity=passport, user=boot.nats_user, password=boot.nats_password
        )
    )
    ending = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait({connecting, ending}, return_when=asyncio.FIRST_COMPLETED)
        return connecting.result() if connecting.done() else None
    finally:
        for task in (connecting, ending):
            task.cancel()
        await asyncio.gather(connecting, ending, return_exceptions=True)


def _complain(sentence: str, code: int) -> int:
    sys.stderr.write(f"runnerd: {sentence}\n")
    return code


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is said, stored and closed. Taking the interpreter apart would be a third of what its end takes.
    os._exit(code)
