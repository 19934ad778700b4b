"""The gateway's settings: `[gateway]` and `SANDREEL_GATEWAY_*`."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, ClassVar

from msgspec import Meta
from msgspec.structs import replace

from sandreel_bridge.gateway.port import Dialect
from sandreel_core.errors import Misconfigured
from sandreel_core.settings import Secret, Section

Url = Annotated[str, Meta(pattern=r"^https?://[^@\s?#]+$")]
Model = Annotated[str, Meta(min_length=1, max_length=256)]
MicroUsd = Annotated[int, Meta(ge=0, le=10**15)]
_KEYS: dict[Dialect, str] = {
    "anthropic": "anthropic_api_key",
    "openai": "openai_api_key",
    "gemini": "gemini_api_key",
}


class Settings(Section, frozen=True, kw_only=True):
    """
    listen             HOST:PORT of one address, never of all of them
    networks           instead of `listen`: every address of this machine that is in one of these networks, now and later,
                       at `port`; for a container that is joined to networks while it runs
    *_api_key          of the providers (usually `*_api_key_file`); a provider without one is not served
    keys_directory     where files of these names (`anthropic_api_key` and so on) hold those that are not given otherwise
    *_url              their APIs' roots
    models             that orgs may use, the first being their default; absent: all of the price table whose provider has a key
    orgs_file          what single orgs may do (docs/gateway.md); read again when it changes
    *_per_month        what an org, or each of its users, may spend in a month; absent: without a limit
    prices_file        prices of one's own, which count for more than those that come with sandreel
    unpriced           whether models without a known price pass: no budget holds them
    state_directory    its own, where calls stand that NATS may not have yet (`daybook`); no other gateway's, and kept over restarts
    max_daybook_bytes  of that file; beyond it no call is let through. A call is some 2 KiB in it
    max_unrecorded     calls that ended and cannot be recorded because NATS is away; beyond it none is let through
    max_calls          requests under way, of all keys; max_calls_per_key: of one, so that no turn takes all of them
    max_connections    of all sandboxes; max_connections_per_address: of one, where each has an address of its own
    max_body_bytes     of a request; Anthropic takes 32 MB
    max_bodies_bytes   of all requests under way together: what they may take of this machine's memory
    idle_timeout_s     without a byte from the provider; a model that thinks and does not stream may take long
    budget_wait_s      how long a call waits for others of its turn that hold what is left of the budget
    """

    section: ClassVar[str] = "gateway"
    listen: Annotated[str, Meta(pattern=r"^(\[[0-9A-Fa-f:]+\]|[^\[\]:\s]+):[0-9]{1,5}$")] | None = None
    networks: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    port: Annotated[int, Meta(ge=1, le=65535)] = 8600
    anthropic_api_key: Secret | None = None
    openai_api_key: Secret | None = None
    gemini_api_key: Secret | None = None
    keys_directory: str | None = None
    anthropic_url: Url = "https://api.anthropic.com"
    openai_url: Url = "https://api.openai.com"
    gemini_url: Url = "https://generativelanguage.googleapis.com"
    models: Annotated[tuple[Model, ...], Meta(max_length=256)] = ()
    orgs_file: str | None = None
    org_budget_micro_usd_per_month: MicroUsd | None = None
    user_budget_micro_usd_per_month: MicroUsd | None = None
    prices_file: str | None = None
    unpriced: Annotated[str, Meta(pattern=r"^(refuse|allow)$")] = "refuse"
    state_directory: str | None = None
    max_daybook_bytes: Annotated[int, Meta(ge=4096, le=1 << 30)] = 16 << 20
    max_calls: Annotated[int, Meta(ge=1, le=100_000)] = 512
    max_unrecorded: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    max_calls_per_key: Annotated[int, Meta(ge=1, le=100_000)] = 128
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 2048
    max_connections_per_address: Annotated[int, Meta(ge=1, le=1_000_000)] = 256
    max_body_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 32 << 20
    max_bodies_bytes: Annotated[int, Meta(ge=1024, le=1 << 40)] = 512 << 20
    connect_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 15.0
    idle_timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 900.0
    budget_wait_s: Annotated[float, Meta(ge=0, le=3600)] = 60.0

    def with_keys(self) -> Settings:
        """With the keys that lie in `keys_directory`. Raises Misconfigured for one that cannot be read. Blocking."""
        found: dict[str, str] = {}
        for name in _KEYS.values() if self.keys_directory else ():
            path = Path(self.keys_directory or "") / name
            try:
                text = path.read_text().strip() if getattr(self, name) is None and path.exists() else ""
            except (OSError, UnicodeDecodeError) as error:
                why = (error.strerror or "error").lower() if isinstance(error, OSError) else "it is not UTF-8"
                raise Misconfigured(f"[gateway] keys_directory: {path} cannot be read: {why}") from error
            found |= {name: text} if text else {}
        return replace(self, **found)

    @property
    def keys(self) -> dict[Dialect, str]:
        """The providers' keys, of those that have one."""
        found = {provider: getattr(self, name) for provider, name in _KEYS.items()}
        return {provider: key for provider, key in found.items() if key}

    def url(self, provider: Dialect) -> str:
        """The API's root. OpenAI's is often given with its version, which our paths bring along."""
        given = {"anthropic": self.anthropic_url, "openai": self.openai_url, "gemini": self.gemini_url}[provider]
        return given.rstrip("/").removesuffix("/v1")

    @property
    def address(self) -> tuple[str, int]:
        """Of `listen`. Raises Misconfigured for all addresses at once."""
        host, _, port = (self.listen or f"127.0.0.1:{self.port}").rpartition(":")
        host = host.strip("[]")
        try:
            everywhere = ip_address(host).is_unspecified
        except ValueError:
            everywhere = False
        if everywhere:
            raise Misconfigured(
                f"[gateway] listen is {self.listen}: it serves sandboxes alone, so give one address, or the sandboxes' [gateway] networks"
            )
        return host, int(port)

    @property
    def state(self) -> Path:
        """`state_directory`. Raises Misconfigured where there is none."""
        if self.state_directory is None:
            raise Misconfigured(
                "[gateway] state_directory is not set: a directory of its own, in which it writes down what calls use while NATS is away"
            )
        return Path(self.state_directory)

    @property
    def ranges(self) -> tuple[IPv4Network, ...]:
        """`networks`, read. Raises Misconfigured."""
        try:
            found = tuple(ip_network(text) for text in self.networks)
        except ValueError as error:
            raise Misconfigured(f"[gateway] networks: {error}; expected networks such as 10.231.0.0/16") from error
        if self.networks and self.listen:
            raise Misconfigured("[gateway] has both listen and networks; keep one")
        for each in found:
            if not isinstance(each, IPv4Network) or each.prefixlen == 0:
                raise Misconfigured(f"[gateway] networks: {each} is no IPv4 network of sandboxes")
        return tuple(each for each in found if isinstance(each, IPv4Network))

    @property
    def missing_key(self) -> str:
        """What to say where there is no provider."""
        return (
            "no provider has a key: set ANTHROPIC_API_KEY, OPENAI_API_KEY or GEMINI_API_KEY where `sandreel up` is started,"
            " or [gateway] anthropic_api_key_file (openai_…, gemini_…) or keys_directory"
        )
