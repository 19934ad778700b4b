"""What every call of a client stands on: a bus, and commands that are answered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from socket import gethostname

from sandreel_core import clock
from sandreel_core.bus.port import Bus
from sandreel_core.client.commands import Commands, Order, Outcome
from sandreel_core.client.reels import Reels
from sandreel_core.client.sessions import Sessions
from sandreel_core.client.versions import Versions
from sandreel_core.contract.catalog import CONTRACT_VERSION
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.exec import Start
from sandreel_core.contract.message import Command
from sandreel_core.contract.subjects import SessionSubjects


class Asking:
    """Any command of the contract, to any session."""

    def __init__(
        self,
        bus: Bus,
        *,
        partitions: int = 1,
        actor: str | None = None,
        answer_timeout_s: float = 30.0,
        now: Callable[[], datetime] = clock.now,
        contract_version: int = CONTRACT_VERSION,
    ) -> None:
        """contract_version: what this client speaks; runnerds that are too old or too new for it get no execs."""
        self.bus = bus
        self.partitions = partitions
        self.actor = actor
        self.answer_timeout_s = answer_timeout_s
        self._reels = Reels(bus)
        # Who asked and from which machine: the audit log's "from where".
        source = f"/client/{actor or ''}@{gethostname()}"
        self._commands = Commands(bus, self._reels, source=source, actor=actor, now=now)
        self._sessions = Sessions(bus, self._reels, partitions)
        self._versions = Versions(bus, self._sessions, contract_version)

    async def send(
        self,
        org: str,
        session: str,
        command: Command,
        *,
        command_id: str | None = None,
        deadline: datetime | None = None,
        expected_revision: Cursor | None = None,
        correlation_id: str | None = None,
        answer_timeout_s: float | None = None,
    ) -> Outcome:
        """Send any command of the contract and return the first event that names it as its cause. Raises Refused
        (CONTRACT_VERSION) for an `exec.start` whose session has a runnerd that is too old or too new for us."""
        order = Order(self.subjects(org, session), command, command_id, deadline, expected_revision, correlation_id)
        if isinstance(command, Start) and not await self._commands.sent(order):
            await self._versions.check(order.subjects)
        return await self._commands.ask(order, timeout_s=answer_timeout_s or self.answer_timeout_s)

    def subjects(self, org: str, session: str) -> SessionSubjects:
        """Raises Malformed when a name is out of range."""
        return SessionSubjects(org, session, self.partitions)
