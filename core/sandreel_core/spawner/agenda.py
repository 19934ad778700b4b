"""Which sessions want a look, and who is at which: one task a session at a time, a bounded number of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Literal

from sandreel_core.errors import SandreelError, Unavailable
from sandreel_core.log import Log
from sandreel_core.spawner.backend import Key

MAX_AT_ONCE = 16
AGAIN_S = 0.5
MAX_RETRY_S = 10.0

Work = Callable[[], Coroutine[None, None, bool]]
Mark = Literal["dirty", "ended"]


class Agenda:
    """`begin` starts work; what it leaves to do, and whatever `touch` and `ended` name, `due` hands out.

    dirty  it is to be looked at whatever the log says of it
    ended  something of it has ended: no news of a session that the log says is at rest
    """

    def __init__(self, group: asyncio.TaskGroup, log: Log) -> None:
        self._group = group
        self._log = log
        self._marked: dict[Mark, set[Key]] = {"dirty": set(), "ended": set()}
        self._at_work: set[tuple[str, Key]] = set()
        self._room = asyncio.Semaphore(MAX_AT_ONCE)
        self._wake = asyncio.Event()
        # Why the last attempt came to nothing, of those that wait: said once, and not with every attempt.
        self._told: dict[tuple[str, Key], str] = {}

    def wake(self) -> None:
        """There is something to do that is not ours to say."""
        self._wake.set()

    def touch(self, key: Key, mark: Mark = "dirty") -> None:
        self._marked[mark].add(key)
        self._wake.set()

    async def due(self) -> tuple[set[Key], set[Key]]:
        """(dirty, ended), either of which may be empty, when somebody has called."""
        await self._wake.wait()
        self._wake.clear()
        dirty, ended = self._marked["dirty"], self._marked["ended"]
        self._marked = {"dirty": set(), "ended": set()}
        return dirty, ended

    def is_busy(self, key: Key, what: str = "session") -> bool:
        return (what, key) in self._at_work

    def begin(self, key: Key, work: Work, *, mark: Mark | None = "dirty", what: str = "session") -> None:
        """Do `work`, which says whether to look again, in a task of its own, unless somebody is at this: then it is
        marked so (None: not at all), and is due again afterwards."""
        if self.is_busy(key, what):
            if mark is not None:
                self._marked[mark].add(key)
            return
        self._at_work.add((what, key))
        self._group.create_task(self._take_turn(key, work, what), name=f"{what} {key}")

    async def _take_turn(self, key: Key, work: Work, what: str) -> None:
        again_s: float | None = None
        try:
            async with self._room:
                # If it led to an event, that wakes us earlier.
                again_s = AGAIN_S if await work() else None
            self._told.pop((what, key), None)
        except SandreelError as error:
            if self._told.get((what, key)) != str(error):
                self._told[what, key] = str(error)
                self._log.warning("a session has to wait", session=str(key), problem=str(error))
            delay = error.retry_after_s if isinstance(error, Unavailable) else MAX_RETRY_S
            again_s = min(max(delay, AGAIN_S), MAX_RETRY_S)
        finally:
            self._at_work.discard((what, key))
            if any(key in marked for marked in self._marked.values()):
                self._wake.set()
        if again_s is not None:
            asyncio.get_running_loop().call_later(again_s, self.touch, key)
