"""Doing to one exec what its life says, when it says so: signals, and looks at what is left of its group."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from signal import Signals
from typing import Any

from sandreel_core.contract import exec as c
from sandreel_core.contract.message import Envelope
from sandreel_core.errors import Refused
from sandreel_runnerd.exec import Act, Life, Probe, Send
from sandreel_runnerd.group import Group
from sandreel_runnerd.streams import Streams

Record = Callable[[c.ExecEvent, Envelope | None], Awaitable[None]]


class Steering:
    """Made with its exec. What is to be done before `begin` only leaves its mark on the life.

    attended  see `RunningExec`
    """

    def __init__(self, life: Life, streams: Streams, record: Record, attended: Callable[[], bool]) -> None:
        self._life = life
        self._streams = streams
        self._record = record
        self._attended = attended
        self._group: Group | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._nudge = asyncio.Event()
        self._probing = False

    def begin(self, group: Group, tasks: asyncio.TaskGroup) -> None:
        """tasks: the exec's own roof, under which events are recorded."""
        self._group, self._tasks = group, tasks

    def nudge(self) -> None:
        """Something may be due now."""
        self._nudge.set()

    async def keep_time(self) -> None:
        """Tell the life what time it is whenever something is due, until it is closed."""
        while not self._life.closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._life.next_at()):
                    await self._nudge.wait()
            now = self._now()
            self._life.attend(self._attended(), now)
            self.apply(self._life.tick(now, silent=self._streams.silent))
            # After the tick, whose acts nudge too: what is due next is asked anew without waiting in between.
            self._nudge.clear()

    def apply(self, acts: Sequence[Act], command: Envelope | None = None) -> list[asyncio.Task[None]]:
        """Do what the life says. The events are recorded by tasks, since a kill never waits for the log."""
        records: list[asyncio.Task[None]] = []
        for act in acts:
            if isinstance(act, Send):
                self.send(Signals[act.signal])
                records += self._task(self._signalled(act, command))
            elif isinstance(act, Probe) and self._group is not None:
                self._task(self._probe(self._group))
        self._nudge.set()
        return records

    async def end(self, acts: Sequence[Act], command: Envelope | None) -> bool:
        """As `apply`; whether any event tells of it, once that is recorded. Raises Refused (EXEC_NOT_FOUND)."""
        records = self.apply(acts, command)
        if records:
            await asyncio.wait(records)
        for record in records:
            if record.cancelled():
                raise Refused("EXEC_NOT_FOUND", "the exec ended meanwhile")
            record.result()
        return bool(records)

    def send(self, number: Signals) -> None:
        if self._group is not None:
            self._group.send(number, self._streams.foreground_group())

    async def _signalled(self, act: Send, command: Envelope | None) -> None:
        await self._record(c.Signalled(signal=act.signal, why=act.why), command)

    async def _probe(self, group: Group) -> None:
        if self._probing:
            return
        self._probing = True
        try:
            gone = await group.gone()
        finally:
            self._probing = False
        if gone:
            self.apply(self._life.group_gone(self._now()))

    def _task(self, work: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
        """Under the exec's own roof; nothing, when that is coming down already."""
        try:
            if self._tasks is not None:
                return [self._tasks.create_task(work)]
        except RuntimeError:
            pass
        work.close()
        return []

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
