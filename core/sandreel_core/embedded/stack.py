"""The whole of sandreel on one machine: servers out of wheels, and every role as a process of its own, kept alive.

What `sandreel up` runs, and what the demo, the fault tests and the bench build on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType

from sandreel_core.embedded import ending, own_servers, pidfile
from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.migrating import migrate
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.embedded.part import Part, Server, Status, harmless
from sandreel_core.embedded.place import Keys, Place, is_free, keep_vault_key, moved, moved_health, open_place, toml
from sandreel_core.embedded.postgres import PostgresServer
from sandreel_core.embedded.process import PYTHON, Process, cut
from sandreel_core.embedded.roster import Roster
from sandreel_core.embedded.secret_file import write_secret
from sandreel_core.embedded.servers import NatsPart, PortTaken, PostgresPart
from sandreel_core.embedded.together import to_the_end, together
from sandreel_core.embedded.wiring import LOOPBACK, Wiring, health_variable
from sandreel_core.errors import Misconfigured, NotFound, SandreelError
from sandreel_core.log import Log
from sandreel_core.settings import CONFIG

# How each role is started.
ROLES = {
    "spawner": "sandreel_core.spawner",
    "projector": "sandreel_projections",
    "broker": "sandreel_bridge.broker",
    "bridge": "sandreel_bridge",
}
NATS, POSTGRES, EGRESS, GATEWAY = "nats", "postgres", "egress", "gateway"

_END_WITHIN_S = 10.0
_BOOTED_AGAIN_S = 5.0
_PORT_ATTEMPTS = 5
_LOGS_EVERY_S = 30.0


class Stack:
    """`async with Stack(data) as stack`: inside, everything is ready; what dies is started again.

    data           where everything is kept; a second stack on it is refused
    environ        whose `SANDREEL_*` variables count (the process's own by default)
    report         hears of every start, death and stop; an OSError of its own does no harm
    stop_sessions  on the way out, end the sessions' boots first (their workspaces stay); else they go on
                   and keep what they have to say until the next stack
    Entering raises Misconfigured for what an operator has to mend, Unavailable when a part does not come up.
    """

    def __init__(
        self,
        data: Path,
        *,
        environ: Mapping[str, str] | None = None,
        report: Callable[[Status], None] = lambda status: None,
        stop_sessions: bool = True,
    ) -> None:
        self.place = Place(data.absolute())
        self.stop_sessions = stop_sessions
        self.parts: dict[str, Part] = {}
        self.hurry = asyncio.Event()
        self._environ = dict(os.environ if environ is None else environ)
        self._roster = Roster(self.place.parts)
        self._report = harmless(self._roster.note, report)
        self._log = Log("stack")
        self._exit = AsyncExitStack()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def entered(self) -> bool:
        return self._keeper is not None

    @property
    def client(self) -> Path:
        """The settings file with which clients find the stack (`SANDREEL_CONFIG`). It names the operator's credentials."""
        return self.place.client

    @property
    def data(self) -> Path:
        return self.place.data

    async def __aenter__(self) -> Stack:
        async with AsyncExitStack() as exit:
            wiring = Wiring.read(self._environ)
            exit.enter_context(open_place(self.data))
            self._roster.begin()
            if self.place.restoring.exists():  # roles would make what is missing, empty
                raise Misconfigured(
                    "a restore was cut short, and streams are missing: run `sandreel backup restore --replace` again"
                )
            keys = self.place.keys()
            servers = await exit.enter_async_context(AsyncExitStack())  # what they need, until they have stopped
            exit.push_async_callback(self._stop_parts)
            await self._start_servers(wiring, keys, servers)
            for name, module in ROLES.items():
                self._add(name, self._role(name, module, wiring))
            await together([self.parts[name].start() for name in ROLES])
            # After the others: the egress proxy's documents are the spawner's to make.
            await together([self.parts[name].start() for name in (EGRESS, GATEWAY) if name in self.parts])
            self._keeper = asyncio.create_task(self._keep(), name="stack")
            exit.push_async_callback(self._stop_keeping)
            exit.push_async_callback(self._stop_sessions, wiring)
            self._exit = exit.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Stopping is bounded, and half of it would leave servers behind: a cancellation waits for its end.
        await to_the_end(self._exit.aclose())

    async def wait(self) -> None:
        """For ever; raises what ended the keeping, which is a bug."""
        if self._keeper is not None:
            await asyncio.shield(self._keeper)

    async def _start_servers(self, wiring: Wiring, keys: Keys, exit: AsyncExitStack) -> None:
        nats: NatsServer | None = None
        postgres = None
        if wiring.embeds_nats and wiring.in_docker:
            # Here, and not above: it loads the engine's SDK.
            from sandreel_core.embedded.nats_container import NatsContainerPart, open_container  # noqa: PLC0415

            port = wiring.settings.nats_port or keys.nats_port
            nats = container = await exit.enter_async_context(open_container(self.place, keys, wiring, port))
            self._add(NATS, NatsContainerPart(container))
        elif wiring.embeds_nats:
            nats = self._nats(keys, wiring)
            self._add(NATS, NatsPart(nats))
        if wiring.embeds_postgres:
            postgres = PostgresServer(self.place.postgres, port=wiring.settings.postgres_port or keys.postgres_port)
            self._add(POSTGRES, PostgresPart(postgres))

        async def database() -> str:
            if postgres is not None:
                await self._start_at_port(POSTGRES, postgres, wiring.settings.postgres_port is not None)
            dsn = postgres.dsn() if postgres is not None else wiring.postgres.dsn
            if dsn is None:
                raise Misconfigured("Postgres is not set: give [postgres] dsn")
            await migrate(self.place, wiring.role_environment(self.place), dsn)
            return dsn

        async def bus() -> None:
            if nats is not None:
                await self._start_at_port(NATS, nats, wiring.settings.nats_port is not None)
            else:
                await own_servers.look_at(wiring.bus)

        dsn, _ = await together([database(), bus()])
        if wiring.embeds_egress:
            await self._prepare_contained(EGRESS, wiring, exit)
        if wiring.embeds_gateway and not wiring.in_docker:
            self._prepare_gateway(wiring)
        else:
            # Of a stack before us, which knew a provider's key or ran it as a process.
            await pidfile.end(self.place.pid(GATEWAY), grace_s=_END_WITHIN_S)
            if wiring.embeds_gateway:
                await self._prepare_contained(GATEWAY, wiring, exit)
        keep_vault_key(self.place.vault_key)
        wiring.write(self.place, self.place.keys(), dsn, egress=EGRESS in self.parts, gateway=GATEWAY in self.parts)

    async def _prepare_contained(self, name: str, wiring: Wiring, exit: AsyncExitStack) -> None:
        from sandreel_core.embedded import role_container as contained  # noqa: PLC0415 - it loads the engine's SDK

        role = contained.egress(wiring) if name == EGRESS else contained.gateway(wiring)
        port = self._health_port(name)
        try:
            opened = contained.open_role(role, self.place, self.place.keys(), wiring, health_port=port)
            self._add(name, await exit.enter_async_context(opened))
        except NotFound as error:
            self._report(Status(name, "stopped", None, str(error)))

    def _prepare_gateway(self, wiring: Wiring) -> None:
        """As a process that sessions of this machine reach on loopback."""
        keys = self.place.keys()
        # It has the port, and is ended before ours starts.
        left_over = pidfile.alive(self.place.pid(GATEWAY)) is not None
        if keys.gateway_port is None or not (left_over or is_free(keys.gateway_port)):
            keys = moved(keys, GATEWAY)
            self.place.keep(keys)
        gateway, (bus, _) = wiring.gateway, wiring.connection(self.place, keys)
        ours = {"listen": f"{LOOPBACK}:{keys.gateway_port}", "state_directory": str(self.place.gateway_state)}
        write_secret(self.place.gateway, toml({"bus": bus, "gateway": {**gateway.table, **ours}}))
        environ = wiring.role_environment(self.place, GATEWAY) | dict(gateway.environ)
        self._add(
            GATEWAY, self._process(GATEWAY, "sandreel_bridge.gateway", environ | {CONFIG: str(self.place.gateway)})
        )

    def _nats(self, keys: Keys, wiring: Wiring) -> NatsServer:
        port = wiring.settings.nats_port or keys.nats_port
        return NatsServer(self.place.nats, port=port, authority=Authority(self.place.identity))

    async def _start_at_port(self, name: str, server: NatsServer | PostgresServer, fixed: bool) -> None:
        """Start it at the port that was kept, at another one when somebody has taken it meanwhile."""
        part = self.parts[name]
        for attempt in range(_PORT_ATTEMPTS):
            part.detail = f"127.0.0.1:{server.port}"
            try:
                await part.start()
                break
            except PortTaken as error:
                if fixed:
                    raise Misconfigured(f"{error}: give [stack] {name}_port another, or leave it out") from error
                if attempt == _PORT_ATTEMPTS - 1:
                    raise
                keys = moved(self.place.keys(), name)
                self.place.keep(keys)
                server.port = keys.nats_port if name == NATS else keys.postgres_port

    def _role(self, name: str, module: str, wiring: Wiring) -> Server:
        return self._process(name, module, wiring.role_environment(self.place, name))

    def _process(self, name: str, module: str, environ: Mapping[str, str]) -> Server:
        return Process(
            name,
            (*PYTHON, module),
            env=environ,
            directory=self.data,
            log=self.place.log(name),
            pid=self.place.pid(name),
            more=lambda: health_variable(self._health_port(name)),
        )

    def _health_port(self, name: str) -> int:
        """The port that was kept for the role's health and metrics; another one when somebody has taken it meanwhile,
        because no role should stay away for that."""
        keys = self.place.keys()
        if name not in keys.health_ports or not is_free(keys.health_ports[name]):
            keys = moved_health(keys, name)
            self.place.keep(keys)
        return keys.health_ports[name]

    def _add(self, name: str, server: Server) -> None:
        self.parts[name] = Part(name, server, self._report)

    async def _keep(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for part in self.parts.values():
                tasks.create_task(part.keep(), name=f"keep-{part.name}")
            tasks.create_task(self._keep_logs_short(), name="logs")

    async def _keep_logs_short(self) -> None:
        while True:
            await asyncio.sleep(_LOGS_EVERY_S)
            for name in (*ROLES, GATEWAY):
                try:
                    await asyncio.to_thread(cut, self.place.log(name))
                except OSError as error:
                    self._log.warning("a log was not cut", part=name, problem=str(error))

    async def _stop_sessions(self, wiring: Wiring) -> None:
        if not self.stop_sessions or self.hurry.is_set():
            return
        stopping = asyncio.ensure_future(self._end_sessions(wiring.settings.stop_sessions_within_s))
        hurried = asyncio.ensure_future(self.hurry.wait())
        try:
            await asyncio.wait((stopping, hurried), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            hurried.cancel()
            results = await asyncio.gather(stopping, hurried, return_exceptions=True)
        if isinstance(results[0], SandreelError):
            self._log.warning("sessions were not stopped", problem=str(results[0]))
        elif isinstance(results[0], Exception):
            raise results[0]

    async def _end_sessions(self, within_s: float) -> None:
        """And those that the bridge has booted again meanwhile, for a turn that was about to begin: nobody is left to end them.
        What has not stopped in time the first time gets no second one, but what was booted a moment ago gets a moment."""
        until = asyncio.get_running_loop().time() + within_s
        await ending.stop_sessions(self.client, within_s=within_s, report=self._report)
        await self.parts["bridge"].hold()
        left_s = max(min(within_s, _BOOTED_AGAIN_S), until - asyncio.get_running_loop().time())
        await ending.stop_sessions(self.client, within_s=left_s, report=self._report)

    async def _stop_keeping(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper

    async def _stop_parts(self) -> None:
        """Roles first, so that no role complains of a server that is gone. One that fails leaves none running."""
        results: list[BaseException | None] = []
        for names in ((*ROLES, EGRESS, GATEWAY), (NATS, POSTGRES)):
            stops = (self.parts[name].stop() for name in names if name in self.parts)
            results += await asyncio.gather(*stops, return_exceptions=True)
        for result in results:
            if result is not None:
                raise result
