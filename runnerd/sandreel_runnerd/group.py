"""The process group of one exec: signals to it, whether it is gone, and what is left of the exec at its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from signal import SIGCONT, SIGKILL, SIGTERM, Signals
from typing import Literal

from msgspec import Struct

from sandreel_runnerd import leftovers
from sandreel_runnerd.children import Child, Ending
from sandreel_runnerd.memory import oom_kills

KILLED_CODE = 128 + SIGKILL  # what a shell says of a child that was killed


class Outcome(Struct, frozen=True, kw_only=True):
    """How the leader ended, how many processes outlived it, and whether the kernel ran out of memory."""

    ending: Ending
    leftovers: int
    oom: bool


class Group:
    """Its leader stays unreaped until `clear`, so its number belongs to nobody else until then."""

    def __init__(self, child: Child, *, boot_marker: str, exec_id: str) -> None:
        self._child = child
        self._marks = leftovers.Marks(boot=boot_marker, exec=exec_id, leader=child.pid)
        self._killed = False

    def send(self, number: Signals, front: int | None = None) -> None:
        """To the group, and to `front`, the group that has the exec's terminal."""
        self._killed = self._killed or number == SIGKILL
        groups = {self._child.pid}
        if front is not None and front != os.getpgrp():
            groups.add(front)
        for group in groups:
            # EPERM: all of them run as somebody else by now.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
                if number == SIGTERM:
                    # A stopped process would not hear of it.
                    os.killpg(group, SIGCONT)

    async def gone(self) -> bool:
        """Whether nobody but the leader's zombie is in it."""
        return not await asyncio.to_thread(leftovers.find_group, self._child.pid)

    async def clear(self, policy: Literal["keep", "kill"], *, oom_kills_before: int | None) -> Outcome:
        """Count or kill what outlives the exec; only then give the leader's pid back."""
        count, after = await self._looked(policy)
        ending = await self._child.collect()
        more = None not in (oom_kills_before, after) and after != oom_kills_before
        # Another exec of the session may have been the one: so only if this one looks like it.
        hit = (ending.signal == "SIGKILL" and not self._killed) or ending.exit_code == KILLED_CODE
        return Outcome(ending=ending, leftovers=count, oom=more and hit)

    def abandon(self) -> None:
        """SIGKILL, and no more waiting: for when the exec is left by an exception."""
        if not self._child.released:
            self.send(SIGKILL)
            self._child.abandon()

    async def _looked(self, policy: Literal["keep", "kill"]) -> tuple[int, int | None]:
        """`_look` in a thread, which has ended also when this is cancelled: it kills by the leader's number."""
        stop = threading.Event()
        looking = asyncio.ensure_future(asyncio.to_thread(self._look, policy, stop))
        try:
            return await asyncio.shield(looking)
        except asyncio.CancelledError:
            stop.set()
            while not looking.done():
                with contextlib.suppress(asyncio.CancelledError):  # it is on its way already
                    await asyncio.wait({looking})
            raise

    def _look(self, policy: Literal["keep", "kill"], stop: threading.Event) -> tuple[int, int | None]:
        count = leftovers.kill(self._marks, stop) if policy == "kill" else leftovers.count(self._marks)
        return count, oom_kills()
