"""One connection to NATS that comes back for ever: each (re)connection is a fresh client, a `Link`.

nats-py's own reconnecting is not used: it keeps what was published meanwhile and sends it late, and it gives up for
good when the server ends a connection with an error. So whoever subscribes does it again on the next link.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Sequence

from sandreel_core.bus.credentials import Identity
from sandreel_core.bus.jetstream_link import Link
from sandreel_core.bus.nats_py import Client, errors
from sandreel_core.bus.wake import Signal
from sandreel_core.errors import Denied, Unavailable
from sandreel_core.log import Log

_DENIED = re.compile(r'publish to "([^"]+)"', re.IGNORECASE)
_FIRST_PAUSE_S = 0.02
_GREATEST_PAUSE_S = 2.0
_CONNECT_S = 5
# A silent server is given up after three of these.
_PING_S = 5


class Connection:
    """Keeps a link. `run` is a task that the bus owns."""

    def __init__(self, urls: Sequence[str], *, name: str, identity: Identity) -> None:
        """identity: asked for a login at every connection."""
        self._urls = list(urls)
        self._name = name
        self._identity = identity
        self._tried = "(none)"
        self._log = Log("bus.nats")
        self._moved = Signal()
        self.link: Link | None = None
        self.generation = 0
        self.max_payload = 1024 * 1024
        self.problem: Exception | None = None

    async def run(self) -> None:
        """Connect, wait until the link is lost, and again. Ends when cancelled."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                link = await self._connect()
            except (OSError, errors.Error, TimeoutError, Unavailable) as error:
                if repr(error) != repr(self.problem):
                    # The first time, whoever waits for us says so.
                    say = self._log.warning if self.generation else self._log.info
                    say("cannot connect to NATS", problem=_say(error))
                self.problem = error
                self._moved.fire()
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause_s = min(pause_s * 2, _GREATEST_PAUSE_S)
                continue
            pause_s = _FIRST_PAUSE_S
            self.problem = None
            self.generation, self.link = link.generation, link
            self.max_payload = link.client.max_payload
            self._moved.fire()
            self._log.info("connected to NATS", generation=self.generation)
            try:
                await link.end()
                say = self._log.info if link.given_up else self._log.warning
                say("the connection to NATS is lost", generation=self.generation)
            finally:
                self.link = None
                link.lose()
                self._moved.fire()
                await self._close(link.client)

    async def _connect(self) -> Link:
        login = await self._identity.login()
        self._tried = login.name
        client = Client()
        link = Link(client, self.generation + 1, login)

        async def lost() -> None:
            link.lose()

        cause: Exception | None = None

        async def failed(error: Exception) -> None:
            nonlocal cause
            cause = error
            if "permissions violation" in str(error).lower():
                self._log.warning("NATS denies a subject", problem=str(error)[:300])
                found = _DENIED.search(str(error))
                for tell in tuple(link.on_denial) if found else ():
                    tell(found[1].lower() if found else "")

        task = asyncio.current_task()
        try:
            await client.connect(
                self._urls,
                name=self._name,
                **login.options(),
                allow_reconnect=False,
                # One round over the urls, at once: the pauses are ours.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=_CONNECT_S,
                ping_interval=_PING_S,
                disconnected_cb=lost,
                closed_cb=lost,
                error_cb=failed,
                # Beyond this a publish waits for the socket.
                pending_size=2 * 1024 * 1024,
            )
            if task and task.cancelling():
                raise asyncio.CancelledError
            await link.open()
        except errors.NoServersError as error:
            raise Unavailable(_say(cause or error)) from error
        except BaseException:
            await self._close(client)
            raise
        return link

    async def _close(self, client: Client) -> None:
        try:
            async with asyncio.timeout(_CONNECT_S):
                await client.close()
        except (OSError, errors.Error, TimeoutError):
            self._log.debug("an old connection did not close in order")

    def renew(self) -> None:
        """Give up the link for another one, with the login that there is now."""
        if self.link is not None:
            self.link.given_up = True
            self.link.lose()

    async def linked(self, after_generation: int = 0) -> Link:
        """The link, as soon as there is one whose generation is larger than the one given."""
        while True:
            link = self.link
            if link is not None and link.generation > after_generation and not link.lost.is_set():
                return link
            await self._moved.wait()

    async def linked_within(self, timeout_s: float) -> Link:
        """As `linked`. Raises Unavailable after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.linked()
        except TimeoutError as error:
            raise Unavailable(f"no connection to NATS within {timeout_s:g} s") from error

    async def first_link(self, timeout_s: float | None) -> None:
        """Raises Unavailable after `timeout_s`, and Denied when the server does not take who we say we are.
        Without a time-out waits for ever."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.link is None:
                    if timeout_s is not None and _is_denial(self.problem):
                        raise Denied(f"NATS does not take the user {self._tried} with these credentials")
                    await self._moved.wait()
        except TimeoutError as error:
            said = f": {_say(self.problem)}" if self.problem else ""
            raise Unavailable(f"no NATS server at {', '.join(self._urls)} within {timeout_s:g} s{said}") from error


def _is_denial(error: Exception | None) -> bool:
    said = str(error).lower() if error is not None else ""
    # An expired or revoked JWT is told in the second way.
    return "authorization violation" in said or "user authentication" in said


def _say(error: Exception | None) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()  # asyncio's own words repeat the address, as a tuple
    return str(error).removeprefix("nats: ") or type(error).__name__
