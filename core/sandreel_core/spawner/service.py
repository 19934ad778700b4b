"""The spawner, put together: who reads what, and the loop that makes log and backend agree."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial

from sandreel_core.bus import installed
from sandreel_core.bus.measures import CommandMeasures
from sandreel_core.bus.port import Bus
from sandreel_core.bus.streams import SPAWNER_REFUSALS
from sandreel_core.clock import now
from sandreel_core.contract.message import Envelope
from sandreel_core.egress.register import documents
from sandreel_core.errors import Denied, SandreelError, Unavailable
from sandreel_core.health import Health
from sandreel_core.log import Log
from sandreel_core.metrics import Metrics
from sandreel_core.session import ACTIVE, BOOTING, Session
from sandreel_core.spawner import actions as a
from sandreel_core.spawner import reconcile as r
from sandreel_core.spawner.agenda import Agenda
from sandreel_core.spawner.backend import Backend, Key, Sandbox
from sandreel_core.spawner.boot_terms import BootTerms
from sandreel_core.spawner.bootstrap import Desk
from sandreel_core.spawner.closing import Closing
from sandreel_core.spawner.commands import Limits, commands
from sandreel_core.spawner.effects import Effects
from sandreel_core.spawner.heads import Heads
from sandreel_core.spawner.hold import TICK_S, Holding
from sandreel_core.spawner.home import settle_at
from sandreel_core.spawner.journal import Journal
from sandreel_core.spawner.measures import SpawnerMeasures
from sandreel_core.spawner.places import Places
from sandreel_core.spawner.pulse import Pulse
from sandreel_core.spawner.quota import Claim, Quota, Quotas, claim_of, claims, slots
from sandreel_core.spawner.refusals import Refusals
from sandreel_core.spawner.sessions import Known, Sessions
from sandreel_core.spawner.sweep import Sweeper

AT_REST = ("stopped", "destroyed")
UNDER_WAY = (*BOOTING, "stopping", "destroying")
PULSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How this spawner works. `rules` names the node and the installation. `places`: an egress proxy is told whose
    address is whose. `roles`: those that answer commands for themselves; to all others the spawner says that there is none."""

    terms: BootTerms
    rules: r.Rules
    limits: Limits = field(default_factory=Limits)
    quotas: Quotas = field(default_factory=Quotas)
    replicas: int = 1
    sweep_s: float = 60
    places: bool = False
    roles: frozenset[str] = frozenset()


