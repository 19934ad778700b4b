"""Files in a spare's volume, found again. The session's own volume, which says where they are, is empty and no container has it:
a clean-up of the engine's unused volumes takes it, where the files themselves are spared."""

from __future__ import annotations

from collections.abc import Iterable

from sandreel_core.spawner.backend import Key, boot_order
from sandreel_core.spawner.docker_boots import Boots, Found
from sandreel_core.spawner.docker_workspace import Life, Workspaces
from sandreel_core.spawner.lock import Locks


class Lent:
    """sessions: the locks under which boots come and go."""

    def __init__(self, installation: str, boots: Boots, workspaces: Workspaces, sessions: Locks) -> None:
        self._installation = installation
        self._boots = boots
        self._workspaces = workspaces
        self._sessions = sessions

    async def say(self, key: Key, boots: Iterable[Found]) -> Life | None:
        """Whose container has the session's files; None: nobody's. Under the session's lock, and of one without a workspace."""
        for boot in boots:
            if boot.files:
                life = Life(self._installation, boot_order(boot.boot_id)[0], boot.files)
                await self._workspaces.lend(key, life)
                return life
        return None

    async def tidy(self) -> None:
        """As soon as it is missing: without the container nobody would know any more."""
        for key in await self._boots.lent():
            if await self._workspaces.find(key) is None:
                async with self._sessions.held(str(key)):
                    if await self._workspaces.find(key) is None:
                        await self.say(key, await self._boots.of(key))
