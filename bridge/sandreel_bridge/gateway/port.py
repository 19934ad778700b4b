"""What a turn asks of a gateway: a key of its own, what was spent with it, and its end.

A gateway stands outside the log. So what is made there is named after what the log says (`key_name`), asking twice changes
nothing, and whoever comes after a crash finishes or undoes by that name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from msgspec import Struct

from sandreel_core.contract.turn import Usage

# What a program speaks to its model: each is a path of the gateway's own below its address.
Dialect = Literal["anthropic", "openai", "gemini"]


class KeyTerms(Struct, frozen=True, kw_only=True):
    """What a virtual key may do.

    models             model names that it may ask for; the first is what a program that names none is told to ask for
    budget_micro_usd   calls are refused with 402 once so much is spent; reserved from the org's and the user's rolling budget
    expires_at         the gateway refuses it from then on, whoever forgot to revoke it
    correlation_id     of the command that the turn came from: stands in what is recorded of its calls
    """

    org: str
    session: str
    turn: str
    user: str | None = None
    models: tuple[str, ...]
    budget_micro_usd: int
    expires_at: datetime
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True)
class VirtualKey:
    """`value` is a secret: it is held in memory, and goes to the one exec that it was minted for by secret reference."""

    name: str
    value: str = field(repr=False)


class KeyStanding(Struct, frozen=True, kw_only=True):
    """A key as the gateway has it. `usage` is what the provider's replies counted, of `calls` calls that ended.

    budget_micro_usd   what was granted: less than was asked for where the org's or the user's budget had less left
    charged_micro_usd  of it, what is gone: the calls' cost, and for what a reply did not tell an estimate
    """

    name: str
    org: str
    session: str
    turn: str
    created_at: datetime
    live: bool
    calls: int = 0
    usage: Usage = Usage()
    budget_micro_usd: int | None = None
    charged_micro_usd: int = 0


class Gateway(Protocol):
    """Raises Unavailable where the gateway does not answer, Refused (`BUDGET_SPENT`, `MODEL_NOT_ALLOWED`, `NO_PROVIDER`)
    where it says no."""

    async def enforce(self, org: str, dialect: Dialect | None = None) -> tuple[str, ...]:
        """Confirm that it meters and refuses for this org, before anything is minted: the names of the org's models that can be asked for
        in that dialect (None: in any), its default first. A gateway that cannot confirm it raises (law 8)."""
        ...

    async def mint(self, name: str, terms: KeyTerms) -> VirtualKey:
        """A key of this name. Where one of that name is live, it is replaced: the older value is refused from now on."""
        ...

    async def standing(self, name: str) -> KeyStanding | None:
        """None: it never was, or is forgotten. Calls that are under way are not in it."""
        ...

    async def revoke(self, name: str) -> KeyStanding | None:
        """Refuse it from now on, wait (bounded) for its calls that are under way, settle its budget; then its last standing.
        One that is revoked already, or never was, is no error."""
        ...

    async def live(self) -> list[KeyStanding]:
        """Every live key, for the orphan scan."""
        ...


def key_name(org: str, session: str, incarnation: int, turn: str, number: int) -> str:
    """The outside name of a turn's key: from what the log says, so that whoever takes the turn over finds it. `number`: of its keys, from
    1; whoever prepares the turn anew has another, so that a bridge which was halted cannot put its own in the place of one in use."""
    return f"{org}.{session}.{incarnation}.{turn}.{number}"