class Spawner:
    """One spawner; `run` is its whole life. Any number of them may serve one installation."""

    def __init__(
        self,
        bus: Bus,
        backend: Backend,
        plan: Plan,
        *,
        health: Health | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        partitions = plan.terms.partitions
        self._bus = bus
        self._backend = backend
        self._plan = plan
        self._source = f"/spawner/{plan.rules.node}"
        self._sessions = Sessions(bus, partitions)
        self._heads = Heads(bus)
        self._quota = Quota(bus, plan.quotas)
        self._commands = CommandMeasures(metrics := metrics or Metrics())
        self._reactor = commands(
            bus,
            self._quota,
            plan.limits,
            node=plan.rules.node,
            source=self._source,
            partitions=partitions,
            command_max_age_s=plan.terms.command_max_age_s,
            measures=self._commands,
        )
        self._journal = Journal(bus, source=self._source, partitions=partitions, appended=self._learn)
        self._closing = Closing(bus, self._journal, self._heads, installation_key=plan.terms.key)
        self._places = Places(bus, plan.rules.installation) if plan.places else None
        within_s = plan.limits.stop_within_s
        self._effects = Effects(backend, self._journal, self._quota, plan.terms, self._places, stop_within_s=within_s)
        self._sweeper = Sweeper(bus, self._journal, self._heads, stop_within_s=within_s)
        self._holding = Holding(bus, self._journal, self._sessions, partitions)
        self._pulse = Pulse(bus)
        self._log = Log("spawner")
        self._measures = SpawnerMeasures(
            metrics, bus, self._sessions, self._pulse, self._holding, health=health, late_s=plan.rules.late_s
        )

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve for ever; `ready` is called when the log has been read and the first sweep is done."""
        plan = self._plan
        await self._bus.ensure([slots(replicas=plan.replicas), documents(replicas=plan.replicas)])
        try:
            await installed.declare(self._bus, plan.roles)
        except Denied as error:  # a NATS user made by a version before
            self._log.warning("roles are not told whether they are installed", problem=str(error))
        if self._backend.single_node:
            await settle_at(self._bus, plan.rules.node)
        desk = Desk(
            self._bus,
            self._journal,
            self._sessions,
            self._heads,
            key=plan.terms.key,
            partitions=plan.terms.partitions,
            holding=self._holding.is_full,
            issuer=plan.terms.issuer,
        )
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            agenda = Agenda(group, self._log)
            group.create_task(self._sessions.run(), name="sessions")
            await self._sessions.caught_up()
            await self._closing.remember()
            # At once, because who boots is told whether to hold, and a hold of the spawner before us is lifted.
            group.create_task(self._every(TICK_S, self._holding.tick, at_once=True), name="hold")
            group.create_task(self._every(TICK_S, self._measures.tick, at_once=True), name="streams")
            await desk.open(stack)
            await stack.enter_async_context(self._bus.listen("hb.*.*", self._pulse.hear))
            group.create_task(self._reactor.run(), name="commands")
            refusals = Refusals(
                self._bus, SPAWNER_REFUSALS, self._journal, self._sessions, self._commands, roles=plan.roles
            )
            group.create_task(refusals.run(), name="refusals")
            group.create_task(self._watch(agenda), name="watch")
            group.create_task(self._follow_changes(agenda), name="changes")
            group.create_task(self._sweep(agenda, ready), name="sweep")
            group.create_task(self._every(PULSE_S, self._check_pulse(agenda)), name="pulse")
            await self._settle_changes(agenda)

    # -- what wakes us

    async def _watch(self, agenda: Agenda) -> None:
        async with aclosing(self._backend.watch()) as ended:
            async for key in ended:
                agenda.touch(key, "ended")

    async def _follow_changes(self, agenda: Agenda) -> None:
        while True:
            await self._sessions.changed()
            agenda.wake()

    async def _every(
        self, period_s: float, work: Callable[[], Coroutine[None, None, None]], *, at_once: bool = False
    ) -> None:
        """Again and again, with some jitter. What fails is tried again next time."""
        wait_s = 0.0 if at_once else period_s
        while True:
            await asyncio.sleep(wait_s * random.uniform(0.9, 1.1))  # noqa: S311 - no secret hangs on it
            wait_s = period_s
            try:
                await work()
            except SandreelError as error:
                self._log.warning("a tick failed", work=getattr(work, "__name__", "tick"), problem=str(error))

    def _learn(self, subject: str, event: Envelope, expected: int, sequence: int) -> None:
        self._reactor.learn(subject, event, expected, sequence)
        self._sessions.learn(subject, event, expected, sequence)

    # -- the loop

    async def _settle_changes(self, agenda: Agenda) -> None:
        """Consider every session that changed, as soon as it did."""
        while True:
            dirty, ended = await agenda.due()
            for key in dirty | ended | self._sessions.take_changed():
                self._close(agenda, key)
                # Whoever says of a session that it rests has seen that nothing of it runs, and what has ended is no more.
                if key in dirty or self._sessions.get(key).session.phase not in AT_REST:
                    agenda.begin(key, partial(self._consider, key), mark="dirty" if key in dirty else "ended")

    async def _consider(self, key: Key) -> bool:
        """Look at one session and do what is due; whether to look again. Raises Unavailable when something is due and cannot
        be done."""
        try:
            return await self._look(key)
        except Unavailable as error:
            await self._effects.put_off(key, self._sessions.get(key).session, str(error), now())
            raise

    async def _look(self, key: Key) -> bool:
        known = self._sessions.get(key)
        hasty = r.hasten(key, known.session, self._plan.rules) if self._backend.exclusive_names else None
        if hasty is not None and await self._effects.hasten(hasty, known):
            return True
        found: list[Sandbox] | None = None
        silence: Unavailable | None = None
        try:
            sandbox = await self._backend.inspect(key)
            found = [] if sandbox is None else [sandbox]
        except Unavailable as error:
            silence = error
            self._measures.backend_lost()
        actions = r.reconcile({key: known.session}, found, self._pulse.beats(), now(), self._plan.rules)
        again = await self._act(key, actions)
        # Whoever runs or rests is looked at by the sweep; who waits for the backend is not left to that.
        if silence is not None and not again and known.session.phase in UNDER_WAY:
            raise silence
        return again

    def _close(self, agenda: Agenda, key: Key) -> None:
        """Close what ended of a session, if that is due: in a task of its own too, for which nothing else waits."""
        if not self._closing.is_due(key, self._sessions.get(key).record):
            return

        async def close() -> bool:
            # The next boot may be over as well by then.
            while self._closing.is_due(key, record := self._sessions.get(key).record):
                await self._closing.close(key, record)
            return False

        agenda.begin(key, close, mark=None, what="closing")

    async def _act(self, key: Key, actions: Sequence[a.Action]) -> bool:
        """Do them; whether to look again."""
        again = False
        for action in actions:
            if isinstance(action, a.Sweep):
                await self._sweeper.sweep(action)
            else:
                self._log.info("reconcile", session=str(key), action=type(action).__name__.lower())
                await self._effects.perform(action)
                again = True
        return again

    async def _sweep(self, agenda: Agenda, ready: Callable[[], None]) -> None:
        """Everything at once, at the start and then every `sweep_s`."""
        first = True
        while True:
            known, read_at = self._sessions.snapshot(), now()
            try:
                await self._sweep_once(agenda, known)
            except SandreelError as error:
                self._log.warning("a sweep failed", problem=str(error))
            if first:
                first = False
                ready()
            try:
                await self._quota.settle(self._claims(known), read_at)
            except SandreelError as error:
                self._log.warning("the slots were not settled", problem=str(error))
            if self._places is not None:
                try:
                    await self._places.settle(self._backend)
                except SandreelError as error:
                    self._log.warning("the places were not settled", problem=str(error))
            await asyncio.sleep(self._plan.sweep_s * random.uniform(0.9, 1.0))  # noqa: S311 - no secret hangs on it

    async def _sweep_once(self, agenda: Agenda, known: Mapping[Key, Known]) -> None:
        # The sessions first, then the backend: what reconcile relies on.
        found: Sequence[Sandbox] | None
        try:
            found = await self._backend.list()
            self._measures.backend_found()
        except Unavailable as error:
            self._log.warning("the backend cannot be asked", problem=str(error))
            self._measures.backend_lost()
            found = None
        sessions: dict[Key, Session] = {key: entry.session for key, entry in known.items()}
        heard_s = self._pulse.tick()
        actions = r.reconcile(
            sessions, found, self._pulse.beats(), now(), self._plan.rules, heard_s=heard_s, sweep=True
        )
        for action in actions:
            agenda.begin(action.key, partial(self._act, action.key, [action]))
        for key in known:
            self._close(agenda, key)

    def _claims(self, known: Mapping[Key, Known]) -> dict[str, Claim]:
        """What the active sessions hold, by holder."""
        node = self._plan.rules.node
        active = [(key, entry.session) for key, entry in known.items() if entry.session.phase in ACTIVE]
        return claims(claim for key, session in active if (claim := claim_of(key, session, node)) is not None)

    def _check_pulse(self, agenda: Agenda) -> Callable[[], Coroutine[None, None, None]]:
        async def check() -> None:
            heard_s = self._pulse.tick()
            sessions, beats = self._sessions.running(), self._pulse.beats()
            for action in r.reconcile(sessions, None, beats, now(), self._plan.rules, heard_s=heard_s):
                agenda.begin(action.key, partial(self._act, action.key, [action]), mark=None)

        return check
