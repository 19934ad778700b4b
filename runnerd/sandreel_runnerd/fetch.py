"""Download a URL into the workspace: http and https, streamed, and never from a private address.

A name is resolved once; every address that it has must be public, and the connection is made to exactly one
of those, so that a second answer of the name server changes nothing. Redirects go through the same checks.
Blocking; called in a thread. Imported at the first download (`http.client` costs some megabytes).
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from sandreel_core.contract.files import MAX_FETCH_BYTES, FetchFile, FileStored
from sandreel_core.errors import Refused
from sandreel_runnerd.files import Files

_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_CONNECT_TIMEOUT_S = 10.0
_READ_BYTES = 64 * 1024
# Ways to write an IPv4 address as an IPv6 one: the address inside is what counts (RFC 6052, RFC 8215).
_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))

Address = tuple[socket.AddressFamily, tuple[Any, ...]]


class Fetch:
    """One download. `abort`, from any other thread, ends it at once: a trickling server cannot hold it open."""

    def __init__(
        self, files: Files, request: FetchFile, *, max_bytes: int = MAX_FETCH_BYTES, allow_private: bool = False
    ) -> None:
        self._files = files
        self._request = request
        self._max_bytes = max_bytes
        self._allow_private = allow_private
        self._ends = time.monotonic() + request.timeout_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = False

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # not connected yet, or no more
                    self._socket.shutdown(socket.SHUT_RDWR)

    def run(self) -> tuple[FileStored, str]:
        """What was stored, and its path relative to the workspace.

        Raises Refused: BAD_REQUEST (the URL), PRIVATE_ADDRESS, FETCH_FAILED, FETCH_TIMEOUT, TOO_LARGE, CHECKSUM,
        and what a write may raise."""
        try:
            return self._run()
        except TimeoutError as error:
            raise self._timed_out() from error
        except (OSError, http.client.HTTPException) as error:
            if self._aborted or time.monotonic() >= self._ends:
                raise self._timed_out() from error
            raise Refused("FETCH_FAILED", f"the download broke off: {type(error).__name__}") from error

    def _timed_out(self) -> Refused:
        return Refused("FETCH_TIMEOUT", f"the download was not done within {self._request.timeout_s:g} s")

    def _run(self) -> tuple[FileStored, str]:
        url = self._request.url
        for _ in range(_MAX_REDIRECTS + 1):
            connection = self._connect(checked_url(url))
            response: http.client.HTTPResponse | None = None
            try:
                response = self._ask(connection, url)
                if response.status not in _REDIRECTS:
                    return self._store(response)
                location = response.getheader("Location")
                if not location:
                    raise Refused("FETCH_FAILED", f"http {response.status} without a location")
                url = urljoin(url, location)
            finally:
                # The answer holds the socket open beside the connection.
                if response is not None:
                    response.close()
                connection.close()
                with self._lock:
                    self._socket = None
        raise Refused("FETCH_FAILED", f"more than {_MAX_REDIRECTS} redirects")

    def _ask(self, connection: http.client.HTTPConnection, url: str) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("GET", target, headers={"Accept-Encoding": "identity", "User-Agent": "sandreel"})
        except (http.client.InvalidURL, ValueError) as error:
            raise Refused("BAD_REQUEST", "the url has characters that must be percent-encoded") from error
        return connection.getresponse()

    def _store(self, response: http.client.HTTPResponse) -> tuple[FileStored, str]:
        if response.status != 200:
            raise Refused("FETCH_FAILED", f"http {response.status}")
        length = response.length
        if length is not None and length > self._max_bytes:
            raise Refused("TOO_LARGE", f"the file has {length} bytes; at most {self._max_bytes} are fetched")
        upload = self._files.begin(self._request.path, mode=0o644, max_bytes=self._max_bytes)
        try:
            while True:
                self._check_time()
                data = response.read1(_READ_BYTES)
                if not data:
                    break
                upload.append(data)
            self._check_time()  # after an abort the socket merely looks ended
            if length is not None and upload.size != length:
                raise Refused("FETCH_FAILED", f"{upload.size} of {length} bytes came")
            digest = upload.finish(self._request.sha256)
        finally:
            upload.abort()
        return FileStored(size=upload.size, sha256=digest), upload.path

    def _check_time(self) -> float:
        left = self._ends - time.monotonic()
        if left <= 0 or self._aborted:
            raise self._timed_out()
        return left

    def _connect(self, parts: SplitResult) -> http.client.HTTPConnection:
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        plain = self._dial(self._resolve(host, port))
        plain.settimeout(self._check_time())
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            try:
                plain = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
            except (ssl.SSLError, ValueError) as error:
                plain.close()
                raise Refused("FETCH_FAILED", f"no trusted TLS connection: {type(error).__name__}") from error
            except OSError:
                plain.close()
                raise
            connection = http.client.HTTPSConnection(host, port)
        else:
            connection = http.client.HTTPConnection(host, port)
        # Connected here, to the address that was checked; `request` finds a socket and does not connect again.
        connection.auto_open = 0
        connection.sock = plain
        with self._lock:
            self._socket = plain
        self._check_time()
        return connection

    def _resolve(self, host: str, port: int) -> list[Address]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise Refused("FETCH_FAILED", "the host's name is not known") from error
        for _, _, _, _, address in found:
            if not self._allow_private and not is_public(str(address[0])):
                raise Refused("PRIVATE_ADDRESS", f"{host[:200]!r} has an address that is not public")
        return [(family, address) for family, _, _, _, address in found]

    def _dial(self, addresses: list[Address]) -> socket.socket:
        problem: OSError | None = None
        for family, address in addresses:
            dialled = socket.socket(family, socket.SOCK_STREAM)
            with self._lock:
                self._socket = dialled
            try:
                dialled.settimeout(min(self._check_time(), _CONNECT_TIMEOUT_S))
                dialled.connect(address)
            except OSError as error:
                dialled.close()
                problem = error
            except Refused:
                dialled.close()
                raise
            else:
                return dialled
        raise problem or OSError("the host has no address")


def checked_url(url: str) -> SplitResult:
    """Raises Refused (BAD_REQUEST) for anything but a http or https URL with a host and without a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused("BAD_REQUEST", "the url is not in order") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise Refused("BAD_REQUEST", "the url must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise Refused("BAD_REQUEST", "the url holds a user or a password; secrets go by reference")
    return parts


def is_public(text: str) -> bool:
    """Whether a numeric address is reachable from everywhere: not private, loopback, link-local, reserved or
    multicast, also when it is an IPv4 address in the clothes of an IPv6 one."""
    address: IPv4Address | IPv6Address | None = ip_address(text.partition("%")[0])
    while isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address.teredo is not None:
            inner = address.teredo[1]
        if inner is None and any(address in network for network in _NAT64):
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None:
            break
        address = inner
    return address is not None and address.is_global and not address.is_multicast
