"""A turn whose program runs: its output is folded, and beside that it is told what is due."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import ParamSpec

from sandreel_bridge.adapters.adapter import Adapter, Launch
from sandreel_bridge.attempt import Attempt
from sandreel_bridge.backlog import Backlog
from sandreel_bridge.control import Action, Told, due
from sandreel_bridge.journal import Journal
from sandreel_bridge.launching import write_rest
from sandreel_bridge.mailbox import Mailbox
from sandreel_bridge.reading import Reading
from sandreel_core.bus.crew import Crew
from sandreel_core.client import Client
from sandreel_core.client.handle import stdin_fields
from sandreel_core.contract.exec import Cancel, ExecCommand, Signal, WriteStdin
from sandreel_core.contract.turn import Checkpoint
from sandreel_core.errors import Conflict, Refused, SandreelError
from sandreel_core.log import Log

# What could not be sent is tried again so soon.
_AGAIN_S = 1.0
# While a program that has answered is given time to end, it is looked so often whether it does something else.
_LOOK_S = 5.0
# So often a turn whose program is silent says that somebody still drives it: that is the heartbeat which the views show.
IDLE_MARK_S = 60.0

P = ParamSpec("P")


class Running:
    """One attempt, from the accepted exec to its end."""

    def __init__(
        self,
        client: Client,
        journal: Journal,
        adapter: Adapter,
        launch: Launch,
        reading: Reading,
        backlog: Backlog,
        mailbox: Mailbox,
    ) -> None:
        self._client = client
        self._journal = journal
        self._adapter = adapter
        self._launch = launch
        self._reading = reading
        self._backlog = backlog
        self._mailbox = mailbox
        self._attempt = Attempt.of(journal.name, journal.turn)
        self._exec = self._attempt.exec
        self._told = Told()
        # All of its first input is written; what is said later comes behind that.
        self._is_begun = False
        self._seen = (0, 0)
        self._log = Log("bridge.running")

    async def run(self) -> None:
        """Until all is folded. Raises Conflict when the turn is not ours any more, Unavailable."""
        try:
            async with Crew() as crew:
                crew.start(self._begin())
                crew.start(self._control())
                crew.start(self._say_alive())
                crew.start(self._backlog.run())
                await self._reading.run()
        except BaseExceptionGroup as group:
            conflicts, others = group.split(Conflict)
            if conflicts is None or others is not None:
                raise
            raise Conflict(f"{self._journal.subject} is somebody else's") from group

    async def _begin(self) -> None:
        """Beside the control: a program that does not read its input can be stopped all the same."""
        await self._patiently(write_rest, self._client, self._attempt, self._launch)
        self._is_begun = True
        self._journal.changed.set()

    async def _control(self) -> None:
        while True:
            self._journal.changed.clear()
            again_s = await self._attend() if self._is_begun else None
            if self._may_work():
                self._told.worked_at = monotonic()
            action, wait_s = due(
                self._journal.turn,
                self._told,
                at_s=monotonic(),
                holds_stdin=self._launch.hold_stdin,
                has_protocol=self._adapter.stop_line is not None and self._is_begun,
            )
            if action is not None:
                await self._patiently(self._tell, action)
                continue
            waits = [min(each, _LOOK_S) for each in (again_s, wait_s) if each is not None]
            try:
                async with asyncio.timeout(min(waits, default=None)):
                    await self._journal.changed.wait()
            except TimeoutError:
                continue

    def _may_work(self) -> bool:
        """Whether it has not answered, or has printed anything since we looked last, or could not be heard in between."""
        seen, bus = self._seen, self._client.bus
        self._seen = (self._reading.read_n, bus.generation)
        return self._journal.turn.run.result is None or seen != self._seen or not bus.connected

    async def _attend(self) -> float | None:
        try:
            return await self._mailbox.attend()
        except Conflict:
            raise
        except SandreelError as error:
            self._log.info("messages have to wait", turn=str(self._journal.name), problem=str(error))
            return _AGAIN_S

    async def _tell(self, action: Action) -> None:
        """A successor may tell it once more, which changes nothing: it is stopping already."""
        now = monotonic()
        self._log.info("the program is told", turn=str(self._journal.name), what=action)
        match action:
            case "ask":
                if self._adapter.stop_line is not None:
                    text, encoded = stdin_fields(self._adapter.stop_line(f"stop-{self._exec}"))
                    await self._send(WriteStdin(exec=self._exec, text=text, base64=encoded))
                self._told.asked_at = now
            case "eof":
                await self._send(WriteStdin(exec=self._exec, eof=True))
                self._told.eof_at = now
            case "signal":
                await self._send(Signal(exec=self._exec, signal="SIGINT"))
                self._told.signalled_at = now
            case "cancel":
                await self._send(Cancel(exec=self._exec))
                self._told.cancelled_at = now

    async def _send(self, command: ExecCommand) -> None:
        """A program that ends meanwhile can be told nothing more, which is no trouble."""
        name = self._journal.name
        try:
            await self._client.send(name.org, name.session, command)
        except Refused as refused:
            self._log.info("the program was not told", turn=str(name), what=command.type, code=refused.code)

    async def _say_alive(self) -> None:
        while True:
            before = self._journal.revision
            await asyncio.sleep(IDLE_MARK_S)
            if self._journal.revision == before:
                await self._reading.mark(anyhow=True)
                await self._backlog.emptied()  # else our own mark would be taken for a word of the program

    async def _patiently(self, work: Callable[P, Awaitable[None]], *args: P.args, **named: P.kwargs) -> None:
        while True:
            try:
                return await work(*args, **named)
            except Refused as refused:
                return self._log.warning("refused", turn=str(self._journal.name), code=refused.code)
            except SandreelError as error:
                self._log.info("the program has to wait", turn=str(self._journal.name), problem=str(error))
                await asyncio.sleep(_AGAIN_S)


async def claim(journal: Journal) -> None:
    """Say that it is ours now, from where the last driver's checkpoint stands. Raises Conflict when another was quicker."""
    before = journal.turn.checkpoint
    await journal.say(before if before is not None else Checkpoint(exec_n=1))
