"""Whose address is whose, told to the egress proxy: before a boot can run anything, and once it is dead."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from sandreel_core.bus.port import Bus
from sandreel_core.egress.address import Address
from sandreel_core.egress.register import Place, Register
from sandreel_core.log import Log
from sandreel_core.spawner.backend import Backend, Key, Sandbox


class Places:
    """Every method raises Unavailable."""

    def __init__(self, bus: Bus, installation: str) -> None:
        self._register = Register(bus)
        self._installation = installation
        self._known: dict[Place, Address] = {}
        self._log = Log("spawner.places")

    async def give(self, sandbox: Sandbox) -> None:
        """Its address is its own from now on. A sandbox without one reaches nothing by the proxy."""
        if sandbox.address is not None:
            place, address = _place(sandbox), ip_address(sandbox.address)
            await self._register.place(address, place)
            self._known[place] = address

    async def take(self, key: Key, boot_id: str) -> None:
        """The boot is dead. What this spawner did not know of is settled by the next sweep."""
        place = Place(key.org, key.session, boot_id)
        address = self._known.get(place)
        if address is not None:
            await self._register.withdraw(address, place)
            self._known.pop(place, None)

    async def settle(self, backend: Backend) -> None:
        """Make the register agree with what runs: after a crash, and where somebody else has ended something."""

        async def look() -> Mapping[Address, Place]:
            before = set(self._known)
            found = {
                ip_address(each.address): _place(each)
                for each in await backend.list()
                if each.address is not None and each.status == "running" and each.installation == self._installation
            }
            given_meanwhile = {place: at for place, at in self._known.items() if place not in before}
            self._known = {place: address for address, place in found.items()} | given_meanwhile
            return found

        if changed := await self._register.settle(look):
            self._log.info("places were settled", changed=changed)


def _place(sandbox: Sandbox) -> Place:
    return Place(sandbox.key.org, sandbox.key.session, sandbox.boot_id)
