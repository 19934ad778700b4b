"""Who is told what: the settings files and variables of roles and clients, from the stack's keys and the operator's own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from sandreel_core.egress.settings import Settings as EgressSettings
from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.gateway_wiring import GatewayWiring, is_gateways
from sandreel_core.embedded.place import Keys, Place, toml
from sandreel_core.embedded.secret_file import write_secret
from sandreel_core.errors import Misconfigured
from sandreel_core.permissions import ADMINISTRATOR, OPERATOR
from sandreel_core.settings import CONFIG, Bus, HealthListen, Port, Postgres, Section, given, load
from sandreel_core.spawner.docker_services import BUS_PORT, EGRESS_PORT, GATEWAY_PORT, service_name
from sandreel_core.spawner.docker_settings import BUS_ALIAS, EGRESS_ALIAS, GATEWAY_ALIAS, DockerSettings

_CREDS = "SANDREEL_BUS_CREDS_FILE"
_HIDDEN = "SANDREEL_SPAWNER_HIDDEN"
_VAULT_KEY = "SANDREEL_BROKER_KEY_"
LOOPBACK = "127.0.0.1"


class StackSettings(Section, frozen=True, kw_only=True):
    """`[stack]`: what `sandreel up` does. A port that is given is not moved when it is taken."""

    section: ClassVar[str] = "stack"
    nats_port: Port | None = None
    postgres_port: Port | None = None
    backend: Literal["process", "docker"] = "process"
    # Sessions are stopped together with the stack; what has not stopped by then goes on and is adopted again.
    stop_sessions_within_s: Annotated[float, Meta(ge=0, le=600)] = 45.0


@dataclass(frozen=True, slots=True)
class Wiring:
    """The operator's settings, read once. `nats` and `postgres`: whether the stack runs them itself."""

    environ: Mapping[str, str]
    path: Path | None
    settings: StackSettings
    bus: Bus
    postgres: Postgres
    docker: DockerSettings

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Wiring:
        """Raises Misconfigured."""
        named = environ.get(CONFIG, "").strip()
        path = Path(named).absolute() if named else None
        if given(HealthListen, environ=environ, path=path):
            raise Misconfigured(
                "[health] listen is for a role that is run by itself: `sandreel up` gives every role a port of its own on"
                " loopback, which `sandreel health` shows; leave it out"
            )
        return cls(
            environ,
            path,
            load(StackSettings, environ=environ, path=path),
            load(Bus, environ=environ, path=path),
            load(Postgres, environ=environ, path=path),
            load(DockerSettings, environ=environ, path=path),
        )

    @property
    def embeds_nats(self) -> bool:
        return "nats_urls" not in given(Bus, environ=self.environ, path=self.path)

    @property
    def in_docker(self) -> bool:
        return self.settings.backend == "docker"

    @property
    def embeds_egress(self) -> bool:
        """Whether the stack runs the way out too, if it has its image."""
        return self.in_docker and self.embeds_nats and self.docker.proxy is None

    @property
    def egress(self) -> dict[str, Any]:
        """What the operator has set of `[egress]`."""
        own = load(EgressSettings, environ=self.environ, path=self.path)
        names = given(EgressSettings, environ=self.environ, path=self.path)
        return {name: value for name, value in msgspec.to_builtins(own).items() if name in names}

    @property
    def gateway(self) -> GatewayWiring:
        return GatewayWiring.read(self.environ, self._own_tables().get("gateway", {}))

    @property
    def embeds_gateway(self) -> bool:
        """Whether the stack runs a gateway too: where a provider has a key, and NATS knows it by its own user."""
        return self.embeds_nats and self.gateway.wanted

    @property
    def embeds_postgres(self) -> bool:
        return self.postgres.dsn is None

    def connection(self, place: Place, keys: Keys) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the roles' [bus], the clients' [bus]). With an embedded server they are different users: what the roles' file
        names is the administrator's, for the command line; every role gets its own by `role_environment`."""
        bus = msgspec.structs.asdict(self.bus)
        bus["nats_urls"] = list(self.bus.nats_urls)
        if not self.embeds_nats:
            return bus, bus
        bus["nats_urls"] = [f"nats://127.0.0.1:{self.settings.nats_port or keys.nats_port}"]
        authority = Authority(place.identity)
        administrator, operator = (str(authority.creds_file(user.name)) for user in (ADMINISTRATOR, OPERATOR))
        return bus | {"creds_file": administrator}, bus | {"creds_file": operator}

    def write(self, place: Place, keys: Keys, dsn: str, *, egress: bool = False, gateway: bool = False) -> None:
        """The two settings files. `egress`, `gateway`: the stack's own is there."""
        roles, clients = self.connection(place, keys)
        tables = self._own_tables()
        spawner: dict[str, Any] = {
            "data": str(place.state),
            "backend": self.settings.backend,
            "installation": keys.installation,
        }
        if self.embeds_nats:
            authority = Authority(place.identity)
            spawner |= {
                "sessions_account": authority.account_key("SESSIONS"),
                "sessions_key_file": str(authority.sessions_file),
            }
            if self.in_docker:
                # Sessions reach the bus in their org's network, under a name; roles reach it on loopback.
                spawner["runnerd_nats_urls"] = [f"nats://{BUS_ALIAS}:{BUS_PORT}"]
                services = [f"{service_name(keys.installation, 'nats')}={BUS_ALIAS}:{BUS_PORT}", *self.docker.services]
                proxy = {}
                if egress:
                    services.append(f"{service_name(keys.installation, 'egress')}={EGRESS_ALIAS}:{EGRESS_PORT}")
                    proxy = {"proxy": f"http://{EGRESS_ALIAS}:{EGRESS_PORT}"}
                if gateway:
                    services.append(f"{service_name(keys.installation, 'gateway')}={GATEWAY_ALIAS}:{GATEWAY_PORT}")
                tables["docker"] = tables.get("docker", {}) | {"services": services} | proxy
        own_key = any(name.startswith(_VAULT_KEY) for name in self.environ)
        if not own_key and not {"key_file", "key_command"} & tables.get("broker", {}).keys():
            tables["broker"] = tables.get("broker", {}) | {"key_file": str(place.vault_key)}
        tables["bus"] = roles
        tables["postgres"] = {"dsn": dsn}
        own = tables.get("spawner", {})
        tables["spawner"] = spawner | own
        if isinstance(own.get("hidden", []), list):
            # The keys lie beside the spawner's own data; without root, sessions run as whoever may read them.
            tables["spawner"]["hidden"] = [str(place.data), *own.get("hidden", [])]
        if gateway:
            where = f"{GATEWAY_ALIAS}:{GATEWAY_PORT}" if self.in_docker else f"{LOOPBACK}:{keys.gateway_port}"
            tables["bridge"] = {"gateway_url": f"http://{where}"} | tables.get("bridge", {})
        tables.pop("stack", None)
        tables.pop("gateway", None)  # the gateway has a file of its own: the providers' keys may stand in it
        write_secret(place.roles, toml(tables))
        write_secret(place.client, toml({"bus": clients, "postgres": {"dsn": dsn}, "client": tables.get("client", {})}))

    def role_environment(self, place: Place, role: str | None = None) -> dict[str, str]:
        """The operator's variables but those that the stack decides, the roles' file, and the role's own credentials."""
        ours = (
            *("SANDREEL_BUS_", "SANDREEL_POSTGRES_", "SANDREEL_STACK_", "SANDREEL_HEALTH_"),
            *("SANDREEL_BOOT", "SANDREEL_EXEC_ID", "SANDREEL_DOCKER_SERVICES"),
        )
        kept = {
            name: value for name, value in self.environ.items() if not name.startswith(ours) and not is_gateways(name)
        }
        if kept.get(_HIDDEN, "").strip():
            kept[_HIDDEN] = f"{place.data},{kept[_HIDDEN]}"  # a variable stands above the file
        if self.embeds_nats and role is not None:
            kept[_CREDS] = str(Authority(place.identity).creds_file(role))
        return kept | {CONFIG: str(place.roles), "PYTHONUNBUFFERED": "1"}

    def _own_tables(self) -> dict[str, dict[str, Any]]:
        """The operator's file; what it names relative to itself is absolute."""
        if self.path is None:
            return {}
        tables = tomllib.loads(self.path.read_text())
        for table in tables.values():
            for key, value in table.items():
                if key.endswith("_file") and isinstance(value, str) and value:
                    table[key] = str(self.path.parent / value)
                elif isinstance(value, dict):
                    raise Misconfigured(f"{key} in {self.path} is a table: sections hold plain values")
        return tables


def health_variable(port: int) -> dict[str, str]:
    """What tells a role of the stack where to serve its health and metrics."""
    return {"SANDREEL_HEALTH_LISTEN": f"{LOOPBACK}:{port}"}
