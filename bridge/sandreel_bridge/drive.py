"""Driving one turn: `process` says what is next, and here it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

from msgspec.structs import replace

from sandreel_bridge import grants, launching, process, sandbox, settling
from sandreel_bridge.adapters.adapter import Launch
from sandreel_bridge.adapters.table import adapter
from sandreel_bridge.attempt import Attempt
from sandreel_bridge.gateway.port import Gateway, KeyTerms
from sandreel_bridge.index import Conversation, Index
from sandreel_bridge.journal import Journal
from sandreel_bridge.keys import Keys
from sandreel_bridge.mailbox import Mailbox
from sandreel_bridge.measures import BridgeMeasures
from sandreel_bridge.reading import Reading
from sandreel_bridge.running import Running, claim
from sandreel_bridge.settings import Settings
from sandreel_core.bus.backoff import backoff_s
from sandreel_core.bus.port import Bus
from sandreel_core.client import Client
from sandreel_core.clock import now
from sandreel_core.contract import turn as c
from sandreel_core.contract.subjects import CMD
from sandreel_core.errors import Conflict, Malformed, Refused, SandreelError, Unavailable
from sandreel_core.log import Log
from sandreel_core.turn import exec_of, summed

# So long an answer of the gateway, or a session that gets ready, is waited for: then the turn fails, and says why.
GATEWAY_WITHIN_S = 30.0
HOME_WITHIN_S = 600.0
_NO_PLACE = "NO_GATEWAY: no gateway is configured, so that nothing could meter and refuse what the turn spends"


@dataclass(frozen=True, slots=True)
class Tools:
    """What every driver of this bridge works with. `gateway` None: none is configured, and turns are refused."""

    bus: Bus
    client: Client
    index: Index
    keys: Keys
    gateway: Gateway | None
    settings: Settings
    measures: BridgeMeasures


class Driver:
    """One turn, until it is settled or somebody else drives it."""

    def __init__(self, tools: Tools, journal: Journal, *, monotonic: Callable[[], float] = monotonic) -> None:
        self._tools = tools
        self.journal = journal
        self._name = journal.name
        self._monotonic = monotonic
        self._facts = process.Facts(me=journal.source, requested_at=journal.requested_at)
        self._thread_usage: c.Usage | None = None
        self._waiting_since: dict[str, float] = {}
        self._log = Log("bridge.turn")

    async def run(self) -> None:
        """Raises what is a bug."""
        failures = 0
        while True:
            turn = self.journal.turn
            step = process.next_step(turn, self._facts)
            if isinstance(step, process.Leave):
                return
            try:
                self._log.info("step", turn=str(self._name), step=type(step).__name__.lower())
                if await self._do(step):
                    return
                failures = 0
            except Conflict:
                if self.journal.turn.driver not in (self.journal.source, turn.driver):
                    self._log.info("somebody else drives the turn", turn=str(self._name))
                    return
                failures += 1
                if failures > 3:
                    await asyncio.sleep(backoff_s(failures))
            except Unavailable as error:
                failures += 1
                self._log.info("a turn waits", turn=str(self._name), problem=str(error))
                await asyncio.sleep(backoff_s(failures, 0.2))

    async def _do(self, step: process.Step) -> bool:
        """Whether all is done."""
        match step:
            case process.Look(what="home"):
                self._learn(home=await sandbox.look(self._tools.client, self._name))
            case process.Look():
                await self._look_for_exec()
            case process.MakeHome():
                await self._make_home()
            case process.Prepare():
                await self._prepare(step.attempt)
            case process.Start():
                await self._start()
            case process.AwaitStart():
                await self._await_start(with_key=step.key)
            case process.Began():
                await self.journal.insist(c.TurnStarted(exec=self._attempt.exec, key=self._attempt.key))
                self._drop_key()
                self._tools.measures.began(self.journal.turn)
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
        return False

    @property
    def _attempt(self) -> Attempt:
        return Attempt.of(self._name, self.journal.turn)

    @property
    def _request(self) -> c.TurnRequested:
        request = self.journal.turn.request
        if request is None:
            raise LookupError(f"nobody has asked for turn {self._name}")  # `process` leaves it then
        return request

    def _drop_key(self) -> None:
        self._tools.keys.drop(self._name.org, self._name.session, self._attempt.exec)

    def _learn(self, **facts: object) -> None:
        self._facts = replace(self._facts, **facts)

    # -- before it runs

    async def _look_for_exec(self) -> None:
        subjects, bus, attempt = self.journal.subjects, self._tools.bus, self._attempt
        start = subjects.command("runnerd", attempt.start_id)
        if await bus.next(subjects.stream, subjects.exec(attempt.exec)) is not None:
            self._learn(exec="there")
        elif await bus.last(CMD, start) is not None:
            self._learn(exec="sent")
        else:
            self._learn(exec="absent")

    async def _make_home(self) -> None:
        home = await sandbox.look(self._tools.client, self._name)
        self._learn(home=None)
        try:
            await sandbox.make(self._tools.client, self._name, home, self._request.owner, self._request.profile)
        except Refused as refused:
            await self._fail(str(refused))
        except Unavailable as error:
            if self._waited("home") > HOME_WITHIN_S:
                return await self._fail(f"the session did not get ready: {error}")
            raise

    async def _prepare(self, attempt: int) -> None:
        """Fail closed: nothing is prepared before the gateway has said that it enforces what the org may."""
        request, gateway, home = self._request, self._tools.gateway, self._facts.home
        if gateway is None or home is None:
            return await self._fail(_NO_PLACE)
        try:
            models = await gateway.enforce(self._name.org)
            model = request.model or (models[0] if models else None)
            if model is None or model not in models:
                raise Refused(
                    "MODEL_NOT_ALLOWED", f"model {model} is none of {', '.join(models) or 'the org, which has none'}"
                )
        except Refused as refused:
            return await self._fail(str(refused))
        except SandreelError as error:
            if not isinstance(error, Unavailable) or self._waited("gateway") > GATEWAY_WITHIN_S:
                return await self._fail(f"NO_GATEWAY: the gateway does not confirm that it enforces: {error}")
            raise
        before = await self._conversation(home.session.incarnation)
        await self.journal.say(
            c.TurnPreparing(
                attempt=attempt,
                exec=exec_of(self._name.turn, attempt),
                incarnation=home.session.incarnation,
                model=model,
                agent_session_id=before.agent_session_id if before is not None else None,
                budget_micro_usd=request.budget_micro_usd or self._tools.settings.budget_micro_usd,
            )
        )
        self._learn(exec="absent", end=None, refused_id="")
        return None

    async def _conversation(self, incarnation: int) -> Conversation | None:
        """Where it stands, if it is of the same agent and of this life of the session: another one has nothing to resume."""
        request = self._request
        id = request.conversation_id or self._name.turn
        found = await self._tools.index.conversation(self._name.org, self._name.session, id)
        mine = found is not None and found.incarnation == incarnation and found.agent == request.agent
        found = found if mine and found is not None and found.turn != self._name.turn else None
        self._thread_usage = found.thread_usage if found is not None else c.Usage()
        return found

    def _launch(self) -> Launch:
        """Raises Malformed for what the agent cannot do."""
        settings = self._tools.settings
        spec = launching.run_spec(self._attempt, gateway_url=settings.gateway_url or "", browser=settings.browser)
        launch = launching.launch_of(self._request.agent, spec)
        return replace(launch, argv=[settings.program(launch.argv[0]), *launch.argv[1:]])

    async def _start(self) -> None:
        name, client = self._name, self._tools.client
        try:
            launch = self._launch()
        except Malformed as error:
            return await self._fail(f"BAD_REQUEST: {error}")
        files = client.files(name.org, name.session)
        placing = (
            launching.prepare_files(files, launch),
            launching.place(files, self._request.attachments),
            self._mint(),
            self._grant(),
        )
        for failed in await asyncio.gather(*placing, return_exceptions=True):
            if isinstance(failed, SandreelError):
                self._refuse(failed)
                return await asyncio.sleep(backoff_s(self._facts.starts, 0.1))
            if isinstance(failed, BaseException):
                raise failed
        await self._ask_start(launch)
        return None

    async def _grant(self) -> None:
        asked = self.journal.turn.asked
        if self._request.grants and asked is not None:
            await grants.grant(self._tools.client, self._name, self._request.grants, asked, self._log)

    async def _mint(self) -> None:
        name, attempt, gateway, home = self._name, self._attempt, self._tools.gateway, self._facts.home
        preparing, asked = attempt.preparing, self.journal.turn.asked
        if gateway is None:
            raise Unavailable(_NO_PLACE)
        owner = home.session.owner if home is not None else None
        user = owner.id if owner is not None and owner.type == "user" else asked.actor if asked else None
        terms = KeyTerms(
            org=name.org,
            session=name.session,
            turn=name.turn,
            user=user,
            models=(preparing.model,) if preparing.model else (),
            budget_micro_usd=preparing.budget_micro_usd or self._tools.settings.budget_micro_usd,
            expires_at=now() + timedelta(seconds=self._tools.settings.key_ttl_s),
        )
        key = await gateway.mint(attempt.key, terms)
        self._tools.keys.hold(name.org, name.session, attempt.exec, key.value, lambda: self._gate(attempt.exec))

    async def _gate(self, exec: str) -> str | None:
        """An interrupt that is in the log before the key is given out wins: then no exec starts."""
        await self.journal.catch_up()
        turn = self.journal.turn
        starts = turn.phase != "finished" and not turn.accepted and not turn.interrupting
        if not starts or turn.preparing is None or turn.preparing.exec != exec:
            return None
        home = await sandbox.look(self._tools.client, self._name)
        return home.session.public_keys.get("seal")

    async def _await_start(self, *, with_key: bool) -> None:
        """The command is in the log already, so that sending it only asks for its answer."""
        if with_key and self._tools.gateway is not None:
            await self._mint()
        try:
            launch = self._launch()
        except Malformed as error:
            return await self._fail(f"BAD_REQUEST: {error}")
        await self._ask_start(launch)
        return None

    async def _ask_start(self, launch: Launch) -> None:
        attempt = self._attempt
        try:
            await launching.start(self._tools.client, attempt, launch)
            self._learn(exec="there")
        except Refused as refused:
            if refused.code == "DUPLICATE_EXEC":
                subject = self.journal.subjects.exec(attempt.exec)
                if await self._tools.bus.next(self.journal.subjects.stream, subject) is not None:
                    return self._learn(exec="there")
            self._refuse(refused)
            await asyncio.sleep(backoff_s(self._facts.starts, 0.1))

    def _refuse(self, error: SandreelError) -> None:
        """Not started: whether another try can do better is for `process` to say."""
        code = error.code if isinstance(error, Refused) else "SESSION_NOT_READY"
        text = str(error) if isinstance(error, Refused) else f"{code}: {error}"
        self._log.info("a start was refused", turn=str(self._name), code=code)
        self._learn(
            exec="absent",
            home=None,
            refused=text,
            refused_id=self.journal.turn.prepared_id,
            starts=self._facts.starts + 1,
        )

    # -- while it runs, and afterwards

    async def _read(self) -> None:
        attempt = self._attempt
        if not self.journal.mine:
            await claim(self.journal)
            await self._conversation(attempt.preparing.incarnation)
            self._tools.measures.took_over()
        found = adapter(attempt.request.agent)
        mailbox = Mailbox(self._tools.client, self.journal, found)
        reading = Reading(
            self._tools.bus,
            self.journal,
            attempt.exec,
            lambda: found.reader(self._thread_usage),
            heard=mailbox.heard,
            progressed=self._tools.measures.events,
        )
        await Running(self._tools.client, self.journal, found, self._launch(), reading, mailbox).run()
        await mailbox.settle()
        self._learn(end=reading.end, complaint=reading.complaint.strip(), home=None)

    async def _finish(self, status: c.TurnStatus, error: str | None) -> None:
        turn = self.journal.turn
        run, preparing, request = turn.run, turn.preparing, turn.request
        if run.agent_session_id is not None and preparing is not None and request is not None:
            conversation = Conversation(
                turn=self._name.turn,
                agent=request.agent,
                incarnation=preparing.incarnation,
                agent_session_id=run.agent_session_id,
                thread_usage=run.thread_usage,
            )
            id = request.conversation_id or self._name.turn
            await self._tools.index.remember(self._name.org, self._name.session, id, conversation)
        known = run.result is not None or not turn.accepted
        usage = turn.usage if known else replace(summed((turn.usage,)), cost_micro_usd=None)
        await self.journal.say(c.TurnFinished(status=status, error=error[:4096] if error else None, usage=usage))
        self._log.info("a turn is finished", turn=str(self._name), status=status)
        self._tools.measures.finished(status)

    async def _fail(self, error: str) -> None:
        waiting = self.journal.turn.waiting
        if waiting:
            await self.journal.say(c.SteerRequeued(message_ids=waiting))
        await self._finish("failed", error)

    async def _settle(self) -> None:
        turn, gateway = self.journal.turn, self._tools.gateway
        if turn.preparing is not None:
            self._drop_key()
        if gateway is not None and turn.keys:
            counted = await settling.revoke(gateway, self._name, turn)
            if counted is not None:
                await settling.reconcile(self._tools.bus, self.journal, counted)
        await settling.open_next(self._tools.client, self._name, turn)
        await self._tools.index.settled(self._name)

    def _waited(self, what: str) -> float:
        """Seconds since we first waited for it."""
        return self._monotonic() - self._waiting_since.setdefault(what, self._monotonic())
