"""What each org may use: providers, models, money. From the settings, and for single orgs from a file that is read again when it
changes."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from sandreel_bridge.gateway.account import Limits
from sandreel_bridge.gateway.port import Dialect
from sandreel_bridge.gateway.prices import PROVIDERS, PriceTable, read_table
from sandreel_bridge.gateway.settings import MicroUsd, Model, Settings
from sandreel_core.errors import Malformed, Misconfigured, Refused
from sandreel_core.ids import check_org


class Org(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of `orgs_file`. What is absent is as [gateway] says. `models`: the first is the default."""

    models: Annotated[tuple[Model, ...], Meta(max_length=256)] | None = None
    providers: tuple[Dialect, ...] | None = None
    budget_micro_usd_per_month: MicroUsd | None = None
    user_budget_micro_usd_per_month: MicroUsd | None = None


class Orgs:
    """Raises Misconfigured on construction for files that cannot be used. Blocking: it reads small files."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = Path(settings.orgs_file) if settings.orgs_file else None
        self.prices = _prices(settings)
        self._orgs: dict[str, Org] = {}
        self._read_at: tuple[int, int] = (0, 0)
        self.reload()

    def reload(self) -> bool:
        """Read the file again if it has changed; whether it had. Raises Misconfigured, with what was known still in place."""
        if self._path is None:
            return False
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp == self._read_at:
                return False
            orgs = read_orgs(self._path.read_text(), str(self._path))
        except OSError as error:
            raise Misconfigured(f"[gateway] orgs_file {self._path} cannot be read: {(error.strerror or 'error').lower()}") from error  # fmt: skip
        except UnicodeDecodeError:
            raise Misconfigured(f"[gateway] orgs_file {self._path} is not UTF-8") from None
        self._orgs, self._read_at = orgs, stamp
        return True

    def providers(self, org: str) -> tuple[Dialect, ...]:
        """That the org may use and that have a key."""
        named = self._org(org).providers
        return tuple(each for each in self._settings.keys if named is None or each in named)

    def models(self, org: str, dialect: Dialect | None = None) -> tuple[str, ...]:
        """The org's, its default first; those that can be asked for in that dialect, which are its provider's and those of which nobody
        knows whose they are. Raises Refused (NO_PROVIDER, MODEL_UNPRICED)."""
        providers = self.providers(org)
        models = self._models(org, providers)
        if dialect is None:
            return models
        spoken = tuple(name for name in models if dialect in (self._known(name) or [dialect]))
        if dialect not in providers or not spoken:
            raise Refused(
                "NO_PROVIDER", f"the agent speaks to models of {dialect}, and of those the org {org} has none"
            )
        return spoken

    def _known(self, model: str) -> list[Dialect]:
        """Whose it is, by the prices."""
        return [each for each in PROVIDERS if self.prices.price(each, model)]

    def _models(self, org: str, providers: tuple[Dialect, ...]) -> tuple[str, ...]:
        if not providers:
            why = (
                self._settings.missing_key
                if not self._settings.keys
                else f"the org {org} may use no provider that has a key"
            )
            raise Refused("NO_PROVIDER", why)
        named = self._org(org).models or self._settings.models
        if not named:
            return tuple(name for provider in providers for name in self.prices.names(provider))
        known = {name: self._known(name) for name in named}
        if self._settings.unpriced == "refuse":
            for name, by in known.items():
                if not by:
                    raise Refused(
                        "MODEL_UNPRICED",
                        f"the model {name} has no known price, so no budget holds it: give it one in [gateway] prices_file, or set"
                        " [gateway] unpriced = allow",
                    )
        models = tuple(name for name, by in known.items() if not by or set(by) & set(providers))
        if not models:
            raise Refused("NO_PROVIDER", f"no model of the org {org} is of a provider that has a key")
        return models

    def limits(self, org: str) -> Limits:
        own, settings = self._org(org), self._settings
        return Limits(
            org_micro_usd=_or(own.budget_micro_usd_per_month, settings.org_budget_micro_usd_per_month),
            user_micro_usd=_or(own.user_budget_micro_usd_per_month, settings.user_budget_micro_usd_per_month),
        )

    def _org(self, org: str) -> Org:
        return self._orgs.get(org) or Org()


def read_orgs(text: str, origin: str) -> dict[str, Org]:
    """Raises Misconfigured with one line that names the org, the key and the problem."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"[gateway] orgs_file {origin} is not TOML: {error}") from error
    return {name: _read_org(name, table, origin) for name, table in tables.items()}


def _read_org(name: str, table: Any, origin: str) -> Org:
    try:
        check_org(name)
        return msgspec.convert(table, Org)
    except (Malformed, msgspec.ValidationError) as error:
        raise Misconfigured(f"[{name[:140]}] in {origin}: {str(error).replace('`', '')}") from None


def _prices(settings: Settings) -> PriceTable:
    table = read_table(files(__package__).joinpath("prices.toml").read_text(), "prices.toml")
    if settings.prices_file is None:
        return table
    path = Path(settings.prices_file)
    try:
        own = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or "error").lower() if isinstance(error, OSError) else "it is not UTF-8"
        raise Misconfigured(f"[gateway] prices_file {path} cannot be read: {why}") from error
    return table.with_(read_table(own, f"[gateway] prices_file {path}"))


def _or(own: int | None, otherwise: int | None) -> int | None:
    return otherwise if own is None else own
