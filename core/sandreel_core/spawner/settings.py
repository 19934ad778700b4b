"""The spawner's settings: `[spawner]` and `SANDREEL_SPAWNER_*`. The installation's are in `[bus]`."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from sandreel_core.errors import Malformed, Misconfigured
from sandreel_core.keys import Key
from sandreel_core.settings import NatsUrl, Secret, Section
from sandreel_core.spawner.docker_settings import DockerSettings
from sandreel_core.spawner.issuer import Issuer

Positive = Annotated[int, Meta(ge=1, le=1_000_000)]
Ids = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,9}:[1-9][0-9]{0,9}$")]  # uid and gid are at least 1


MIN_KEY_BYTES = 32


class Settings(Section, frozen=True, kw_only=True):
    """Defaults and bounds: behaviour §2.3 and design §6.

    data            where workspaces and records are; no session in bubblewrap can read it
    hidden          directories that no session in bubblewrap can read either; absolute
    installation    names the owner of what the backend holds; absent: made from the installation's key, for two
                    installations of one name on one machine would end each other's processes
    installation_key  at least 32 characters; absent: made once, in a file below `data`
    node            this machine; absent: its host name
    runnerd_*       what sessions get to connect with; absent URLs: the spawner's own
    sessions_*      the NATS account of sessions (its public key) and the seed of a signing key of it: every boot then
                    gets an identity of its own, which lasts `runnerd_identity_s` and is renewed before that
    bubblewrap      auto: where it works
    roles           beside the spawner's own: what they are asked waits for them; to what no role is there for it says so, and a role that
                    is not named does not begin
    """

    section: ClassVar[str] = "spawner"
    backend: Literal["process", "docker"] = "process"
    docker: DockerSettings = DockerSettings()
    data: str
    hidden: Annotated[tuple[Annotated[str, Meta(pattern=r"^/")], ...], Meta(max_length=64)] = ()
    installation: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    installation_key: Annotated[Secret, Meta(min_length=MIN_KEY_BYTES)] | None = None
    node: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,253}$")] | None = None
    max_sessions: Positive = 10
    max_sessions_per_org: Positive = 50
    max_sessions_per_owner: Positive = 1
    max_ttl_s: Annotated[float, Meta(ge=60)] = 24 * 3600
    max_idle_s: Annotated[float, Meta(ge=1)] = 30 * 60
    create_timeout_s: Annotated[float, Meta(ge=1)] = 180
    stop_timeout_s: Annotated[float, Meta(ge=1)] = 60
    sweep_s: Annotated[float, Meta(ge=0.05)] = 60
    late_s: Annotated[float, Meta(ge=0.1)] = 15
    bubblewrap: Literal["auto", "on", "off"] = "auto"
    roles: tuple[Literal["broker", "bridge"], ...] = ("broker", "bridge")
    default_user: Ids = "65534:65534"
    agent_user: Ids = "10001:10001"
    runnerd_nats_urls: tuple[NatsUrl, ...] = ()
    runnerd_nats_user: str | None = None
    runnerd_nats_password: Secret | None = None
    sessions_account: Annotated[str, Meta(pattern=r"^A[A-Z2-7]{55}$")] | None = None
    sessions_key: Secret | None = None
    runnerd_identity_s: Annotated[float, Meta(ge=5, le=86_400)] = 3600
    runnerd_spool_bytes: Annotated[int, Meta(ge=1 << 20)] = 64 << 20
    runnerd_max_live_execs: Annotated[int, Meta(ge=1, le=10_000)] = 4
    runnerd_heartbeat_s: Annotated[float, Meta(ge=0.05)] = 5.0
    runnerd_log_level: Annotated[str, Meta(pattern=r"^(?i:debug|info|warning|error)$")] = "INFO"

    @property
    def node_name(self) -> str:
        return self.node or socket.gethostname()

    def installation_name(self, key: bytes) -> str:
        """`installation`, else a name that only this installation's key makes, and that tells nothing of it."""
        return self.installation or hmac.new(key, b"installation", hashlib.sha256).hexdigest()[:16]


def issuer(settings: Settings) -> Issuer | None:
    """Who signs runnerds; None where they share one user with a password. Raises Misconfigured."""
    if settings.sessions_account is None and settings.sessions_key is None:
        return None
    if settings.sessions_account is None or settings.sessions_key is None:
        raise Misconfigured("[spawner] sessions_account and sessions_key belong together: give both, or neither")
    try:
        key = Key(settings.sessions_key)
    except Malformed as error:
        raise Misconfigured(f"[spawner] sessions_key: {error}") from None
    return Issuer(settings.sessions_account, key, settings.runnerd_identity_s)


def user(text: str) -> tuple[int, int]:
    """uid and gid of a field of type Ids."""
    uid, _, gid = text.partition(":")
    return int(uid), int(gid)


def installation_key(settings: Settings) -> bytes:
    """The key of the installation; made by the first spawner that needs it. Blocking. Raises Misconfigured."""
    if settings.installation_key is not None:
        return settings.installation_key.encode()
    path = Path(settings.data) / "installation.key"
    draft = path.with_name(f"installation.key.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(os.urandom(32).hex())
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)  # another spawner was first: then its key counts
        draft.unlink()
        key = path.read_text().strip().encode()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"the installation's key {path} cannot be read or made: {error}") from error
    if len(key) < MIN_KEY_BYTES:
        # An empty one would let anybody make every session's token.
        raise Misconfigured(f"the installation's key {path} has fewer than {MIN_KEY_BYTES} characters: delete it")
    return key
