"""Puts runnerd together: presents itself, serves until it is told to end, and leaves nothing unsaid."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from sandreel_core.bus.crew import Crew
from sandreel_core.bus.port import Bus
from sandreel_core.bus.streams import MIN_PAYLOAD_BYTES
from sandreel_core.clock import now
from sandreel_core.contract.boot import BootSettings
from sandreel_core.contract.bootstrap import Bootstrapped, LogHead
from sandreel_core.contract.codec import prepare_for_commands
from sandreel_core.contract.runnerd import Health, KeysTaken
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Denied, Misconfigured, Over
from sandreel_core.log import Log
from sandreel_runnerd import bootstrap, init
from sandreel_runnerd.activity import Activity
from sandreel_runnerd.answers import Answers
from sandreel_runnerd.children import Children
from sandreel_runnerd.commands import Commands
from sandreel_runnerd.env import EnvStore
from sandreel_runnerd.execs import Execs
from sandreel_runnerd.feed import Feed
from sandreel_runnerd.files import Files
from sandreel_runnerd.heartbeat import beat
from sandreel_runnerd.hold import Hold
from sandreel_runnerd.host import Host
from sandreel_runnerd.lease_socket import lend
from sandreel_runnerd.leases import Leases
from sandreel_runnerd.mask import Mask
from sandreel_runnerd.outbox import Outbox
from sandreel_runnerd.passport import Passport
from sandreel_runnerd.programs import Programs
from sandreel_runnerd.root import Root
from sandreel_runnerd.secrets import Secrets
from sandreel_runnerd.service import Service, keep_serving
from sandreel_runnerd.settings import marker
from sandreel_runnerd.spool import Spool, open_spool
from sandreel_runnerd.vitals import Vitals

# Backends grant 20 s between SIGTERM and SIGKILL (design §5). Execs get most of it, their records the rest.
STOP_WITHIN_S = 15.0
FLUSH_WITHIN_S = 2.0
# A boot that was declared dead can record nothing: its execs get SIGKILL as their records fail.
DEAD_WITHIN_S = 3.0

ENDED = 0
DECLARED_DEAD = 3


class Daemon:
    """One boot. `end` may be called from the moment it exists."""

    def __init__(
        self,
        settings: BootSettings,
        bus: Bus,
        children: Children,
        log: Log,
        *,
        passport: Passport | None = None,
        fence: Callable[[], bool] = lambda: False,
        fetch_private: bool = False,
    ) -> None:
        """passport: who it is on a NATS that knows its users by JWTs. fence: see `fence.close`."""
        self._settings = settings
        self._bus = bus
        self._children = children
        self._log = log
        self._passport = passport
        self._fence = fence
        self._fetch_private = fetch_private
        self._subjects = SessionSubjects(settings.org, settings.session, settings.partitions)
        self._activity = Activity()
        self._ended = asyncio.Event()
        self._dead = False
        self._hold: Hold
        self._feed: Feed
        self._execs: Execs
        self._answers: Answers
        self._mask = Mask()
        self._secrets = self._leases = None
        if passport is not None:
            self._secrets = Secrets(bus, self._subjects, passport.sealing, self._mask, log, boot_id=settings.boot_id)
            self._leases = Leases(bus, self._subjects, passport.sealing, self._mask, log, now=now)
        self._vitals = Vitals(bus, settings, self._activity)

    def end(self) -> None:
        """Ask it to leave: execs get SIGTERM, then SIGKILL, and their ends are acknowledged first."""
        self._ended.set()

    async def run(self) -> int:
        """Until the end; the exit code. Raises Misconfigured, Unavailable (no space for the spool)."""
        if self._bus.max_payload < MIN_PAYLOAD_BYTES:
            raise Misconfigured(
                f"the NATS server's max_payload is {self._bus.max_payload} bytes; blocks of output need "
                f"{MIN_PAYLOAD_BYTES}, which is its default"
            )
        try:
            root = Root(self._settings.workspace)
        except OSError as error:
            raise Misconfigured(f"there is no workspace at {self._settings.workspace}: {error.strerror}") from error
        try:
            async with self._spool() as spool:
                if not self._fence():
                    self._log.info("execs may do to this process what its user may: no_new_privs is not set")
                boot = await self._present(root.path)
                if boot is None:
                    return DECLARED_DEAD if self._dead else ENDED
                async with lend(self._leases, self._settings.boot_id, marker(self._settings), self._log) as programs:
                    return await self._serve(boot, root, spool, programs)
        finally:
            root.close()

    def _spool(self) -> AbstractAsyncContextManager[Spool]:
        # Beside the workspace's files: a container's /tmp is memory.
        return open_spool(self._settings.spool_bytes, self._settings.workspace)

    async def _present(self, workspace: str) -> Bootstrapped | None:
        presenting = asyncio.ensure_future(self._become(workspace))
        ending = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({presenting, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not presenting.done():
                return None
            boot = presenting.result()
        except Over as error:
            self._die(error)
            return None
        finally:
            for task in (presenting, ending):
                task.cancel()
            await asyncio.gather(presenting, ending, return_exceptions=True)
        self._log.info("ready", boot_id=self._settings.boot_id, pid1=init.is_init(), epoch=boot.epoch)
        return boot

    async def _become(self, workspace: str) -> Bootstrapped:
        """Present itself, and be from then on who the answer says."""
        passport = self._passport
        keys = passport.public_keys if passport is not None else {}
        boot = await bootstrap.present(self._bus, self._settings, self._log, keys, workspace)
        if passport is not None and boot.user_jwt is not None:
            await passport.take(boot.user_jwt)
        return boot

    async def _serve(self, boot: Bootstrapped, root: Root, spool: Spool, programs: Programs | None) -> int:
        settings, subjects = self._settings, self._subjects
        files = Files(root)
        env = EnvStore(boot.env)
        outbox = Outbox(
            self._bus,
            spool,
            subjects,
            boot_id=settings.boot_id,
            epoch=boot.epoch,
            on_dead=self._die,
            on_log=self._hear_log,
        )
        answers = self._answers = Answers(
            self._bus,
            subjects,
            source=outbox.source,
            epoch=boot.epoch,
            now=now,
            log=self._log,
            workspace_last=boot.workspace_last,
        )
        host = Host(
            workspace=settings.workspace,
            boot_marker=marker(settings),
            base_env=dict(os.environ),
            children=self._children,
            mask=self._mask,
            secrets=self._secrets,
            programs=programs,
        )
        async with outbox.running(), asyncio.TaskGroup() as group, Crew() as crew:
            execs = self._execs = Execs(
                group,
                outbox,
                host,
                answers,
                self._activity,
                boot_id=settings.boot_id,
                limit=boot.limits.execs or settings.max_live_execs,
                log=self._log,
                attended=lambda: self._feed.attended,
            )
            commands = Commands(
                execs,
                env,
                answers,
                self._activity,
                crew,
                now=now,
                log=self._log,
                max_age_s=settings.command_max_age_s,
            )
            feed = self._feed = Feed(
                self._bus,
                subjects,
                boot_id=settings.boot_id,
                after=boot.commands_after,
                take=commands.take,
                log=self._log,
            )
            self._vitals.attach(outbox, execs, feed)
            service = Service(self, files, answers, self._activity, fetch_private=self._fetch_private)
            self._hold = Hold(outbox, execs)
            if boot.hold:
                self._hold.set(True)
            tasks = [
                group.create_task(self._alive(answers.run())),
                group.create_task(self._alive(feed.run(boot.feed))),
                group.create_task(
                    beat(
                        self._bus,
                        subjects.heartbeat(),
                        self._vitals.heartbeat,
                        every_s=settings.heartbeat_s,
                        on_beat=self._look,
                    )
                ),
            ]
            if self._passport is not None:
                tasks.append(group.create_task(self._passport.keep(self._die)))
            serving = [
                group.create_task(keep_serving(self._bus, subjects.request("runnerd", verb), handler, self._log))
                for verb, handler in service.verbs.items()
            ]
            # Whoever waited for the session to be ready is about to send its first.
            asyncio.get_running_loop().call_soon(prepare_for_commands)
            await self._ended.wait()
            await self._leave(feed, execs, answers)
            for task in serving:
                task.cancel()
            await asyncio.wait(serving)
            files.close()
            for task in tasks:
                task.cancel()
        return DECLARED_DEAD if self._dead else ENDED

    async def _leave(self, feed: Feed, execs: Execs, answers: Answers) -> None:
        self._log.info("leaving", live_execs=len(execs.live), dead=self._dead)
        feed.close()
        self._hold.close()
        await execs.stop(DEAD_WITHIN_S if self._dead else STOP_WITHIN_S)
        if not self._dead:
            try:
                async with asyncio.timeout(FLUSH_WITHIN_S):
                    await answers.drained()
            except TimeoutError:
                self._log.error("answers could not be stored")

    async def _alive(self, work: Coroutine[Any, Any, None]) -> None:
        """A part of runnerd that learns when this boot was declared dead."""
        try:
            await work
        except* Over as group:
            self._die(Over(str(group.exceptions[0])))

    def _die(self, error: Denied) -> None:
        if not self._dead:
            self._log.error("this boot was declared dead", problem=str(error))
            self._dead = True
        self._ended.set()

    def _hear_log(self, head: LogHead) -> None:
        restored = head.epoch != self._answers.epoch
        self._answers.epoch = head.epoch
        self._feed.hear(head.commands_last, head.commands_restored_at if restored else None)

    def _look(self) -> None:
        """With every heartbeat, so that nothing else needs a timer."""
        self._vitals.look()
        self._execs.look()

    # `Duties`: what others ask for.

    def health(self) -> Health:
        return self._vitals.health()

    async def drain(self, commands_until: int) -> list[str]:
        await self._feed.drain(commands_until)
        return self._execs.live

    def lift(self) -> None:
        self._feed.lift()

    def hold(self, hold: bool) -> None:
        self._hold.set(hold)

    def forget(self, slug: str) -> None:
        if self._leases is not None:
            self._leases.forget(slug)

    async def keys(self, exec_id: str, offset: int, data: bytes, writer: str | None) -> KeysTaken:
        return await self._execs.keys(exec_id, offset, data, writer)
