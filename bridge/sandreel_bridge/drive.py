"""Driving one turn: `process` says what is next, and here it is done."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from sandreel_bridge import process, sandbox, settling
from sandreel_bridge.adapters.table import adapter
from sandreel_bridge.backlog import Backlog
from sandreel_bridge.index import Conversation
from sandreel_bridge.journal import Journal
from sandreel_bridge.mailbox import Mailbox
from sandreel_bridge.reading import Reading
from sandreel_bridge.running import Running, claim
from sandreel_bridge.starting import Hopeless, Starting
from sandreel_bridge.tools import Tools
from sandreel_core.bus.backoff import backoff_s
from sandreel_core.contract import turn as c
from sandreel_core.errors import Conflict, Refused, Unavailable
from sandreel_core.log import Log

_FIRST_WAIT_S = 0.2
# Conflicts in a row after which it is decided anew without a pause: somebody types quickly.
_AT_ONCE = 3


class Driver:
    """One turn, until it is settled or somebody else drives it."""

    def __init__(self, tools: Tools, journal: Journal) -> None:
        self._tools = tools
        self.journal = journal
        self._name = journal.name
        self._starting = Starting(tools, journal)
        self._facts = process.Facts(me=journal.source, requested_at=journal.requested_at)
        self._log = Log("bridge.turn")

    async def run(self) -> None:
        """Raises what is a bug."""
        try:
            await self._drive()
        finally:
            if (preparing := self.journal.turn.preparing) is not None:
                self._tools.keys.drop(self._name.org, self._name.session, preparing.exec)

    async def _drive(self) -> None:
        failures = 0
        while True:
            turn = self.journal.turn
            step = process.next_step(turn, self._facts)
            if isinstance(step, process.Leave):
                return
            self._log.info("step", turn=str(self._name), step=type(step).__name__.lower())
            try:
                if await self._do(step):
                    return
                failures = 0
            except Conflict:
                if self.journal.turn.driver not in (self.journal.source, turn.driver):
                    self._log.info("somebody else drives the turn", turn=str(self._name))
                    return
                failures += 1
                if failures > _AT_ONCE:
                    await asyncio.sleep(backoff_s(failures))
            except Unavailable as error:
                failures += 1
                self._log.info("a turn waits", turn=str(self._name), problem=str(error))
                await asyncio.sleep(backoff_s(failures, _FIRST_WAIT_S))

    async def _do(self, step: process.Step) -> bool:
        """Whether all is done."""
        match step:
            case process.Read():
                await self._read()
            case process.Requeue():
                await self.journal.say(c.SteerRequeued(message_ids=step.message_ids))
            case process.Propose():
                await self.journal.say(c.PlanProposed(plan=step.plan))
            case process.Finish():
                await self._finish(step.status, step.error)
            case process.Settle():
                await self._settle()
                return True
            case _:
                try:
                    await self._towards_a_start(step)
                except Hopeless as error:
                    # A start that somebody has sent may have been carried out by now: then there is something to drive.
                    sent = self._facts.exec == "sent"
                    if sent and (place := await self._starting.where_is_exec()) == "there":
                        self._learn(exec=place)
                    else:
                        await self._fail(str(error))
                except Refused as refused:
                    await self._not_started(refused)
        return False

    async def _towards_a_start(self, step: process.Step) -> None:
        starting, home = self._starting, self._facts.home
        match step:
            case process.Look(what="home"):
                self._learn(home=await self._look_home())
            case process.Look():
                self._learn(exec=await starting.where_is_exec(), has_key=starting.has_key)
            case process.StandInLine():
                self._learn(first=await self._tools.line.wait(self.journal))
            case process.MakeHome():
                self._learn(home=None)
                await starting.make_home()
            case process.Prepare():
                await starting.prepare(step.attempt, home)
                self._learn(exec="absent", pending=step.pending, end=None, complaint="", refused_id="")
            case process.Start() | process.AwaitStart():
                # Should its answer not come: it may have been sent all the same.
                self._learn(exec="unknown")
                if isinstance(step, process.Start):
                    place = await starting.start(home, pending=self._facts.pending)
                else:
                    place = await starting.await_start()
                self._learn(exec=place)
                if place == "lost":  # with the boot that it was for
                    self._learn(home=None)
                    self._tools.keys.drop(self._name.org, self._name.session, starting.attempt.exec)
            case process.Began():
                attempt = starting.attempt
                # The start of a dead bridge is nobody's yet: of two that find it, one writes it down.
                write = self.journal.insist if self.journal.mine else self.journal.say
                await write(c.TurnStarted(exec=attempt.exec, key=attempt.key))
                self._tools.keys.drop(self._name.org, self._name.session, attempt.exec)
                self._tools.measures.began(self.journal.turn)

    async def _look_home(self) -> process.Home:
        home = await sandbox.look(self._tools.client, self._name)
        # Once it is prepared its log says in which life of the session it is.
        if self.journal.turn.preparing is not None or home.session.incarnation < 2:
            return home
        ended = await sandbox.ended_since(self._tools.client, self._name, self.journal.requested_at)
        return replace(home, ended_since=ended)

    async def _not_started(self, refused: Refused) -> None:
        """Whether another try can do better is for `process` to say."""
        self._log.info("a start was refused", turn=str(self._name), code=refused.code)
        starts, prepared = self._facts.starts + 1, self.journal.turn.prepared_id
        self._learn(exec="absent", home=None, refused=str(refused), refused_id=prepared, starts=starts)
        await asyncio.sleep(backoff_s(starts, _FIRST_WAIT_S))

    def _learn(self, **facts: object) -> None:
        self._facts = replace(self._facts, **facts)

    async def _read(self) -> None:
        attempt = self._starting.attempt
        if not self.journal.mine:
            await claim(self.journal)
            self._tools.measures.took_over()
        if self._starting.thread_usage is None:  # it was prepared by another, or by us before something failed
            await self._starting.conversation(attempt.preparing.incarnation)
        found = adapter(attempt.request.agent)
        mailbox = Mailbox(self._tools.client, self.journal, found)
        backlog = Backlog(self.journal, heard=mailbox.heard, progressed=self._tools.measures.events)
        reading = Reading(
            self._tools.bus,
            self.journal,
            attempt.exec,
            lambda: found.reader(self._starting.thread_usage),
            backlog,
            typed=mailbox.typed,
        )
        launch = await self._starting.launch(runs=True)
        await Running(self._tools.client, self.journal, found, launch, reading, backlog, mailbox).run()
        await mailbox.settle()
        self._learn(end=reading.end, complaint=reading.complaint.strip(), home=None)

    async def _finish(self, status: c.TurnStatus, error: str | None) -> None:
        """Raises Conflict when something was said since it was decided: a message that came meanwhile is to be given back first."""
        turn, known = self.journal.turn, self.journal.revision
        run, preparing, request = turn.run, turn.preparing, turn.request
        # A program that does not find the conversation fails before it begins, and would do so in every turn to come.
        lost = not run.began and run.result is not None and run.result.status == "error"
        if run.agent_session_id is not None and preparing is not None and request is not None:
            conversation = Conversation(
                turn=self._name.turn,
                agent=request.agent,
                incarnation=preparing.incarnation,
                agent_session_id=None if lost else run.agent_session_id,
                thread_usage=run.thread_usage,
            )
            id = request.conversation_id or self._name.turn
            await self._tools.index.remember(self._name.org, self._name.session, id, conversation)
        usage = turn.usage if settling.is_measured(turn) else replace(turn.usage, cost_micro_usd=None)
        finished = c.TurnFinished(status=status, error=error[:4096] if error else None, usage=usage)
        await self.journal.say(finished, known=known)
        self._tools.line.moved.fire()
        self._log.info("a turn is finished", turn=str(self._name), status=status)
        self._tools.measures.finished(status)

    async def _fail(self, error: str) -> None:
        while waiting := self.journal.turn.waiting:
            await self.journal.say(c.SteerRequeued(message_ids=waiting))
        await self._finish("failed", error)

    async def _settle(self) -> None:
        turn, gateway = self.journal.turn, self._tools.gateway
        if gateway is None and turn.keys:
            if not await self._tools.index.is_open(self._name):
                return  # one that has a gateway was here
            raise Unavailable("its keys can only be ended by a bridge that has a gateway, which this one has not")
        if gateway is not None and turn.keys:
            counted = await settling.revoke(gateway, self._name, turn)
            if counted is not None:
                await settling.reconcile(self._tools.bus, self.journal, counted)
        # As it is now: its plan may have been approved meanwhile.
        await settling.open_next(self._tools.client, self._name, self.journal.turn)
        await self._tools.index.settled(self._name)
