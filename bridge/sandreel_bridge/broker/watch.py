"""Whether the vault answers, as the role's health and its measures say it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from sandreel_bridge.broker.measures import BrokerMeasures
from sandreel_core.errors import Unavailable
from sandreel_core.health import Health

T = TypeVar("T")


class VaultWatch:
    """One for a broker."""

    def __init__(self, measures: BrokerMeasures, health: Health) -> None:
        self._measures = measures
        self._health = health

    async def over(self, question: Awaitable[T]) -> T:
        """The vault's answer to one question. Raises what the question does."""
        try:
            answer = await question
        except Unavailable:
            self._measures.vault_failed()
            self._health.trouble("vault", "the vault cannot be asked: no lease is given")
            raise
        self._health.well("vault")
        return answer
