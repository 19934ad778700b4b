"""`--owner TYPE:ID`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandreel_core.errors import Malformed

if TYPE_CHECKING:
    from sandreel_core.contract.message import Owner


def owner_of(text: str) -> Owner:
    """Raises Malformed when it is none."""
    from sandreel_core.client.owners import parse_owner

    try:
        return parse_owner(text)
    except Malformed as error:
        raise Malformed(f"--owner {error}") from error
