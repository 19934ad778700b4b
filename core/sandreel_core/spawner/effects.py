"""What reconcile asks for, done: first the backend, then the one event that says so (design §3, outbox).

Every effect loads the session anew and does nothing where the log has moved on; what is hastened does what never
becomes wrong, and finds out before it writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from datetime import datetime

from sandreel_core.contract.message import Event
from sandreel_core.contract.session import Degraded, Destroyed, Failed, Provisioned, Recovered, Stopped
from sandreel_core.errors import AlreadyExists, Conflict, Denied, NotFound, Refused, Unavailable
from sandreel_core.log import Log
from sandreel_core.session import ACTIVE, BOOTING, RUNNING, Session
from sandreel_core.spawner import actions as a
from sandreel_core.spawner import reconcile as r
from sandreel_core.spawner.backend import Backend, BootSpec, Death, Key, Sandbox, boot_id_of, boot_order
from sandreel_core.spawner.boot_terms import BootTerms
from sandreel_core.spawner.journal import Journal, Loaded
from sandreel_core.spawner.overdue import said_again
from sandreel_core.spawner.places import Places
from sandreel_core.spawner.quota import Quota, claim_of
from sandreel_core.spawner.sessions import Known, Record

# Backends grant a runnerd so long after SIGTERM (design §5); one that was never ready has nothing to end.
GRACE_S = 20.0
BOOT_GRACE_S = 2.0


class Effects:
    """Does actions. Raises Unavailable (and what the bus raises) when one has to be tried again."""

    def __init__(
        self,
        backend: Backend,
        journal: Journal,
        quota: Quota,
        terms: BootTerms,
        places: Places | None = None,
        *,
        stop_within_s: float,
    ) -> None:
        """
        places         of addresses, where an egress proxy is to know them
        stop_within_s  how long an end may take until it is said what it waits for, and then again
        """
        self._backend = backend
        self._journal = journal
        self._quota = quota
        self._terms = terms
        self._places = places
        self._stop_within_s = stop_within_s
        # Of sessions that wait for their boot: why the last attempt came to nothing.
        self._waiting: dict[Key, str] = {}
        self._log = Log("spawner.effects")

    async def perform(self, action: a.Action) -> None:
        match action:
            case a.Start():
                await self._start(action.key)
            case a.Adopt():
                await self._provisioned(action.key, action.sandbox)
            case a.Fail():
                await self._fail(action)
            case a.Halt():
                await self._halt(action, await self._journal.load(action.key))
            case a.Remove():
                await self._remove(action, await self._journal.load(action.key))
            case a.Quell():
                await self._quell(action)
            case a.Discard():
                await self._discard(action.key)
            case a.Degrade():
                await self._turn(action.key, action.boot_id, "ready", Degraded(reason=action.reason))
            case a.Recover():
                await self._turn(action.key, action.boot_id, "degraded", Recovered(reason="its heartbeat is back"))
            case a.Sweep():
                raise TypeError("a sweep is done by Sweeper")

    async def hasten(self, action: a.Halt | a.Remove, known: Known) -> bool:
        """As `perform`, by what is known of the session. False: there is something else, look at it first."""
        loaded = Loaded(known.record, known.revision, frozenset())
        try:
            return await (self._halt(action, loaded) if isinstance(action, a.Halt) else self._remove(action, loaded))
        except Conflict:
            return False

    async def put_off(self, key: Key, session: Session, why: str, at: datetime) -> None:
        """What is due of a session cannot be done now. Of one that is to start this is told when it fails; that one cannot be
        ended in time is said in the log, once a reason, with the time until it is said again if it is another one."""
        if session.phase in r.WAITING:
            self._waiting[key] = why
        if said_again(session, why, at, self._stop_within_s) is not None:
            await self._journal.decide(key, lambda record, _: said_again(record.session, why, at, self._stop_within_s))

    # -- starting

    async def _start(self, key: Key) -> None:
        session = await self._session(key)
        if session.phase not in ("requested", "resuming"):
            return
        boot_id = boot_id_of(session.incarnation, session.boot)
        spec = BootSpec(
            key=key,
            incarnation=session.incarnation,
            boot=session.boot,
            fresh=r.never_ready(session),
            profile=session.profile,
            limits=session.limits,
            image=session.image,
            settings=self._terms.settings(key, session),
        )
        try:
            sandbox = await self._backend.create(spec)
        except AlreadyExists as error:
            found = await self._backend.inspect(key)
            if found is not None and found.installation == self._terms.installation and found.status != "dead":
                if found.boot_id == boot_id and found.status == "running":
                    await self._provisioned(key, found)
                return  # another spawner is at it, or an older boot has to be ended first
            await self._failed(key, boot_id, "WORKSPACE_EXISTS", str(error))
        except NotFound as error:
            await self._failed(key, boot_id, "WORKSPACE_MISSING", str(error))
        except Refused as error:
            await self._failed(key, boot_id, error.code, error.message)
        except Unavailable as error:
            self._waiting[key] = str(error)
            raise
        else:
            await self._provisioned(key, sandbox)

    async def _provisioned(self, key: Key, sandbox: Sandbox) -> None:
        if self._places is not None:
            await self._places.give(sandbox)  # before the event: no bootstrap is answered without that, so nothing runs

        async def choose(record: Record, _: frozenset[str]) -> Event | None:
            session = record.session
            due = boot_id_of(session.incarnation, session.boot)
            if session.phase not in ("requested", "resuming") or sandbox.boot_id != due:
                return None
            return Provisioned(
                boot=session.boot,
                boot_id=due,
                backend=self._backend.name,
                ref=sandbox.ref,
                node=sandbox.node,
                fence=sandbox.fence,
                # Read after the load whose revision the append expects: what is refused before is not ours.
                commands_after=await self._journal.commands_last(),
            )

        await self._journal.decide(key, choose)
        self._waiting.pop(key, None)

    # -- ending

    async def _fail(self, action: a.Fail) -> None:
        session = await self._session(action.key)
        if session.phase not in BOOTING:
            return
        try:
            death = await self._confirm(action.key, action.boot_id, session)
        except Unavailable:
            if action.boot_id is not None or session.phase not in r.WAITING:
                raise
            death = Death("exited")  # not confirmed, and of no account: `reconcile._give_up`
        if death is None:
            return
        boot_id = boot_id_of(session.incarnation, session.boot)
        code, message = r.why_failed(action, session, death, self._waiting.get(action.key))
        await self._failed(action.key, boot_id, code, message, stage=action.stage)
        if action.boot_id is not None and r.never_ready(session):
            await self._discard(action.key)

    async def _failed(self, key: Key, boot_id: str, code: str, message: str, stage: str | None = None) -> None:
        async def choose(record: Record, _: frozenset[str]) -> Event | None:
            session = record.session
            if session.phase not in BOOTING or boot_id_of(session.incarnation, session.boot) != boot_id:
                return None
            commands_until = await self._let_go(key, session)
            where = stage or ("resume" if session.phase == "resuming" else "provision")
            return Failed(
                stage="boot" if where == "boot" else "resume" if where == "resume" else "provision",
                code=code,
                message=message[:4096],
                commands_until=commands_until,
            )

        await self._journal.decide(key, choose)
        self._waiting.pop(key, None)

    async def _halt(self, action: a.Halt, known: Loaded) -> bool:
        """False: something is there that the caller did not know of."""
        session = known.record.session
        if session.phase not in (*RUNNING, "stopping"):
            return True
        boot_id = boot_id_of(session.incarnation, session.boot)
        death = action.death or await self._confirm(action.key, action.boot_id, session)
        if death is None:
            return False

        async def choose(record: Record, _: frozenset[str]) -> Event | None:
            current = record.session
            if current.phase not in (*RUNNING, "stopping") or boot_id_of(current.incarnation, current.boot) != boot_id:
                return None
            reason = (current.stop_reason or "asked") if current.phase == "stopping" else death.cause
            return Stopped(reason=reason, commands_until=await self._let_go(action.key, current))

        await self._journal.decide(action.key, choose, known=known)
        return True

    async def _remove(self, action: a.Remove, known: Loaded) -> bool:
        """False: as of `_halt`. Raises Conflict."""
        session = known.record.session
        if session.phase != "destroying":
            return True
        if (action.death or await self._confirm(action.key, action.boot_id, session)) is None:
            return False
        with suppress(Denied):  # another installation's: nothing of ours is there to be deleted
            await self._destroy(action.key, session)

        async def choose(record: Record, _: frozenset[str]) -> Event | None:
            if record.session.phase != "destroying" or record.session.incarnation != session.incarnation:
                return None
            return Destroyed(commands_until=await self._let_go(action.key, record.session))

        await self._journal.decide(action.key, choose, known=known)
        self._waiting.pop(action.key, None)
        return True

    async def _quell(self, action: a.Quell) -> None:
        session = await self._session(action.key)
        current = (session.incarnation, session.boot)
        if session.phase in ACTIVE and boot_order(action.boot_id) >= current:
            return
        self._log.warning("a boot runs that the log says is over", session=str(action.key), boot=action.boot_id)
        try:
            await self._backend.stop(action.key, action.boot_id, grace_s=BOOT_GRACE_S)
        except NotFound:
            return

    async def _discard(self, key: Key) -> None:
        session = await self._session(key)
        if session.phase != "destroyed" and not (session.phase == "failed" and r.never_ready(session)):
            return
        try:
            await self._destroy(key, session)
        except Conflict:
            return

    async def _destroy(self, key: Key, session: Session) -> None:
        boot_id = boot_id_of(session.incarnation, session.boot)
        await self._backend.destroy(key, installation=self._terms.installation, boot_id=boot_id)

    async def _confirm(self, key: Key, boot_id: str | None, session: Session) -> Death | None:
        """The boot's death. None: something is there that the caller did not know of, look again.

        Raises Unavailable when it cannot be confirmed now.
        """
        if boot_id is None:
            return await self._absent(key)
        grace_s = GRACE_S if session.phase not in BOOTING else BOOT_GRACE_S
        if session.phase in ("stopping", "destroying") and session.contract_version == 0:
            grace_s = BOOT_GRACE_S
        try:
            return await self._backend.stop(key, boot_id, grace_s=grace_s)
        except NotFound:
            # Another spawner may have ended it and started the next, which is not the one that was to be ended.
            return await self._absent(key)

    async def _absent(self, key: Key) -> Death | None:
        """The death of a boot that the backend does not have; None when it has one of ours that is not dead."""
        found = await self._backend.inspect(key)
        foreign = found is not None and found.installation != self._terms.installation
        if found is None:
            return Death("killed")  # somebody has removed it: nothing that ends by itself leaves no trace
        return Death("exited") if foreign or found.status == "dead" else None

    async def _let_go(self, key: Key, session: Session) -> int:
        """Before the event: the boot is confirmed dead, and whoever reads the event finds the slot free. CMD's last
        sequence, up to which commands were the boot's."""
        releases: list[Awaitable[None]] = []
        if self._places is not None:
            releases.append(self._places.take(key, boot_id_of(session.incarnation, session.boot)))
        claim = claim_of(key, session, self._backend.node)
        if claim is not None:
            releases.append(self._quota.release(claim))
        # Asked for behind the load whose revision the append expects, as `choose` is.
        commands_last, _ = await asyncio.gather(self._journal.commands_last(), asyncio.gather(*releases))
        return commands_last

    async def _turn(self, key: Key, boot_id: str, phase: str, event: Event) -> None:
        def choose(record: Record, _: frozenset[str]) -> Event | None:
            return event if (record.session.phase, record.session.boot_id) == (phase, boot_id) else None

        await self._journal.decide(key, choose)

    async def _session(self, key: Key) -> Session:
        return (await self._journal.load(key)).record.session
