"""The life of a session's credentials: granted → leased → revoked; the fold of its events, and the answers to commands.

One subject holds all of a session's credentials. A grant is the session's or one turn's; a lease is one operation's, by a
grant. Pure. Only the broker decides; everybody folds. Whether a lease may be had is `sandreel_bridge.broker.lease`'s to say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from sandreel_core.contract import credential as c
from sandreel_core.contract.message import Command, Envelope, Event
from sandreel_core.contract.session import CommandRefused, CommandSettled
from sandreel_core.errors import Refused

# As many as a session may be created with (`session.Create.grants`), and as many again for its turns.
MAX_GRANTS = 128
SESSION = ""
"""The key of the session's own grant among those of its turns."""
_ANSWERS = (CommandRefused.type, CommandSettled.type)


class Grant(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That leases may be had, by the session or by one turn."""

    purpose: str | None = None
    expires_at: datetime | None = None

    def expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class Out(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A lease that has not ended, and whose grant it is by."""

    expires_at: datetime
    turn: str = SESSION


class Held(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One credential: its grants by turn (`SESSION`: the session's own), its leases by id."""

    grants: Mapping[str, Grant] = {}
    leases: Mapping[str, Out] = {}


class Credentials(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one session holds, by slug.

    born       the incarnation for which the session got what it was created with, by slug
    withdrawn  those of them that were taken back, or ended by themselves: a later boot does not get them again
    """

    held: Mapping[str, Held] = {}
    born: Mapping[str, int] = {}
    withdrawn: Mapping[str, int] = {}
    unreadable: str = ""

    def of(self, slug: str) -> Held:
        return self.held.get(slug, Held())


def evolve(state: Credentials, event: Envelope) -> Credentials:
    """Fold one event of the session's subject `credential`. Never raises; what does not fit changes nothing."""
    data = event.data
    match data:
        case c.Granted():
            held = state.of(data.slug)
            grant = Grant(purpose=data.purpose, expires_at=data.expires_at)
            state = _with(state, data.slug, replace(held, grants={**held.grants, data.turn or SESSION: grant}))
            if data.incarnation is not None:
                return replace(state, born={**state.born, data.slug: data.incarnation})
            return state
        case c.Leased():
            held = state.of(data.slug)
            out = Out(expires_at=data.expires_at, turn=data.turn or SESSION)
            return _with(state, data.slug, replace(held, leases={**held.leases, data.lease_id: out}))
        case c.Revoked():
            return _revoke(state, data)
        case c.CredentialEvent():
            return state
    return state if event.type in _ANSWERS else replace(state, unreadable=event.type)


def _revoke(state: Credentials, event: c.Revoked) -> Credentials:
    held = state.of(event.slug)
    grants = dict(held.grants)
    if event.ends == "all":
        grants.clear()
    elif event.ends == "one":
        grants.pop(event.turn or SESSION, None)
    ended = frozenset(event.lease_ids)
    leases = {id: out for id, out in held.leases.items() if id not in ended}
    lost = SESSION in held.grants and SESSION not in grants
    state = _with(state, event.slug, Held(grants=grants, leases=leases))
    if event.incarnation is not None:
        return replace(state, withdrawn={**state.withdrawn, event.slug: event.incarnation})
    born = state.born.get(event.slug)
    if lost and born is not None and event.reason in ("asked", "ungranted", "expired"):
        return replace(state, withdrawn={**state.withdrawn, event.slug: born})
    return state


def _with(state: Credentials, slug: str, held: Held) -> Credentials:
    kept = {name: each for name, each in state.held.items() if name != slug}
    return replace(state, held={**kept, slug: held} if held.grants or held.leases else kept)


class Terms(Struct, frozen=True, kw_only=True):
    """What a decision depends on beside state and command. `born_with`: what the session was created with in its life
    `incarnation`, and gets at every boot of it unless it was taken back."""

    now: datetime
    incarnation: int = 0
    born_with: Collection[str] = ()

    def life(self, slug: str) -> int | None:
        """In which it would get the credential by itself, None when it would not."""
        return self.incarnation if slug in self.born_with else None


def decide(state: Credentials, command: Command, terms: Terms) -> Event | Refused | None:
    """The one event that a command leads to, a refusal, or None where what it asks for is already so."""
    if state.unreadable:
        return Refused("NEWER_CONTRACT", f"the log holds {state.unreadable}, which this version cannot read")
    match command:
        case c.Grant():
            return _grant(state, command, terms.now)
        case c.Ungrant():
            life = None if command.turn else terms.life(command.slug)
            if (command.turn or SESSION) not in state.of(command.slug).grants and not _to_come(
                state, command.slug, life
            ):
                return None
            return c.Revoked(slug=command.slug, reason="ungranted", ends="one", turn=command.turn, incarnation=life)
        case c.Revoke():
            held, life = state.of(command.slug), terms.life(command.slug)
            if not held.grants and not held.leases and not _to_come(state, command.slug, life):
                return None
            return c.Revoked(slug=command.slug, reason="asked", lease_ids=sorted(held.leases), incarnation=life)
    return Refused("BAD_REQUEST", f"{command.type} is not a command that the broker knows")


def _to_come(state: Credentials, slug: str, life: int | None) -> bool:
    """Whether the session would get it by itself at its next boot, or in the next moment."""
    return life is not None and state.withdrawn.get(slug) != life


def _grant(state: Credentials, command: c.Grant, now: datetime) -> Event | Refused | None:
    if command.expires_at is not None and command.expires_at <= now:
        return Refused("BAD_REQUEST", f"expires_at is {command.expires_at.isoformat()}, which is past")
    wanted = Grant(purpose=command.purpose, expires_at=command.expires_at)
    before = state.of(command.slug).grants.get(command.turn or SESSION)
    if before == wanted:
        return None
    if before is None and sum(len(held.grants) for held in state.held.values()) >= MAX_GRANTS:
        return Refused("GRANT_LIMIT", f"{MAX_GRANTS} grants stand, which is a session's limit")
    return c.Granted(slug=command.slug, turn=command.turn, purpose=command.purpose, expires_at=command.expires_at)
