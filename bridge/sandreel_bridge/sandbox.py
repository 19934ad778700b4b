"""The session that a turn works in: looked at, made, resumed, made again, and waited for."""

from __future__ import annotations

from sandreel_bridge.journal import Name
from sandreel_bridge.process import Home
from sandreel_core.bus.kept import kept
from sandreel_core.client import Client
from sandreel_core.client.turn_reading import data_of
from sandreel_core.contract.message import Owner
from sandreel_core.contract.session import Destroying, Profile
from sandreel_core.errors import NotFound, Refused
from sandreel_core.session import RUNNING, Session

# Refusals that say that somebody else was quicker, or that the session is on its way: look again.
_RACES = frozenset(("SESSION_EXISTS", "SESSION_NOT_FOUND", "SESSION_STOPPING", "SESSION_STOPPED", "SESSION_DESTROYED"))


async def look(client: Client, name: Name) -> Home:
    """The session as its log tells it. Raises Unavailable."""
    try:
        info = await client.session(name.org, name.session)
    except NotFound:
        return Home(session=Session(), sequence=0)
    return Home(session=info.state, sequence=info.cursor.sequence)


async def ended_since(client: Client, name: Name, sequence: int) -> bool:
    """Whether somebody had the session destroyed behind that sequence of its partition. Raises Unavailable."""
    subjects = client.subjects(name.org, name.session)
    subject = subjects.event("session")
    async with kept(client.bus, subjects.stream, [subject], after=sequence) as messages:
        async for stored in messages:
            if isinstance(data_of(stored), Destroying):
                return True
    return False


async def make(client: Client, name: Name, home: Home, owner: Owner | None, profile: Profile) -> None:
    """One step towards a session that is ready. Raises Refused with the reason that it does not come up: QUOTA_EXCEEDED, what its
    boot failed with, SESSION_NOT_FOUND where there is none and nobody is named who would own it; Unavailable."""
    phase = home.session.phase
    try:
        if phase in ("none", "destroyed"):
            if owner is None:
                raise Refused(
                    "NO_OWNER", f"there is no session {name.session}, and the turn names no owner to make it for"
                )
            await client.create_session(name.org, name.session, owner=owner, profile=profile)
        elif phase in ("stopped", "failed"):
            await client.resume(name.org, name.session)
        elif phase == "stopping":
            await client.stop(name.org, name.session)
        elif phase == "destroying":
            await client.destroy(name.org, name.session)
        elif phase not in RUNNING:
            await client.resume(name.org, name.session)  # it boots already: this waits until it is ready
    except Refused as refused:
        if refused.code not in _RACES:
            raise
