"""A turn's credentials: asked of the broker before its program starts, one grant each, which ends with the turn.

None of them keeps a turn from starting: what is not granted is refused to the program when it asks, and the log of the session's
credentials says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sandreel_bridge.attempt import command_id
from sandreel_bridge.journal import Name
from sandreel_core.client import Client
from sandreel_core.contract.credential import Grant
from sandreel_core.errors import SandreelError
from sandreel_core.log import Log
from sandreel_core.turn import Asked

# A broker answers within milliseconds. One that is away finds the command later, and grants what is still of use.
WITHIN_S = 5.0
PURPOSE = "the turn was started with it"


async def grant(client: Client, name: Name, slugs: Sequence[str], asked: Asked, log: Log) -> None:
    """Ask for all of them at once. Asked again, also for another try of the turn, it is the same commands: what was taken
    back meanwhile stays taken. Never raises for one that is not granted."""

    async def one(slug: str) -> None:
        try:
            await client.send(
                name.org,
                name.session,
                Grant(slug=slug, turn=name.turn, purpose=PURPOSE),
                command_id=command_id(asked.at, "credential.grant", str(name), slug),
                correlation_id=asked.correlation_id or asked.command_id,
                answer_timeout_s=WITHIN_S,
            )
        except SandreelError as error:
            log.warning("a turn goes on without a credential", turn=str(name), slug=slug, problem=str(error))

    await asyncio.gather(*(one(slug) for slug in slugs))
