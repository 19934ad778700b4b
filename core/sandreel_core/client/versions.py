"""Whether a session's runnerd understands what is about to be asked of it, by what `session.ready` said.

It is for the sender to judge: what stands in CMD for a living boot is that boot's alone to answer, and a runnerd that is
too old cannot know that it is (decision 0021).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from sandreel_core.bus.port import Bus
from sandreel_core.client.sessions import Sessions
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.contract.versions import mismatch
from sandreel_core.errors import Denied, NotFound, Refused, Unavailable
from sandreel_core.session import RUNNING

_REMEMBERED = 1024
# A runnerd's version changes when its session boots again on another release: what was looked at so recently is not asked
# for again, which would cost every start a question.
_FRESH_S = 10.0
# While the bus is away the command waits for it, not we.
_LOOK_WITHIN_S = 2.0


class Versions:
    """Of runnerds, by session; `ours` is what this client speaks."""

    def __init__(self, bus: Bus, sessions: Sessions, ours: int) -> None:
        self._bus = bus
        self._sessions = sessions
        self._ours = ours
        # By the session's subject: its last sequence, the version of the runnerd that is alive by then, and when that was.
        self._known: OrderedDict[str, tuple[int, int | None, float]] = OrderedDict()

    async def check(self, subjects: SessionSubjects) -> None:
        """Raises Refused (CONTRACT_VERSION). What cannot be read is not judged: the command finds out what is wrong."""
        try:
            async with asyncio.timeout(_LOOK_WITHIN_S):
                version = await self._version(subjects)
        except (TimeoutError, Unavailable, NotFound, Denied):
            return
        if version is not None and (sentence := mismatch(subjects.session, version, self._ours)) is not None:
            raise Refused("CONTRACT_VERSION", sentence)

    async def _version(self, subjects: SessionSubjects) -> int | None:
        """None where no runnerd is alive. One question, unless the session has changed since the last time."""
        subject = subjects.event("session")
        now_s = asyncio.get_running_loop().time()
        known = self._known.get(subject)
        if known is not None and known[1] == self._ours and now_s - known[2] < _FRESH_S:
            return known[1]
        last = await self._bus.last(subjects.stream, subject)
        if last is None:
            return None
        if known is None or known[0] != last.sequence:
            info = await self._sessions.one(subjects)
            version = info.state.contract_version if info.state.phase in RUNNING else None
            known = (info.cursor.sequence, version, now_s)
        self._known[subject] = (known[0], known[1], now_s)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known[1]
