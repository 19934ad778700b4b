"""On which addresses the gateway listens: one that is given, or those of this machine that lie in the sandboxes' networks.

A container is joined to an org's network while it runs. The kernel tells of every address that comes or goes (rtnetlink(7)), and
the gateway listens on those in the given ranges and on no other: never on all addresses.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network

from sandreel_core.errors import Misconfigured
from sandreel_core.log import Log

# linux/sockios.h and linux/rtnetlink.h. An interface's entry in SIOCGIFCONF has 40 bytes on 64-bit machines.
_SIOCGIFCONF, _RTMGRP_IPV4_IFADDR = 0x8912, 0x10
_ENTRY_BYTES, _MAX_INTERFACES = 40, 1024
# Where the kernel does not tell, it is looked this often.
_LOOK_S = 0.5

Open = Callable[[str, int], Awaitable[Callable[[], Awaitable[None]]]]
"""Listen there; what it returns ends that."""


def addresses() -> set[IPv4Address]:
    """Of this machine's interfaces that are up."""
    room = bytearray(_ENTRY_BYTES * _MAX_INTERFACES)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        view = (len(room), _address_of(room))
        told = fcntl.ioctl(asking.fileno(), _SIOCGIFCONF, struct.pack("iL", *view))
    used = struct.unpack("iL", told)[0]
    return {IPv4Address(bytes(room[at + 20 : at + 24])) for at in range(0, used, _ENTRY_BYTES)}


def _address_of(room: bytearray) -> int:
    import ctypes  # noqa: PLC0415 - needed for this one structure

    return ctypes.addressof((ctypes.c_char * len(room)).from_buffer(room))


class Doors:
    """`follow` keeps `opened` in step with the machine's addresses."""

    def __init__(
        self,
        ranges: tuple[IPv4Network, ...],
        port: int,
        open: Open,
        *,
        look: Callable[[], set[IPv4Address]] = addresses,
    ) -> None:
        self._ranges = ranges
        self._port = port
        self._open = open
        self._look = look
        self.opened: dict[IPv4Address, Callable[[], Awaitable[None]]] = {}
        self._log = Log("gateway")

    async def follow(self) -> None:
        """For ever. Raises Misconfigured when another program has the port."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as news:
            news.setblocking(False)
            news.bind((0, _RTMGRP_IPV4_IFADDR))
            while True:
                await self.step()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await loop.sock_recv(news, 65536)

    async def step(self) -> None:
        """Listen where it is due, and nowhere else."""
        due = {address for address in self._look() if any(address in each for each in self._ranges)}
        for address in self.opened.keys() - due:
            await self.opened.pop(address)()
            self._log.info("gateway listens no more", host=str(address), port=self._port)
        for address in sorted(due - self.opened.keys()):
            try:
                self.opened[address] = await self._open(str(address), self._port)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise Misconfigured(
                        f"[gateway] port: {address}:{self._port} is taken by another program"
                    ) from error
                self._log.warning("an address cannot be listened on yet", host=str(address), problem=str(error))
                continue
            self._log.info("gateway listens", host=str(address), port=self._port)
