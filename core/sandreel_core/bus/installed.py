"""Which roles answer commands for themselves: the spawner says so in a document, and answers in the place of all others.

A role at work that the spawner has not been told of would give each of its commands a second outcome, and both sides would act on
theirs. So such a role does not begin, and ends when it reads that it is not wanted any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import aclosing

import msgspec

from sandreel_core.bus.port import Bus
from sandreel_core.errors import Misconfigured, NotFound, Unavailable

SLOTS = "SLOTS"  # the spawner's documents (`spawner/quota.py`)
ROLES = "roles"
# The spawner makes the stream. Until it has, it answers nothing either.
_AGAIN_S = 1.0


async def declare(bus: Bus, roles: Collection[str]) -> None:
    """By a spawner, before it answers for anybody. Raises Unavailable."""
    body, last = msgspec.json.encode(sorted(roles)), await bus.last(SLOTS, ROLES)
    if last is None or last.body != body:
        await bus.append(ROLES, body)


async def check(bus: Bus, role: str) -> None:
    """By a role, before it takes commands. Raises Misconfigured, Unavailable."""
    try:
        last = await bus.last(SLOTS, ROLES)
    except NotFound:
        return
    if last is not None:
        _check(last.body, role)


async def watch(bus: Bus, role: str) -> None:
    """For ever. Raises Misconfigured as soon as a spawner says that the role is not installed."""
    while True:
        try:
            async with aclosing(bus.follow(SLOTS, [ROLES])) as items:
                async for item in items:
                    for stored in item if isinstance(item, list) else ():
                        _check(stored.body, role)
        except (NotFound, Unavailable):
            await asyncio.sleep(_AGAIN_S)


def _check(body: bytes, role: str) -> None:
    try:
        roles = msgspec.json.decode(body, type=list[str])
    except msgspec.DecodeError:
        return
    if role not in roles:
        raise Misconfigured(
            f"[spawner] roles is {', '.join(roles) or 'empty'} and does not name the {role}: the spawner refuses what this {role} is asked, and"
            f" every command would have two outcomes. Name it there, or stop this {role}"
        )
