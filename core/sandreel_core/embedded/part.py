"""A part of the stack, kept alive: started, found dead, started again, at a rate that is bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from sandreel_core.errors import SandreelError, Unavailable
from sandreel_core.log import Log

State = Literal["starting", "ready", "died", "held", "stopped"]

# A part that dies at once waits this long before it is started again, doubled up to the greatest.
FIRST_PAUSE_S = 0.1
GREATEST_PAUSE_S = 10.0
# One that lived this long is forgiven.
FORGIVEN_AFTER_S = 30.0


class Server(Protocol):
    """One process. `start` returns when it serves, `wait` when it has ended, `kill` is SIGKILL."""

    @property
    def pid(self) -> int | None: ...

    async def start(self) -> None: ...
    async def wait(self) -> int: ...
    async def stop(self) -> None: ...
    async def kill(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Status:
    """What happened to a part, for a line on the terminal. `took_s` is how long a start took."""

    part: str
    state: State
    pid: int | None
    detail: str = ""
    took_s: float | None = None


def harmless(*reports: Callable[[Status], None]) -> Callable[[Status], None]:
    """All of them, but nothing ends because one cannot hear it: a reader that left, a terminal that was closed, a
    full disk."""
    log = Log("stack")

    def tell(status: Status) -> None:
        for report in reports:
            try:
                report(status)
            except OSError as error:
                log.warning("a report was not heard", part=status.part, state=status.state, problem=str(error))

    return tell


class Part:
    """A server and whoever keeps it alive. `start` and `stop` belong to the stack, the rest to anybody."""

    def __init__(self, name: str, server: Server, report: Callable[[Status], None], detail: str = "") -> None:
        self.name = name
        self.server = server
        self.detail = detail
        self._report = report
        self._log = Log("stack")
        self._changed = asyncio.Condition()
        self._free = asyncio.Event()
        self._free.set()
        self.state: State = "stopped"
        self.starts = 0

    @property
    def pid(self) -> int | None:
        return self.server.pid

    async def start(self) -> None:
        """Raises what the server raises, and Unavailable when this machine does not let it start (a full disk,
        no more processes); the state is then `died`."""
        await self._become("starting")
        began = time.monotonic()
        try:
            await self.server.start()
        except SandreelError as error:
            await self._become("died", str(error))
            raise
        except OSError as error:
            await self._become("died", str(error))
            raise Unavailable(f"{self.name} cannot be started: {error}") from error
        self.starts += 1
        await self._become("ready", self.detail, time.monotonic() - began)

    async def keep(self) -> None:
        """Start it again whenever it ends. Runs until cancelled."""
        pause_s, lived_from = FIRST_PAUSE_S, time.monotonic()
        while True:
            status = await self.server.wait()
            if self.state != "held":
                await self._become("died", _how(status))
            if time.monotonic() - lived_from > FORGIVEN_AFTER_S:
                pause_s = FIRST_PAUSE_S
            while True:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, GREATEST_PAUSE_S)
                await self._free.wait()
                try:
                    await self.start()
                    break
                except SandreelError as error:
                    self._log.warning("part did not start", part=self.name, problem=str(error), again_in_s=pause_s)
            lived_from = time.monotonic()

    async def kill(self, *, hold: bool = False) -> None:
        """SIGKILL; it is started again at once, or with `hold` not before `release`."""
        if hold:
            self._free.clear()
        await self.server.kill()

    async def hold(self) -> None:
        """End it and keep it down until `release`."""
        self._free.clear()
        await self._become("held")
        await self.server.stop()

    def release(self) -> None:
        self._free.set()

    async def restart(self) -> None:
        """End it cleanly and have it started again; returns when it is ready."""
        starts = self.starts
        await self.server.stop()
        await self.ready(after=starts)

    async def ready(self, *, after: int = 0, timeout_s: float = 60.0) -> int:
        """How often it has been started, as soon as it is ready and that is more than `after`. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: self.state == "ready" and self.starts > after)
        return self.starts

    async def stop(self) -> None:
        await self.server.stop()
        await self._become("stopped")

    async def _become(self, state: State, detail: str = "", took_s: float | None = None) -> None:
        async with self._changed:
            self.state = state
            self._changed.notify_all()
        self._report(Status(self.name, state, self.pid, detail, took_s))


def _how(status: int) -> str:
    if status == 0:
        return "ended"
    return f"killed by signal {-status}" if status < 0 else f"ended with {status}"
