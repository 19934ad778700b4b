"""Who this runnerd is on NATS, and for how long. Its keys are made here, in memory, and never leave it.

It begins as a bootstrap user, who may only ask. The spawner's answer is a JWT for the key that was made here, of this
session and boot alone; it is renewed before it ends, by connecting anew. One that has ended (the spawner was away for
long) is asked for again in the bootstrap user's name: the token is bound to the same keys.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import msgspec

from sandreel_core.bus.credentials import Creds
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.port import Bus
from sandreel_core.contract.boot import BootSettings
from sandreel_core.contract.bootstrap import Renew, Renewed
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import NotFound, Over, SandreelError, Unavailable
from sandreel_core.keys import SealingKey, new_key
from sandreel_core.log import Log

# Of its life: renewed when this much is left, and not presented any more when less than that is.
_RENEW_LEFT, _USABLE_LEFT = 1 / 3, 1 / 50
_FIRST_RETRY_S = 0.2
_MAX_RETRY_S = 5.0


class Passport:
    """`login` is what the connection asks for whenever it is made; that connection is then attached."""

    def __init__(self, settings: BootSettings, bootstrap: str, log: Log) -> None:
        """bootstrap: the credentials that the boot was started with. Raises Malformed."""
        self.sealing = SealingKey()
        self._key = new_key("user")
        self._settings = settings
        self._bootstrap = Creds.parse(bootstrap)
        self._subject = SessionSubjects(settings.org, settings.session, settings.partitions).request("spawner", "renew")
        self._bus: JetStreamBus | None = None
        self._session: Creds | None = None
        self._ends_at = self._life_s = 0.0
        self._on_over: Callable[[Over], None] = lambda error: None
        self._log = log

    @property
    def public_keys(self) -> dict[str, str]:
        """What the token binds to: stands in `session.ready`."""
        return {"nats": self._key.public, "seal": self.sealing.public}

    async def login(self) -> Creds:
        """The one that is valid now. Waits, once there was one, until there is another; for ever when the boot is over."""
        if self._session is None:
            return self._bootstrap
        if self._left_s() <= self._life_s * _USABLE_LEFT:
            await self._ask_again()
        return self._session

    def attach(self, bus: JetStreamBus) -> None:
        """The connection that is to be this runnerd's."""
        self._bus = bus

    async def take(self, token: str) -> None:
        """From now on be what this JWT says; returns when the attached bus is connected as that."""
        self._remember(token)
        if self._bus is not None:
            before = self._bus.generation
            self._bus.renew()
            await self._bus.wait_connected(before)

    async def keep(self, on_over: Callable[[Over], None]) -> None:
        """Renew, from the first `take` on, for ever. `on_over` is called when the spawner says that this boot is over."""
        self._on_over = on_over
        bus = self._bus
        if bus is None or self._session is None:
            return
        while True:
            # Sessions that began together need not renew together.
            wait_s = self._left_s() - self._life_s * _RENEW_LEFT * random.uniform(1.0, 1.5)  # noqa: S311 - jitter
            await asyncio.sleep(max(_FIRST_RETRY_S, wait_s))
            try:
                # Once it has ended, the connection is, and `login` asks.
                token = await self._ask(bus, until=lambda: self._left_s() <= 0)
            except Over as error:
                on_over(error)
                return
            if token is not None:
                await self.take(token)

    def _left_s(self) -> float:
        return self._ends_at - asyncio.get_running_loop().time()

    def _remember(self, token: str) -> None:
        self._session = creds = Creds(token, self._key)
        # Its length, by our own clock: the server's may be another (law 10).
        self._life_s = float(creds.claims["exp"] - creds.claims["iat"])
        self._ends_at = asyncio.get_running_loop().time() + self._life_s

    async def _ask_again(self) -> None:
        self._log.warning("the identity has ended: asking for another")
        name = f"runnerd {self._settings.org}/{self._settings.session} bootstrap"
        bus = await JetStreamBus.connect(self._settings.nats_urls, name=name, identity=self._bootstrap)
        try:
            token = await self._ask(bus, until=lambda: False)
        except Over as error:
            self._on_over(error)
            await asyncio.get_running_loop().create_future()
        finally:
            await bus.close()
        if token is not None:
            self._remember(token)

    async def _ask(self, bus: Bus, *, until: Callable[[], bool]) -> str | None:
        """A new JWT; None when `until` came first. Raises Over."""
        settings = self._settings
        body = msgspec.json.encode(Renew(boot_id=settings.boot_id, token=settings.token, public_keys=self.public_keys))
        delay_s = _FIRST_RETRY_S
        while not until():
            try:
                return msgspec.json.decode(await bus.request(self._subject, body), type=Renewed).user_jwt
            except Over:
                raise
            except (Unavailable, NotFound) as error:
                self._log.info("no identity yet", problem=str(error))
            except (SandreelError, msgspec.DecodeError) as error:
                self._log.error("identity refused", problem=str(error))
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _MAX_RETRY_S)
        return None
