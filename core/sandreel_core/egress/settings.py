"""The egress proxy's settings: `[egress]` and `SANDREEL_EGRESS_*`."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, ClassVar

from msgspec import Meta

from sandreel_core.egress.address import Network
from sandreel_core.errors import Misconfigured
from sandreel_core.settings import Section


class Settings(Section, frozen=True, kw_only=True):
    """Every bound of the proxy.

    listen          HOST:PORT, on the networks of the sessions; in a container 0.0.0.0:3128
    plain_http      serve plain HTTP to port 80 as well (Debian's mirrors); without it, CONNECT to 443 alone
    also_refused    networks that are global and yet nobody's business: this machine's own public addresses, a VPN's
    head_timeout_s  from the connection to the end of the request's head; also how long a refused client may take
    idle_timeout_s  without a byte in either direction; a model may think for minutes
    """

    section: ClassVar[str] = "egress"
    listen: Annotated[str, Meta(pattern=r"^(\[[0-9A-Fa-f:]+\]|[^\[\]:\s]+):[0-9]{1,5}$")] = "127.0.0.1:3128"
    plain_http: bool = False
    also_refused: Annotated[tuple[str, ...], Meta(max_length=256)] = ()
    max_connections: Annotated[int, Meta(ge=1, le=100_000)] = 1024
    max_connections_per_session: Annotated[int, Meta(ge=1, le=100_000)] = 128
    max_head_bytes: Annotated[int, Meta(ge=256, le=1 << 20)] = 16 * 1024
    head_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 10.0
    connect_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 15.0
    idle_timeout_s: Annotated[float, Meta(gt=0, le=7 * 86_400)] = 900.0

    @property
    def refused_networks(self) -> tuple[Network, ...]:
        """`also_refused`, read. Raises Misconfigured."""
        try:
            return tuple(ip_network(text) for text in self.also_refused)
        except ValueError as error:
            raise Misconfigured(f"[egress] also_refused: {error}; expected networks such as 198.51.100.0/24") from error
