"""What becomes of a request, first by its name and then by its addresses, and in which words a client is told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from sandreel_core.egress.address import Address, Network, refusal
from sandreel_core.egress.request import HTTP_PORT, HTTPS_PORT, Request
from sandreel_core.egress.rules import Allowlist, Scope, refused_by
from sandreel_core.egress.target import Target

MAX_WHY = 400


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client is told when nothing comes of its request.

    code    a word for logs and metrics
    error   the type of RFC 9209 for the `Proxy-Status` field
    denied  by a rule; otherwise it failed (a dead host, a name that does not exist), which is no event
    """

    status: HTTPStatus
    code: str
    error: str
    why: str
    denied: bool = True

    def encode(self) -> bytes:
        body = f"sandreel egress: {self.why}\n".encode()
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nProxy-Status: sandreel-egress; error={self.error}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body


ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
UNKNOWN_CLIENT = Answer(
    *(HTTPStatus.FORBIDDEN, "unknown_client", "http_request_denied", "this address belongs to no session that runs")
)
SLOW = Answer(
    *(HTTPStatus.REQUEST_TIMEOUT, "slow_head", "http_request_error", "the request's head did not come in time"),
    denied=False,
)


def too_many(limit: int) -> Answer:
    why = f"more than {limit} connections of this session at once"
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "connections", "connection_limit_reached", why)


def too_long(limit: int) -> Answer:
    why = f"the request's head is over the limit of {limit} bytes"
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return Answer(status, "long_head", "http_request_error", why, denied=False)


def malformed(why: str) -> Answer:
    return Answer(HTTPStatus.BAD_REQUEST, "bad_request", "http_request_error", why[:MAX_WHY])


def failed(status: HTTPStatus, code: str, error: str, why: str) -> Answer:
    return Answer(status, code, error, why[:MAX_WHY], denied=False)


def by_name(
    request: Request, lists: Mapping[Scope, Allowlist], org: str, session: str, *, plain_http: bool
) -> Answer | None:
    """Before anything is looked up, so that a name that is not allowed is not even asked for. None: go on."""
    target = request.target
    wanted = HTTPS_PORT if request.tunnel else HTTP_PORT
    if not request.tunnel and not plain_http:
        return _denied(
            "plain_http", "plain HTTP is not served here: use https ([egress] plain_http would allow port 80)"
        )
    if target.port != wanted:
        return _denied("port", f"port {target.port} is not served, only {wanted}")
    scope = refused_by(lists, org, session, target)
    if scope is not None:
        return not_listed(target, scope)
    return None


def by_address(
    target: Target, found: Sequence[Address], also: Iterable[Network] = ()
) -> tuple[Sequence[Address], Answer | None]:
    """(the addresses that may be dialled, what is said when there is none)."""
    also = tuple(also)
    refusals = {address: refusal(address, also) for address in found}
    usable = [address for address, why in refusals.items() if why is None]
    if usable or not refusals:
        return usable, None if usable else failed(HTTPStatus.BAD_GATEWAY, "unresolved", "dns_error", "no address")
    address, why = next(iter(refusals.items()))
    told = f"{target.host} is {address}" if target.address is None else f"{address}"
    return (), Answer(
        HTTPStatus.FORBIDDEN, "address", "destination_ip_prohibited", f"{told}, which is not global: {why}"[:MAX_WHY]
    )


def not_listed(target: Target, scope: Scope) -> Answer:
    return _denied("allowlist", f"{target.host} is not on the allowlist of {scope}")


def _denied(code: str, why: str) -> Answer:
    return Answer(HTTPStatus.FORBIDDEN, code, "http_request_denied", why[:MAX_WHY])
