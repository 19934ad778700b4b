"""What all execs of one runnerd share, and what a start becomes there."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from sandreel_core.contract import exec as c
from sandreel_core.errors import Refused
from sandreel_runnerd import process
from sandreel_runnerd.children import Children
from sandreel_runnerd.mask import Mask
from sandreel_runnerd.programs import Programs
from sandreel_runnerd.secrets import Secrets


class Host(Struct, frozen=True, kw_only=True):
    """What all execs of one runnerd share. `boot_marker` is the value of BOOT_MARKER, `base_env` runnerd's own
    environment (no SANDREEL_* of it reaches a child). `mask`: what their output does not show. `secrets`: None where no value
    can be sealed for this session. `programs`: those that ask for leases; None where nobody answers them."""

    workspace: str
    boot_marker: str
    base_env: Mapping[str, str]
    children: Children
    mask: Mask = msgspec.field(default_factory=Mask)
    secrets: Secrets | None = None
    programs: Programs | None = None

    async def recipe(self, start: c.Start, store: Mapping[str, str]) -> process.Recipe:
        """Check what is asked for; `store` is the session's environment. Raises Refused (BAD_REQUEST, INVALID_CWD,
        SECRET_UNAVAILABLE); nothing has been recorded or started then."""
        env = process.environment(
            self.base_env,
            store,
            start.env,
            boot_marker=self.boot_marker,
            exec_id=start.exec,
            tty=start.tty is not None,
        )
        if self.programs is not None:
            env = self.programs.environment(env)
        plan = functools.partial(process.plan, start, workspace=self.workspace, env=env)
        # Only a directory that was asked for is looked at, which may take as long as its file system likes.
        recipe = plan() if start.cwd is None else await asyncio.to_thread(plan)
        if start.secret_env:
            if self.secrets is None:
                raise Refused("SECRET_UNAVAILABLE", "this session has no key that a secret could be sealed for")
            # Last, for whoever gives a value out writes down that it did.
            values = await self.secrets.values(start.secret_env, start.exec)
            recipe = msgspec.structs.replace(recipe, env=recipe.env | values)
        return recipe
