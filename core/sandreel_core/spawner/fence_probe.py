"""What runs inside the containers that prove a fence: `python3 -I -c SOURCE ARGUMENT`, so that any image with Python will do.

Standard library only, and nothing of sandreel. ARGUMENT is JSON:
{"mode": "witness", "token", "lives_s", "tcp"?}   listen, say where on the first line, then a line for each arrival
{"mode": "probe", "token", "attempts", "wait_s"}  try everything at once, say on one line what became of it
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import Any

# What the kernel says when nobody was there or a firewall stood between; anything else is somebody's answer.
_BLOCKED = frozenset(
    (
        *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EPERM, errno.ETIMEDOUT, errno.EADDRNOTAVAIL),
        *(errno.EAFNOSUPPORT, errno.ENETDOWN, errno.EINVAL),
    )
)
_ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def own_addresses() -> list[str]:
    """Every address of this network namespace but loopback. Link-local ones carry the scope that a neighbour would use."""
    found, last = [], ""
    with open("/proc/net/fib_trie") as trie:
        for line in trie:
            words = line.split()
            if len(words) >= 2 and words[0] == "|--":
                last = words[1]
            elif words[:3] == ["/32", "host", "LOCAL"] and not last.startswith("127.") and last not in found:
                found.append(last)
    if os.path.exists("/proc/net/if_inet6"):
        with open("/proc/net/if_inet6") as table:
            for line in table:
                text = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0]))
                if text != "::1":
                    found.append(f"{text}%eth0" if text.startswith("fe80") else text)
    return found


class _Arrivals(asyncio.DatagramProtocol):
    def __init__(self, token: bytes) -> None:
        self._token = token
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, where: Any) -> None:
        if self._token in data:
            say(arrived="udp", **{"from": where[0]})
        if self._transport is not None:
            self._transport.sendto(data, where)


async def witness(token: str, lives_s: float, tcp: int = 0) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        where = writer.get_extra_info("peername")
        try:
            async with asyncio.timeout(5):
                if token.encode() in await reader.read(64):
                    say(arrived="tcp", **{"from": where[0] if where else ""})
        except (OSError, TimeoutError):
            pass
        writer.close()

    loop = asyncio.get_running_loop()
    family, host = (socket.AF_INET6, "::") if os.path.exists("/proc/net/if_inet6") else (socket.AF_INET, "0.0.0.0")
    listening, heard = socket.socket(family), socket.socket(family, socket.SOCK_DGRAM)
    for each in (listening, heard):
        if family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # IPv4 as well
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, tcp))
    heard.bind((host, 0))
    server = await asyncio.start_server(accept, sock=listening)
    await loop.create_datagram_endpoint(lambda: _Arrivals(token.encode()), sock=heard)
    port = listening.getsockname()[1]
    # That it can be reached is shown first, or nothing would be proven by its not being reached.
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    say(addresses=own_addresses(), tcp=port, udp=heard.getsockname()[1])
    async with server:
        await asyncio.sleep(lives_s)


async def probe(token: str, attempts: list[dict[str, Any]], wait_s: float) -> None:
    tries = (attempt(each, token.encode(), wait_s) for each in attempts)
    dns, *outcomes = await asyncio.gather(ask_resolver(token, wait_s), *tries)
    say(outcomes=outcomes, own={"raw": raw(), "dns": dns})


async def attempt(what: dict[str, Any], token: bytes, wait_s: float) -> str:
    try:
        async with asyncio.timeout(wait_s):
            return await _KINDS[what["kind"]](what["host"], what["port"], token)
    except TimeoutError:
        return "blocked"
    except OSError as error:
        return "blocked" if error.errno in _BLOCKED else "answered"


async def by_tcp(host: str, port: int, token: bytes) -> str:
    with _socket(host, socket.SOCK_STREAM) as each:
        await asyncio.get_running_loop().sock_connect(each, _where(host, port))
        await asyncio.get_running_loop().sock_sendall(each, token)
    return "open"


async def by_udp(host: str, port: int, token: bytes) -> str:
    with _socket(host, socket.SOCK_DGRAM) as each:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        each.connect(_where(host, port))
        each.send(token)
        await asyncio.get_running_loop().sock_recv(each, 512)
    return "open"


async def by_ping(host: str, port: int, token: bytes) -> str:
    family = _family(host)
    kind = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    with socket.socket(family, socket.SOCK_DGRAM, kind) as each:
        each.setblocking(False)
        each.connect(_where(host, port))
        each.send(struct.pack("!BBHHH", _ECHO_REQUEST[family], 0, 0, 0, 1) + token)
        await asyncio.get_running_loop().sock_recv(each, 512)
    return "open"


_KINDS: dict[str, Callable[[str, int, bytes], Awaitable[str]]] = {"tcp": by_tcp, "udp": by_udp, "ping": by_ping}


def raw() -> str:
    """Whether this process may make packets that claim to be from somebody else."""
    for family, kind, number in (
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
        (socket.AF_PACKET, socket.SOCK_RAW, 0),
    ):
        try:
            socket.socket(family, kind, number).close()
        except OSError:
            continue
        return "allowed"
    return "refused"


class _OwnResolver(asyncio.DatagramProtocol):
    """On 127.0.0.1:53, where the engine's resolver is told to ask: says NXDOMAIN, and that it was asked."""

    def __init__(self, asked: asyncio.Event, token: bytes) -> None:
        self._asked = asked
        self._token = token
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, where: Any) -> None:
        if self._token in data:
            self._asked.set()
        self._transport.sendto(data[:2] + b"\x81\x83" + data[4:], where)


async def ask_resolver(token: str, wait_s: float) -> str:
    """Where a question goes that the engine's resolver cannot answer: `own` (into this namespace, so nowhere), `refused`,
    `answered` by somebody else, `unknown`."""
    with open("/etc/resolv.conf") as lines:
        servers = [line.split()[1] for line in lines if line.startswith("nameserver") and len(line.split()) > 1]
    asked, loop, mine = asyncio.Event(), asyncio.get_running_loop(), None
    with contextlib.suppress(OSError):
        mine, _ = await loop.create_datagram_endpoint(
            lambda: _OwnResolver(asked, token.encode()), local_addr=("127.0.0.1", 53)
        )
    said = [await _ask(server, token, wait_s) for server in servers[:3] if server != "127.0.0.1"]
    if mine is not None:
        mine.close()
    if asked.is_set():
        return "own"
    return next((each for each in said if each != "refused"), "refused")


async def _ask(server: str, token: str, wait_s: float) -> str:
    labels = (token[:40], "fence-probe", "example", "com")
    name = b"".join(bytes((len(label),)) + label.encode() for label in labels) + b"\0"
    question = struct.pack("!HHHHHH", 0x5A5A, 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1)
    try:
        async with asyncio.timeout(wait_s):
            with _socket(server, socket.SOCK_DGRAM) as each:
                each.connect((server, 53))
                each.send(question)
                answer = await asyncio.get_running_loop().sock_recv(each, 512)
    except TimeoutError:
        return "unknown"
    except OSError:
        return "refused"
    return "refused" if len(answer) > 3 and answer[3] & 15 in (2, 5) else "answered"  # SERVFAIL, REFUSED


def _socket(host: str, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(_family(host), kind)
    made.setblocking(False)
    return made


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _where(host: str, port: int) -> Any:
    return socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)[0][4]


if __name__ == "__main__":
    argument = json.loads(sys.argv[1])
    asyncio.run(witness(**argument) if argument.pop("mode") == "witness" else probe(**argument))
