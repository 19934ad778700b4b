"""Names to addresses, and a connection to exactly the address that was checked. Decides nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address

from sandreel_core.egress.address import Address
from sandreel_core.egress.tunnel import End
from sandreel_core.errors import NotFound, Unavailable

# Blocking. Raises NotFound when the name has no address, Unavailable when nobody can say.
LookUp = Callable[[str], Sequence[Address]]

# `getaddrinfo` blocks, so each look-up has a thread for as long as it takes; one that nobody waits for any more still has.
LOOKUPS = 32
# Of one client, so that its slow names do not keep the others waiting.
LOOKUPS_OF_ONE = 8
# Of the addresses of one name.
MAX_ADDRESSES = 8
# A dead peer of a tunnel that says nothing is noticed after 60 + 6 × 10 s, well before an idle time-out.
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 6))


class Lookups:
    """The threads that look names up. Open it with `lookups()`."""

    def __init__(self, pool: ThreadPoolExecutor, look_up: LookUp) -> None:
        self._pool = pool
        self._look_up = look_up
        self._free = asyncio.Semaphore(LOOKUPS)
        self._of_one: dict[Address, asyncio.Semaphore] = {}
        self._running: Counter[Address] = Counter()

    async def addresses(self, name: str, client: Address) -> Sequence[Address]:
        """In the order in which the system prefers them (RFC 6724). Raises as `LookUp`."""
        mine = self._of_one.setdefault(client, asyncio.Semaphore(LOOKUPS_OF_ONE))
        with ExitStack() as held:
            for semaphore in (mine, self._free):
                await semaphore.acquire()
                held.callback(semaphore.release)
            look = asyncio.get_running_loop().run_in_executor(self._pool, self._look_up, name)
            self._running[client] += 1
            held.callback(self._running.subtract, [client])
            release = held.pop_all()
        # A thread cannot be stopped: whoever gives up does not get its place back before it has ended.
        look.add_done_callback(lambda done: _end(done, release))
        return await asyncio.shield(look)

    def forget(self, client: Address) -> None:
        """The client has no connection any more. One whose look-ups still run keeps its share, or it would get another."""
        if self._running[client] <= 0:
            self._of_one.pop(client, None)
            del self._running[client]


@contextmanager
def lookups(look_up: LookUp | None = None) -> Iterator[Lookups]:
    """With the system's resolver, unless another is given. Threads that are stuck do not keep the process."""
    pool = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")
    try:
        yield Lookups(pool, look_up or system)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _end(look: asyncio.Future[Sequence[Address]], release: ExitStack) -> None:
    if not look.cancelled():
        look.exception()  # whoever asked may be gone
    release.close()


def system(name: str) -> Sequence[Address]:
    """The machine's resolver. The dot at the end keeps search domains of the proxy's own machine out."""
    try:
        found = socket.getaddrinfo(f"{name}.", None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            raise NotFound(f"{name} has no address") from error
        raise Unavailable(f"{name} cannot be looked up now") from error
    except (OSError, UnicodeError) as error:
        raise NotFound(f"{name} cannot be looked up") from error
    return list(dict.fromkeys(ip_address(each[4][0]) for each in found))[:MAX_ADDRESSES]


async def dial(addresses: Sequence[Address], port: int, *, within_s: float, max_kept_bytes: int) -> End:
    """The first of these that answers, one after the other. Raises Unavailable, with what the last of them said.

    An address is dialled as a number: nothing looks a name up again between check and use.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    problem = "no answer"
    for number, address in enumerate(addresses):
        left_s = deadline - loop.time()
        try:
            async with asyncio.timeout(max(0.0, left_s) / (len(addresses) - number)):
                transport, end = await loop.create_connection(lambda: End(max_kept_bytes), str(address), port)
        except TimeoutError:
            problem = f"no answer within {within_s:g} s"
            continue
        except OSError as error:
            problem = os.strerror(error.errno).lower() if error.errno else "error"
            continue
        keep_alive(transport)
        return end
    raise Unavailable(problem)


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """So that the end of a peer that vanished is noticed. One that is gone already is noticed anyway."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEP_ALIVE:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
