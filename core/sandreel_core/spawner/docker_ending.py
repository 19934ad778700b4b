"""How a boot's container is told to end, and how it did."""

from __future__ import annotations

import time

from sandreel_core.errors import Conflict, NotFound, Unavailable
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner.backend import Death, Key
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_boots import Boots

_DEATH_TIMEOUT_S = 10.0
_AGAIN_S = 1.0


class Ending:
    """Of the boots of one installation."""

    def __init__(self, engine: Engine, installation: str, boots: Boots) -> None:
        self._engine = engine
        self._installation = installation
        self._boots = boots

    async def stop(self, key: Key, boot_id: str, *, grace_s: float) -> Death | None:
        """SIGTERM, and SIGKILL after `grace_s`; None when the boot was never started. Raises NotFound, Unavailable."""
        name, asked = plan.container_name(self._installation, key, boot_id), False
        try:
            for signal, within_s in (("SIGTERM", grace_s), ("SIGKILL", _DEATH_TIMEOUT_S)):
                code = await self._tell(name, signal, within_s)
                if code == 0:
                    # It was told to end, and did so by itself. To ask for more would be to wait until the engine has
                    # taken its network down as well, with which nothing can run any more that could be waited for.
                    return self._boots.learn(name, Death("exited", 0))
                asked = within_s > 0
                if code is not None:
                    return await self._boots.death(name, asked=True)
        except NotFound as error:
            raise NotFound(f"there is no boot {boot_id}") from error
        except Conflict:  # it does not run: any more, or not yet
            boot = await self._boots.one(key, boot_id)
            return None if boot.status == "starting" else await self._boots.death(boot.id, asked=asked)
        raise Unavailable("the container survives SIGKILL", retry_after_s=30)

    async def _tell(self, name: str, signal: str, within_s: float) -> int | None:
        """Its exit code, if it has ended by then. It is told again every second: what comes before PID 1 has a handler is
        lost. Raises Conflict when it does not run."""
        limit, told = time.monotonic() + within_s, False
        while (left_s := limit - time.monotonic()) > 0:
            try:
                await self._engine.kill(name, signal)
            except Conflict:
                if not told:
                    raise
            told = True
            code = await self._engine.exit_code(name, min(left_s, _AGAIN_S))
            if code is not None:
                return code
        return None
