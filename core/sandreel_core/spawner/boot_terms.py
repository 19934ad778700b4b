"""What the boots of an installation have in common, and the settings that one of them gets."""

from __future__ import annotations

from dataclasses import dataclass

from sandreel_core.bus.streams import CMD_MAX_AGE_S
from sandreel_core.contract.boot import BootSettings
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.session import Session
from sandreel_core.spawner.backend import Key, boot_id_of
from sandreel_core.spawner.bootstrap import token_of
from sandreel_core.spawner.issuer import Issuer


@dataclass(frozen=True, slots=True)
class BootTerms:
    """What every boot of this installation gets in its settings. With an `issuer` it becomes a user of its own, else
    all share the user with the password."""

    installation: str
    key: bytes
    partitions: int
    nats_urls: tuple[str, ...]
    issuer: Issuer | None = None
    nats_user: str | None = None
    nats_password: str | None = None
    spool_bytes: int = 64 * 1024 * 1024
    max_live_execs: int = 4
    heartbeat_s: float = 5.0
    command_max_age_s: float = CMD_MAX_AGE_S
    log_level: str = "INFO"

    def settings(self, key: Key, session: Session) -> BootSettings:
        boot_id = boot_id_of(session.incarnation, session.boot)
        subjects = SessionSubjects(key.org, key.session, self.partitions)
        return BootSettings(
            nats_urls=list(self.nats_urls),
            org=key.org,
            session=key.session,
            boot_id=boot_id,
            token=token_of(self.key, key, boot_id),
            installation=self.installation,
            partitions=self.partitions,
            nats_creds=self.issuer.bootstrap(subjects) if self.issuer is not None else None,
            nats_user=self.nats_user,
            nats_password=self.nats_password,
            spool_bytes=self.spool_bytes,
            max_live_execs=session.limits.execs or self.max_live_execs,
            heartbeat_s=self.heartbeat_s,
            command_max_age_s=self.command_max_age_s,
            log_level=self.log_level,
        )
