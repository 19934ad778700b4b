"""Every turn that is not settled is driven by one living bridge: by the one that answered for it, or, when that is dead, by whoever
notices first and says so in the turn's log."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from time import monotonic

from sandreel_bridge.beats import BEAT, BEAT_S, Beats
from sandreel_bridge.drive import Driver
from sandreel_bridge.journal import Journal, Name
from sandreel_bridge.tools import Tools
from sandreel_core.bus.aggregate import Decision
from sandreel_core.bus.backoff import backoff_s
from sandreel_core.bus.crew import Crew
from sandreel_core.bus.port import Stored
from sandreel_core.contract import turn as c
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.subjects import parse_event_subject, reel
from sandreel_core.errors import Malformed, SandreelError
from sandreel_core.log import Log
from sandreel_core.turn import Turn

# A turn that is finished, or was never asked for, and still stands in the index is looked after by anybody after this time.
LEFT_AFTER_S = 5.0
# A turn whose driver fails, which is a bug, is tried again, at most so often in a row at once.
_GREATEST_PAUSE_S = 30.0


class Orchestrator:
    """`run` until cancelled. Turns go on without it."""

    def __init__(self, tools: Tools, *, source: str, partitions: int) -> None:
        self._tools = tools
        self._bus = tools.bus
        self._source = source
        self._partitions = partitions
        self._beats = Beats(tools.bus, source)
        self._journals: dict[Name, Journal] = {}
        self._driven: set[Name] = set()
        # Asked to be driven while they were: their driver may have looked before what was asked for.
        self._again: set[Name] = set()
        self._left_since: dict[Name, float] = {}
        self._crew = Crew()
        self._log = Log("bridge")

    async def run(self, ready: asyncio.Event) -> None:
        """Sets `ready` when everything is watched. Raises Unavailable, NotFound."""
        starts = [(await self._bus.state(reel(p))).last_sequence for p in range(self._partitions)]
        async with self._bus.listen(f"{BEAT}.*", self._beats.hear), self._tools.keys.open(), self._crew as crew:
            crew.start(self._beats.run())
            for partition, after in enumerate(starts):
                crew.start(self._watch(partition, after))
            ready.set()
            await self._look_after()

    async def decided(self, decision: Decision[Turn]) -> None:
        """A command about a turn was answered here, by an event that is stored: what was asked for is ours to drive."""
        command = decision.command
        if command is None or not isinstance(command.data, c.TurnCommand):
            return
        name = Name(decision.where.org, decision.where.session, command.data.turn)
        self._hear(name, decision.event, decision.sequence)

    def _hear(self, name: Name, event: Envelope, sequence: int) -> None:
        if isinstance(event.data, c.TurnRequested):
            self._journals.setdefault(name, self._journal(name)).begin(event, sequence)
        if event.source == self._source and isinstance(event.data, c.TurnRequested | c.PlanApproved):
            self._drive(name)

    def _journal(self, name: Name) -> Journal:
        return Journal(self._bus, name, self._partitions, source=self._source)

    async def _watch(self, partition: int, after: int) -> None:
        """What is said of turns from now on, by whomever."""
        filter = f"evt.{partition}.*.*.turn.*"
        async with aclosing(self._bus.follow(reel(partition), [filter], after=after)) as items:
            async for item in items:
                for stored in item if isinstance(item, list) else ():
                    self._notice(stored)

    def _notice(self, stored: Stored) -> None:
        where = parse_event_subject(stored.subject)
        name = Name(where.org, where.session, where.key)
        journal = self._journals.get(name)
        if journal is not None:
            journal.hear(stored)

    def _drive(self, name: Name) -> None:
        if name in self._driven:
            self._again.add(name)
            return
        self._driven.add(name)
        self._crew.start(self._keep_driving(name))

    async def _keep_driving(self, name: Name) -> None:
        failures = 0
        try:
            while True:
                journal = self._journals.setdefault(name, self._journal(name))
                self._again.discard(name)
                try:
                    await journal.catch_up()
                    if failures and self._is_anothers(journal.turn):
                        return  # who noticed meanwhile that it was left
                    await Driver(self._tools, journal).run()
                    if name not in self._again:
                        return
                except Exception as error:  # noqa: BLE001 - one turn's failure must not end the others'; its program goes on
                    failures += 1
                    self._log.exception("driving a turn failed", turn=str(name), problem=type(error).__name__)
                    await asyncio.sleep(min(_GREATEST_PAUSE_S, backoff_s(failures, 1.0)))
        finally:
            self._again.discard(name)
            self._driven.discard(name)
            self._journals.pop(name, None)
            self._left_since.pop(name, None)

    def _is_anothers(self, turn: Turn) -> bool:
        goes_on = turn.phase in ("requested", "running")
        return goes_on and turn.driver != self._source and not self._beats.is_dead(turn.driver)

    async def _look_after(self) -> None:
        """Again and again: whoever drives an unsettled turn must be alive."""
        while True:
            try:
                await self._look()
            except (SandreelError, Malformed) as error:
                self._log.warning("unsettled turns cannot be looked after", problem=str(error))
            await asyncio.sleep(BEAT_S)

    async def _look(self) -> None:
        names = await self._tools.index.unsettled()
        self._tools.measures.open.set(len(names))
        self._tools.measures.driven.set(len(self._driven))
        for name in set(self._left_since) - set(names):
            del self._left_since[name]
        for name in set(self._journals) - set(names) - self._driven:
            del self._journals[name]
        for name in names:
            if name not in self._driven and await self._is_left(name):
                self._log.info("a turn is taken up", turn=str(name))
                self._left_since.pop(name, None)
                self._drive(name)

    async def _is_left(self, name: Name) -> bool:
        journal = self._journals.setdefault(name, self._journal(name))
        if not journal.whole:
            await journal.catch_up()
        turn = journal.turn
        if turn.phase in ("requested", "running"):
            self._left_since.pop(name, None)
            return not self._is_anothers(turn)
        # Finished and not settled, or never asked for: its bridge is at it, or died at it.
        since = self._left_since.setdefault(name, monotonic())
        if monotonic() - since < LEFT_AFTER_S:
            return False
        if turn.phase == "none":
            await journal.catch_up()
            if journal.turn.phase == "none":
                await self._tools.index.settled(name)
                return False
        return True
