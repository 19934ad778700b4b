"""Requests of a session's runnerd. One that is ready in the log may not listen yet: then they wait for a moment.

`session.ready` is appended before the spawner answers runnerd's bootstrap (design §5: the token is bound by it), and
only with that answer has runnerd an identity by which it may listen at all.
"""

from __future__ import annotations

import asyncio

from sandreel_core.bus.port import Bus
from sandreel_core.client.sessions import Sessions
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Denied, NotFound, Unserved
from sandreel_core.session import RUNNING

# From its bootstrap's answer runnerd listens within milliseconds; where everything boots at once, after a second or two.
SERVED_WITHIN_S = 10.0
_FIRST_RETRY_S, _MAX_RETRY_S = 0.02, 0.5


class Recorder:
    """The runnerd of one session, to whoever asks it."""

    def __init__(self, bus: Bus, sessions: Sessions, subjects: SessionSubjects) -> None:
        self._bus = bus
        self._sessions = sessions
        self._subjects = subjects

    async def ask(self, verb: str, body: bytes, *, timeout_s: float) -> bytes:
        """The answer. Raises Unserved when the session is not ready, or is so and nobody listens for `SERVED_WITHIN_S`
        (`timeout_s`, if that is shorter); else what `Bus.request` raises."""
        subject = self._subjects.request("runnerd", verb)
        until = asyncio.get_running_loop().time() + min(timeout_s, SERVED_WITHIN_S)
        delay_s = _FIRST_RETRY_S
        while True:
            try:
                return await self._bus.request(subject, body, timeout_s=timeout_s)
            except Unserved as error:
                phase = await self._phase()
                if phase not in RUNNING or asyncio.get_running_loop().time() + delay_s > until:
                    raise Unserved(f"{error}: the session is {phase}") from error
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _MAX_RETRY_S)

    async def _phase(self) -> str:
        try:
            return (await self._sessions.one(self._subjects)).phase
        except NotFound:
            return "not there"
        except Denied:
            return "not to be seen by this user"  # who may command and not follow
