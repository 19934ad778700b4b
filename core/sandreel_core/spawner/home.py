"""Where an installation lives, for backends that keep sessions on the machine of their spawner.

Two machines would both start a session that is asked for, under the same boot: its exec could run twice. So the first
spawner writes down its node, and one on another node does not begin.
"""

from __future__ import annotations

from sandreel_core.bus.installed import SLOTS
from sandreel_core.bus.port import Bus
from sandreel_core.errors import Conflict, Misconfigured

HOME = "home"


async def settle_at(bus: Bus, node: str) -> None:
    """Raises Misconfigured when this installation's sessions are on another node."""
    found = await bus.last(SLOTS, HOME)
    if found is None:
        try:
            await bus.append(HOME, node.encode(), expected=0)
            return
        except Conflict:
            found = await bus.last(SLOTS, HOME)
    home = found.body.decode() if found is not None else node
    if home != node:
        raise Misconfigured(
            f"the sessions of this installation are on node {home}, this is {node}: if it is the same machine under a new"
            f" name, set [spawner] node = '{home}'; else give this machine an installation of its own"
        )
