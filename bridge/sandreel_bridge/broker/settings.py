"""What the broker is told: `[broker]` and `SANDREEL_BROKER_*`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from sandreel_bridge.broker.keyring import KeySource
from sandreel_bridge.broker.lease import LEASE_S
from sandreel_core.errors import Misconfigured
from sandreel_core.settings import Postgres, Secret, Section


class Settings(Section, frozen=True, kw_only=True):
    """Where the vault is, and what opens it.

    dsn          of the vault's database; absent: that of the views
    key_file     lines of 32 bytes in base64: the first seals, those behind it still open (a rotation)
    key_command  a program that prints such lines, instead of the file
    lease_s      how long one operation's lease lasts
    audit_days   how long the vault's audit keeps a line
    """

    section: ClassVar[str] = "broker"
    postgres: Postgres = Postgres()
    dsn: Annotated[Secret, Meta(pattern=r"^postgres(ql)?://")] | None = None
    key_file: str | None = None
    key_command: tuple[str, ...] = ()
    lease_s: Annotated[float, Meta(ge=1, le=3600)] = LEASE_S
    audit_days: Annotated[float, Meta(ge=1, le=36_500)] = 400

    def vault_dsn(self) -> str:
        """Raises Misconfigured."""
        dsn = self.dsn or self.postgres.dsn
        if dsn is None:
            raise Misconfigured("where is the vault? Give [broker] dsn or [postgres] dsn")
        return dsn

    def keys(self) -> KeySource:
        """Raises Misconfigured."""
        return KeySource(file=self.key_file, command=self.key_command)
