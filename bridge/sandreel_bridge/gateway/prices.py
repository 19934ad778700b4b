"""What calls cost, from a table that is data: see `prices.toml`. Pure.

USD per million tokens is micro-USD per token; searches of the web that a provider runs are USD per thousand. A call's cost is summed exactly and rounded once, half up, to whole micro-USD.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from sandreel_bridge.gateway.port import Dialect
from sandreel_bridge.gateway.tokens import Tokens
from sandreel_core.errors import Misconfigured

PROVIDERS: tuple[Dialect, ...] = ("anthropic", "openai", "gemini")
# Prices have at most so many decimals (0.0125 USD a million is the finest that there is in 2026).
_SCALE = 1_000_000
# A model's name with the day of its making is that model's: claude-haiku-4-5-20251001, gpt-5.2-2025-12-11.
_DATED = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})\Z")
_Usd = Annotated[float, Meta(ge=0, le=1_000_000)]


class Rates(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """USD per million tokens. What a cache costs where it is not told: reading and writing as much as input."""

    input: _Usd
    output: _Usd
    cache_read: _Usd | None = None
    cache_write: _Usd | None = None
    cache_write_1h: _Usd | None = None


class Price(Rates, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`long`: what a prompt of more than `above_tokens` is charged by, all of it. `web_search`: USD per thousand; None: not known."""

    above_tokens: Annotated[int, Meta(ge=1)] | None = None
    long: Rates | None = None
    web_search: _Usd | None = None

    def __post_init__(self) -> None:
        if (self.above_tokens is None) != (self.long is None):
            raise ValueError("above_tokens and long belong together")

    def cost_micro_usd(self, tokens: Tokens) -> int | None:
        """None where it has searched, and what that costs is not known."""
        if not tokens.searches:
            return _rounded(self._exact(tokens))
        if self.web_search is None:
            return None
        return _rounded(self._exact(tokens) + tokens.searches * round(self.web_search * _SCALE) * 1000)

    def tokens_micro_usd(self, tokens: Tokens) -> int:
        """Without what it has searched."""
        return _rounded(self._exact(tokens))

    def most_micro_usd(self, input: int, output: int, *, for_an_hour: bool) -> int:
        """What so many tokens may cost: a cache may take all of the input, for an hour if that was asked for."""
        found = [Tokens(input=input, output=output), Tokens(cache_write=input, output=output)]
        if for_an_hour:
            found.append(Tokens(cache_write_1h=input, output=output))
        return max(self.tokens_micro_usd(each) for each in found)

    def _exact(self, tokens: Tokens) -> int:
        """In units of 1 / `_SCALE` micro-USD."""
        rates: Rates = self
        if self.long is not None and self.above_tokens is not None and tokens.all_input > self.above_tokens:
            rates = self.long
        write = rates.input if rates.cache_write is None else rates.cache_write
        parts = (
            (tokens.input, rates.input),
            (tokens.output, rates.output),
            (tokens.cache_read, rates.input if rates.cache_read is None else rates.cache_read),
            (tokens.cache_write, write),
            (tokens.cache_write_1h, write if rates.cache_write_1h is None else rates.cache_write_1h),
        )
        return sum(count * round(rate * _SCALE) for count, rate in parts)


class PriceTable(Struct, frozen=True, kw_only=True):
    """`version` is recorded with every call that was priced by it. `web_search`: of each provider's models that have no price of
    their own for it."""

    version: str
    models: Mapping[Dialect, Mapping[str, Price]]
    web_search: Mapping[Dialect, float] = {}

    def price(self, provider: Dialect, model: str) -> Price | None:
        """None: not known."""
        models = self.models.get(provider, {})
        found = models.get(model) or models.get(_DATED.sub("", model))
        if found is None or found.web_search is not None or provider not in self.web_search:
            return found
        return replace(found, web_search=self.web_search[provider])

    def names(self, provider: Dialect) -> tuple[str, ...]:
        """In the table's order."""
        return tuple(self.models.get(provider, {}))

    def with_(self, other: PriceTable) -> PriceTable:
        """What `other` says counts for more."""
        models = {
            provider: {**other.models.get(provider, {}), **_without(self.models, other.models, provider)}
            for provider in PROVIDERS
        }
        searches = {**self.web_search, **other.web_search}
        return PriceTable(version=f"{self.version}+{other.version}", models=models, web_search=searches)


def _without(
    models: Mapping[Dialect, Mapping[str, Price]], known: Mapping[Dialect, Mapping[str, Price]], provider: Dialect
) -> dict[str, Price]:
    return {name: price for name, price in models.get(provider, {}).items() if name not in known.get(provider, {})}


def read_table(text: str, origin: str) -> PriceTable:
    """A table as TOML. Raises Misconfigured with one line that names `origin`, the model and the problem."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"{origin} is not TOML: {error}") from error
    version = tables.pop("version", None)
    if not isinstance(version, str) or not version.strip():
        raise Misconfigured(f'{origin} has no version: give one, such as version = "2026-11-10"')
    try:
        searches = msgspec.convert(tables.pop("web_search", {}), dict[Dialect, _Usd])
    except msgspec.ValidationError as error:
        raise Misconfigured(f"[web_search] in {origin}: {str(error).replace('`', '')}") from None
    models: dict[Dialect, Mapping[str, Price]] = {}
    for provider, rows in tables.items():
        if provider not in PROVIDERS or not isinstance(rows, dict):
            raise Misconfigured(f"[{provider}] in {origin} is no provider; there are {', '.join(PROVIDERS)}")
        models[provider] = {name: _price(row, f"{name} of [{provider}] in {origin}") for name, row in rows.items()}
    return PriceTable(version=version.strip(), models=models, web_search=searches)


def _rounded(exact: int) -> int:
    return (exact + _SCALE // 2) // _SCALE


def _price(row: Any, origin: str) -> Price:
    try:
        return msgspec.convert(row, Price)
    except msgspec.ValidationError as error:
        raise Misconfigured(f"{origin}: {str(error).replace('`', '')}") from None
