"""The bridge's settings: `[bridge]` and `SANDREEL_BRIDGE_*`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from sandreel_core.contract.message import MAX_INTEGER
from sandreel_core.settings import Secret, Section


class Settings(Section, frozen=True, kw_only=True):
    """How turns are driven.

    gateway_url       the gateway's address as sandboxes see it, without a slash at its end; absent: there is none, and every turn is
                      refused with NO_GATEWAY
    bifrost_url       its management API, where Bifrost is the gateway (docs/gateway.md); absent: the built-in one is asked over NATS
    bifrost_models    `provider/model` that turns may use there, the default first
    bifrost_owner     what the names of this installation's keys begin with there: of two installations at one Bifrost each has its own
    budget_micro_usd  of a turn that names none: 100 USD (behaviour §4.6)
    key_ttl_s         how long a turn's key lives if nobody revokes it; turns may run for weeks
    scan_s            how often keys without a turn are looked for
    programs          `NAME=PATH` of an agent's program that a session does not find by its name (its PATH is /usr/local/bin:/usr/bin:/bin)
    browser           give agents a browser (Playwright MCP): the session's image must have it
    """

    section: ClassVar[str] = "bridge"
    gateway_url: Annotated[str, Meta(pattern=r"^https?://[^\s@]*[^\s@/]$")] | None = None
    bifrost_url: Annotated[str, Meta(pattern=r"^https?://[^\s@]+$")] | None = None
    bifrost_username: str = "admin"
    bifrost_password: Secret | None = None
    bifrost_models: Annotated[tuple[str, ...], Meta(max_length=256)] = ()
    bifrost_owner: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] = "sandreel"
    budget_micro_usd: Annotated[int, Meta(ge=1, le=MAX_INTEGER)] = 100_000_000
    key_ttl_s: Annotated[float, Meta(ge=60, le=366 * 86_400)] = 30 * 86_400
    scan_s: Annotated[float, Meta(ge=0.05, le=86_400)] = 60
    programs: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]*=/[^\0]+$")], ...], Meta(max_length=64)
    ] = ()
    browser: bool = False

    def program(self, name: str) -> str:
        """What is started where an adapter says this name."""
        return dict(each.split("=", 1) for each in self.programs).get(name, name)
