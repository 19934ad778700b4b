"""The proxy itself: who comes, what it wants, whether it may, and the two connections that are joined then.

Every connection is one task until its tunnel is over; whatever a stranger can make it wait for has a time limit.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address

from sandreel_core.bus.crew import Crew
from sandreel_core.egress.address import Address, Network, plain
from sandreel_core.egress.decision import (
    ESTABLISHED,
    SLOW,
    UNKNOWN_CLIENT,
    Answer,
    by_address,
    by_name,
    failed,
    malformed,
    not_listed,
    too_long,
    too_many,
)
from sandreel_core.egress.denials import Verdict
from sandreel_core.egress.dial import Lookups, dial, keep_alive
from sandreel_core.egress.measures import EgressMeasures
from sandreel_core.egress.register import Place, Table
from sandreel_core.egress.request import Request, read_request
from sandreel_core.egress.rules import refused_by
from sandreel_core.egress.settings import Settings
from sandreel_core.egress.target import Target
from sandreel_core.egress.tunnel import End, join, until_over
from sandreel_core.errors import Malformed, NotFound, Unavailable
from sandreel_core.log import Log

# How long an address that nobody has yet is waited for: the spawner writes it down before anything runs there, and the
# document needs some milliseconds to come.
PLACE_WAIT_S = 2.0
# To take an answer that says no.
DISMISS_S = 2.0

Dial = Callable[..., Awaitable[End]]
ByAddress = Callable[[Target, Sequence[Address], Iterable[Network]], tuple[Sequence[Address], Answer | None]]


@dataclass(frozen=True, slots=True)
class _Open:
    """A tunnel, for when the rules change under it."""

    client: Address
    place: Place
    target: Target
    near: End
    far: End


class _No(Exception):
    """What the client is told, and on which target; the way out of the steps of one request."""

    def __init__(self, answer: Answer, target: Target | None = None) -> None:
        super().__init__(answer.why)
        self.answer = answer
        self.target = target


class Proxy:
    """One listening proxy. `tell` is given every decision. `by_address` decides on addresses and `dial` dials them: tests
    bring others, to reach servers on loopback."""

    def __init__(
        self,
        settings: Settings,
        table: Table,
        lookups: Lookups,
        measures: EgressMeasures,
        tell: Callable[[Verdict], None],
        *,
        by_address: ByAddress = by_address,
        dial: Dial = dial,
    ) -> None:
        self._settings = settings
        self._also_refused = settings.refused_networks
        self._table = table
        self._lookups = lookups
        self._measures = measures
        self._tell = tell
        self._by_address = by_address
        self._dialled = dial
        self._of_one: Counter[Address] = Counter()
        self._open: set[_Open] = set()
        self._changed = asyncio.Event()
        self._log = Log("egress.proxy")

    def table_changed(self, table: Table) -> None:
        """Decide by this table from now on; tunnels that it does not allow any more are cut."""
        self._table = table
        self._changed.set()
        self._changed = asyncio.Event()
        for tunnel in list(self._open):
            try:
                self._check(tunnel)
            except _No as no:
                self._say(tunnel.place, tunnel.target, no.answer.code, no.answer.why)
                tunnel.near.reset()
                tunnel.far.reset()

    async def serve(self, ready: Callable[[tuple[str, int]], None]) -> None:
        """Listen until cancelled; `ready` is told (host, port). Raises OSError when nothing can listen there."""
        host, _, port = self._settings.listen.rpartition(":")
        loop = asyncio.get_running_loop()
        async with Crew() as crew:
            clients: set[End] = set()

            def accept() -> asyncio.Protocol:
                return _Client(self._settings.max_head_bytes, lambda end: self._accept(crew, clients, end))

            server = await loop.create_server(accept, host.strip("[]"), int(port), backlog=256)
            try:
                ready(server.sockets[0].getsockname()[:2])
                await loop.create_future()
            finally:
                server.close()
                for end in clients:
                    end.abort()

    def _accept(self, crew: Crew, clients: set[End], end: End) -> None:
        if len(clients) >= self._settings.max_connections:
            self._measures.decisions.add("proxy_full")
            end.abort()  # an answer would have to be waited for as well
            return
        clients.add(end)
        self._measures.open.set(len(clients))

        async def attend() -> None:
            try:
                await self._attend(end)
            except Exception:  # noqa: BLE001 - a bug that one connection meets must not end the others'
                self._measures.decisions.add("internal")
                self._log.exception("a connection failed")
            finally:
                end.abort()
                clients.discard(end)
                self._measures.open.set(len(clients))

        crew.start(attend())

    async def _attend(self, end: End) -> None:
        peer = end.transport.get_extra_info("peername")
        if peer is None:
            return  # gone already
        client = plain(ip_address(peer[0].partition("%")[0]))
        keep_alive(end.transport)
        self._of_one[client] += 1
        place: Place | None = None
        try:
            place = await self._place_of(client)
            await self._answer(end, client, place)
        except _No as no:
            target = no.target or Target(str(client), 0)
            self._say(place, target, no.answer.code, no.answer.why, denied=no.answer.denied)
            await end.dismiss(no.answer.encode(), within_s=DISMISS_S)
        finally:
            self._of_one[client] -= 1
            if not self._of_one[client]:
                del self._of_one[client]
                self._lookups.forget(client)

    async def _answer(self, end: End, client: Address, place: Place | None) -> None:
        settings = self._settings
        if self._of_one[client] > settings.max_connections_per_session:
            raise _No(too_many(settings.max_connections_per_session))
        if place is None:
            raise _No(UNKNOWN_CLIENT)
        request = await self._request(end)
        if request is None:
            return
        began = time.monotonic()
        no = by_name(request, self._table.lists, place.org, place.session, plain_http=settings.plain_http)
        if no is not None:
            raise _No(no, request.target)
        far = await self._dial(client, request.target)
        self._measures.connect_s.observe(time.monotonic() - began)
        try:
            await self._join(_Open(client, place, request.target, end, far), request)
        finally:
            far.abort()

    async def _place_of(self, client: Address) -> Place | None:
        """Whose address it is; an address that nobody has is waited for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PLACE_WAIT_S):
                while client not in self._table.places:
                    await self._changed.wait()
        return self._table.places.get(client)

    async def _request(self, end: End) -> Request | None:
        """None: the client has left."""
        try:
            async with asyncio.timeout(self._settings.head_timeout_s):
                head = await end.head(self._settings.max_head_bytes)
        except TimeoutError:
            raise _No(SLOW) from None
        if head is None:
            if end.too_much:
                raise _No(too_long(self._settings.max_head_bytes))
            return None
        try:
            return read_request(head)
        except Malformed as error:
            raise _No(malformed(str(error))) from error

    async def _dial(self, client: Address, target: Target) -> End:
        """A connection to an address that was checked. Raises _No."""
        began = time.monotonic()
        limit_s = self._settings.connect_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                found = [target.address] if target.address else await self._lookups.addresses(target.host, client)
        except TimeoutError:
            why = f"{target.host} could not be looked up within {limit_s:g} s"
            raise _No(failed(HTTPStatus.GATEWAY_TIMEOUT, "unresolved", "dns_timeout", why), target) from None
        except (NotFound, Unavailable) as error:
            raise _No(failed(HTTPStatus.BAD_GATEWAY, "unresolved", "dns_error", str(error)), target) from error
        usable, no = self._by_address(target, found, self._also_refused)
        if no is not None:
            raise _No(no, target)
        try:
            left_s = limit_s - (time.monotonic() - began)
            return await self._dialled(
                usable, target.port, within_s=left_s, max_kept_bytes=self._settings.max_head_bytes
            )
        except Unavailable as error:
            why = f"{target} cannot be reached: {error}"
            raise _No(failed(HTTPStatus.BAD_GATEWAY, "unreachable", "destination_unavailable", why), target) from error

    async def _join(self, tunnel: _Open, request: Request) -> None:
        near, far = tunnel.near, tunnel.far
        self._open.add(tunnel)
        head_bytes, sent_early = near.received_bytes, 0
        try:
            # Both may have changed while the connection was made.
            self._check(tunnel)
            self._say(tunnel.place, tunnel.target, "allowed", "")
            if request.tunnel:
                near.write(ESTABLISHED)
            else:
                far.write(request.head)
            sent_early = len(near.kept)
            join(near, far, room=None if request.tunnel else request.body_bytes)
            if not await until_over(near, far, idle_timeout_s=self._settings.idle_timeout_s):
                self._measures.idle.add()
        finally:
            self._open.discard(tunnel)
            self._measures.up.add(by=near.received_bytes - head_bytes + sent_early)
            self._measures.down.add(by=far.received_bytes)

    def _check(self, tunnel: _Open) -> None:
        """Raises _No for a tunnel that may not be (any more)."""
        place = tunnel.place
        if self._table.places.get(tunnel.client) != place:
            raise _No(UNKNOWN_CLIENT, tunnel.target)
        scope = refused_by(self._table.lists, place.org, place.session, tunnel.target)
        if scope is not None:
            raise _No(not_listed(tunnel.target, scope), tunnel.target)

    def _say(self, place: Place | None, target: Target, code: str, why: str, *, denied: bool = True) -> None:
        self._measures.decisions.add(code)
        owner = place or Place("", "", "")
        self._tell(
            Verdict(
                org=owner.org,
                session=owner.session,
                host=target.host,
                port=target.port,
                code=code,
                why=why,
                denied=denied and bool(why),
            )
        )


class _Client(End):
    """An end that says when it is there."""

    def __init__(self, max_kept_bytes: int, made: Callable[[End], None]) -> None:
        super().__init__(max_kept_bytes)
        self._made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._made(self)
