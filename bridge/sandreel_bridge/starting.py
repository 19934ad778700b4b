"""The steps of a turn before its program runs: a home, the intent, the key, the start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from time import monotonic
from typing import Any

from msgspec.structs import replace

from sandreel_bridge import grants, launching, sandbox
from sandreel_bridge.adapters.adapter import Launch
from sandreel_bridge.adapters.table import adapter
from sandreel_bridge.attempt import Attempt
from sandreel_bridge.gateway.port import Gateway, KeyTerms, key_name
from sandreel_bridge.index import Conversation
from sandreel_bridge.journal import Journal
from sandreel_bridge.process import ExecPlace, Home
from sandreel_bridge.tools import Tools
from sandreel_core.client import Files
from sandreel_core.client.turn_reading import data_of
from sandreel_core.clock import now
from sandreel_core.contract import turn as c
from sandreel_core.contract.exec import Lost
from sandreel_core.contract.session import WORKSPACE
from sandreel_core.contract.subjects import CMD
from sandreel_core.errors import Conflict, Malformed, NotFound, Refused, SandreelError, Unavailable
from sandreel_core.log import Log
from sandreel_core.turn import exec_of, summed

# So long the gateway, or a session that gets ready, is waited for: then the turn fails, and says why.
GATEWAY_WITHIN_S = 30.0
HOME_WITHIN_S = 600.0
NO_GATEWAY = "NO_GATEWAY: no gateway is configured, so that nothing could meter and refuse what the turn spends"


class Hopeless(SandreelError):
    """The turn cannot be run, and trying again does not help. The message is for whoever asked for it."""


class Starting:
    """Of one turn. Every method may be called again by a successor: what it makes is named after the turn and its attempt.

    All raise Unavailable; `thread_usage`: what the conversation has used before, once that was looked for.
    """

    def __init__(self, tools: Tools, journal: Journal, *, monotonic: Callable[[], float] = monotonic) -> None:
        self._tools = tools
        self._journal = journal
        self._name = journal.name
        self._monotonic = monotonic
        self._log = Log("bridge.turn")
        self._waiting_since: dict[str, float] = {}
        self.thread_usage: c.Usage | None = None

    @property
    def attempt(self) -> Attempt:
        return Attempt.of(self._name, self._journal.turn)

    @property
    def request(self) -> c.TurnRequested:
        request = self._journal.turn.request
        if request is None:
            raise LookupError(f"nobody has asked for turn {self._name}")  # `process` leaves it then
        return request

    async def where_is_exec(self) -> ExecPlace:
        subjects, bus, attempt = self._journal.subjects, self._tools.bus, self.attempt
        first = await bus.next(subjects.stream, subjects.exec(attempt.exec))
        if first is not None:
            return _place_by(data_of(first))
        start = subjects.command("runnerd", attempt.start_id)
        return "absent" if await bus.last(CMD, start) is None else "sent"

    async def make_home(self) -> None:
        """One step nearer to a session that is ready, or none where the turn is to end. Raises Hopeless."""
        home = await sandbox.look(self._tools.client, self._name)
        making = sandbox.make(self._tools.client, self._name, home, self.request.owner, self.request.profile)
        try:
            await self._unless_interrupted(making)
            self._waiting_since.pop("home", None)
        except Refused as refused:
            raise Hopeless(str(refused)) from refused
        except Unavailable as error:
            if self._waited("home") > HOME_WITHIN_S:
                raise Hopeless(f"the session did not get ready: {error}") from error
            raise

    async def prepare(self, attempt: int, home: Home | None) -> None:
        """Write the intent down. Fail closed: not before the gateway has said that it enforces what the org may. Raises
        Hopeless, Conflict."""
        gateway, request = self._tools.gateway, self.request
        if gateway is None or home is None:
            raise Hopeless(NO_GATEWAY)
        model = await self._model(gateway, request.model)
        budget = await self._left(gateway, request.budget_micro_usd or self._tools.settings.budget_micro_usd)
        before = await self.conversation(home.session.incarnation)
        await self._journal.say(
            c.TurnPreparing(
                attempt=attempt,
                exec=exec_of(self._name.turn, attempt),
                incarnation=home.session.incarnation,
                model=model,
                workspace=home.session.workspace if home.session.workspace != WORKSPACE else None,
                agent_session_id=before.agent_session_id if before is not None else None,
                budget_micro_usd=budget,
            )
        )

    async def _left(self, gateway: Gateway, budget_micro_usd: int) -> int:
        """Of the turn's budget, after the attempts before, whose keys end here: what these hold is free for the next one.
        Raises Hopeless when they have spent it, Unavailable."""
        for incarnation, attempt in self._journal.turn.keys:
            name = key_name(self._name.org, self._name.session, incarnation, self._name.turn, attempt)
            standing = await gateway.revoke(name)
            budget_micro_usd -= standing.charged_micro_usd if standing is not None else 0
        if budget_micro_usd < 1:
            raise Hopeless("BUDGET_SPENT: the attempts before have spent the turn's budget")
        return budget_micro_usd

    async def _model(self, gateway: Gateway, asked: str | None) -> str:
        try:
            models = await gateway.enforce(self._name.org, adapter(self.request.agent).dialect)
        except Refused as refused:
            raise Hopeless(str(refused)) from refused
        except Unavailable as error:
            if self._waited("gateway") > GATEWAY_WITHIN_S:
                raise Hopeless(f"NO_GATEWAY: the gateway does not confirm that it enforces: {error}") from error
            raise
        self._waiting_since.pop("gateway", None)
        model = asked or (models[0] if models else None)
        if model is None or model not in models:
            known = ", ".join(models) or "the org's, which has none"
            raise Hopeless(f"MODEL_NOT_ALLOWED: model {model} is none of {known}")
        return model

    async def conversation(self, incarnation: int) -> Conversation | None:
        """Where it stands, if it is of the same agent and of this life of the session: another one has nothing to resume."""
        request, name = self.request, self._name
        found = await self._tools.index.conversation(name.org, name.session, request.conversation_id or name.turn)
        goes_on = found is not None and (found.agent, found.incarnation) == (request.agent, incarnation)
        if found is None or not goes_on or found.agent_session_id is None or found.turn == name.turn:
            self.thread_usage = c.Usage()
            return None
        self.thread_usage = found.thread_usage
        return found

    async def launch(self, *, runs: bool = False) -> Launch:
        """How its program is started. Raises Hopeless for what the agent cannot do, and for a prompt that is gone; of a program that
        `runs` it is not needed any more."""
        settings, attempt = self._tools.settings, self.attempt
        spec = launching.run_spec(attempt, gateway_url=settings.gateway_url or "", browser=settings.browser)
        digest = attempt.request.prompt_object
        try:
            if digest is not None:
                spec = replace(spec, prompt=await self._tools.prompts.read(self._name.org, digest))
            launch = launching.launch_of(attempt.request.agent, spec)
        except Malformed as error:
            raise Hopeless(f"BAD_REQUEST: {error}") from error
        except NotFound as error:
            if not runs:
                raise Hopeless(f"PROMPT_NOT_FOUND: {error}") from error
            launch = replace(launching.launch_of(attempt.request.agent, spec), stdin=b"")
        return replace(launch, argv=[settings.program(launch.argv[0]), *launch.argv[1:]])

    @property
    def has_key(self) -> bool:
        """Whether the attempt's key is at hand."""
        return self._tools.keys.holds(self._name.org, self._name.session, self.attempt.exec)

    async def start(self, home: Home | None, *, pending: bool) -> ExecPlace:
        """Until runnerd has accepted its exec ("there"), or its boot was closed without ("lost"). `pending`: as in `process.Facts`. Raises
        Refused when it is not started, Hopeless, Conflict when it is not ours any more."""
        launch, name = await self.launch(), self._name
        files = self._tools.client.files(name.org, name.session)
        making = (
            self._mint(home, pending=pending),
            launching.prepare_files(files, launch),
            self._place(files),
            self._grant(),
        )
        for failed in await asyncio.gather(*making, return_exceptions=True):
            if isinstance(failed, BaseException):
                raise self._not_started(failed) from failed
        self._waiting_since.pop("start", None)
        return await self._ask(launch)

    async def await_start(self) -> ExecPlace:
        """The command is in the log already, so that sending it only asks for its answer. As `start`."""
        return await self._ask(await self.launch())

    def _not_started(self, error: BaseException) -> BaseException:
        if isinstance(error, Unavailable) and self._waited("start") > GATEWAY_WITHIN_S:
            return Hopeless(f"it could not be started: {error}")
        if isinstance(error, SandreelError) and not isinstance(error, Refused | Unavailable | Hopeless | Conflict):
            return Refused("SESSION_NOT_READY", str(error))  # nobody serves its files: it is going away
        return error

    async def _place(self, files: Files) -> None:
        if not await self._unless_interrupted(launching.place(files, self.request.attachments)):
            raise Refused("INTERRUPTED", "the turn is to end")

    async def _unless_interrupted(self, work: Coroutine[Any, Any, None]) -> bool:
        """Whether it was done. What may take minutes (a session that boots, files from elsewhere) is given up as soon as somebody has
        the turn ended, and whoever pressed stop does not wait for it."""
        doing, stopped = asyncio.ensure_future(work), asyncio.ensure_future(self._interrupted())
        try:
            await asyncio.wait((doing, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                return False
            doing.result()
            return True
        finally:
            for task in (doing, stopped):
                task.cancel()
            await asyncio.gather(doing, stopped, return_exceptions=True)

    async def _interrupted(self) -> None:
        while not self._journal.turn.interrupting:
            self._journal.changed.clear()
            await self._journal.changed.wait()

    async def _grant(self) -> None:
        asked = self._journal.turn.asked
        if self.request.grants and asked is not None:
            await grants.grant(self._tools.client, self._name, self.request.grants, asked, self._log)

    async def _mint(self, home: Home | None, *, pending: bool) -> None:
        """The attempt's key. Those before it are ended first, since each holds a budget, unless one of them may still be used."""
        name, attempt, gateway = self._name, self.attempt, self._tools.gateway
        if gateway is None:
            raise Hopeless(NO_GATEWAY)
        preparing, asked = attempt.preparing, self._journal.turn.asked
        ended = [await gateway.revoke(each) for each in attempt.keys[:-1]] if not pending else []
        used = summed(standing.usage for standing in ended if standing is not None).cost_micro_usd or 0
        budget_micro_usd = preparing.budget_micro_usd or self._tools.settings.budget_micro_usd
        owner = home.session.owner if home is not None else None
        user = owner.id if owner is not None and owner.type == "user" else asked.actor if asked else None
        terms = KeyTerms(
            org=name.org,
            session=name.session,
            turn=name.turn,
            user=user,
            models=(preparing.model,) if preparing.model else (),
            budget_micro_usd=max(1, budget_micro_usd - used),
            expires_at=now() + timedelta(seconds=self._tools.settings.key_ttl_s),
            correlation_id=attempt.correlation_id,
        )
        key = await gateway.mint(attempt.key, terms)
        await self._end_if_late(gateway, attempt)
        self._tools.keys.hold(name.org, name.session, attempt.exec, key.value, lambda: self._gate(attempt.exec))

    async def _end_if_late(self, gateway: Gateway, attempt: Attempt) -> None:
        """A bridge that was halted before it made the key may go on when its turn is another's, or over and settled: nobody else would end
        the key then before the scan for orphans. Raises Conflict."""
        await self._journal.catch_up()
        turn = self._journal.turn
        if not self._journal.mine or turn.phase == "finished" or turn.prepared_id != attempt.id:
            await gateway.revoke(attempt.key)
            raise Conflict(f"turn {self._name} went on without us")

    async def _gate(self, exec: str) -> str | None:
        """An interrupt that is in the log before the key is given out wins: then no exec starts. Raises NotFound for a turn that another
        bridge prepares by now: it has a key of its own for it."""
        await self._journal.catch_up()
        turn = self._journal.turn
        if not self._journal.mine:
            raise NotFound("another bridge starts the turn")
        starts = turn.phase != "finished" and not turn.accepted and not turn.interrupting
        if not starts or turn.preparing is None or turn.preparing.exec != exec:
            return None
        home = await sandbox.look(self._tools.client, self._name)
        return home.session.public_keys.get("seal")

    async def _ask(self, launch: Launch) -> ExecPlace:
        try:
            return _place_by((await launching.start(self._tools.client, self.attempt, launch)).data)
        except Refused as refused:
            # A start of the same exec that was sent under another id has been answered: it runs, or never will.
            if refused.code != "DUPLICATE_EXEC" or (place := await self.where_is_exec()) not in ("there", "lost"):
                raise
            return place

    def _waited(self, what: str) -> float:
        """Seconds since we first waited for it, after it was there last."""
        return self._monotonic() - self._waiting_since.setdefault(what, self._monotonic())


def _place_by(first: object) -> ExecPlace:
    """By what an exec's log begins with: a start that the spawner closed with the boot that should have read it ran nowhere (design §3)."""
    return "lost" if isinstance(first, Lost) and first.last_n == 0 else "there"
