"""Containers that serve sandboxes, as the engine is asked for them: the bus, and the network that publishes it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sandreel_core.spawner import docker_plan as plan

# A hash of the container's body, so that one that is as it should be is started again with the networks that it is in.
CONFIG = "sandreel.config"
# Of the bus, in the networks of sandboxes: the same always, also when its port on the host has to move.
BUS_PORT = 4222
# Of the egress proxy and of the gateway, likewise; and where such a role has its settings in its container, and what it keeps.
EGRESS_PORT, GATEWAY_PORT = 3128, 8600
SETTINGS, STATE = "/run/sandreel", "/var/lib/sandreel"
HEALTH_PORT = 9400
_MIB = 1024 * 1024
_TMP = "/tmp"  # noqa: S108 - the container's own, in memory


def front_network(installation: str) -> dict[str, Any]:
    """The network by which a service is published on the machine's loopback; no session is in it."""
    labels = {plan.KIND: "front", plan.INSTALLATION: installation}
    return plan.network(front_name(installation), labels, f"sr-{plan.mark(installation)[:12]}", internal=False)


def front_name(installation: str) -> str:
    return f"sandreel-{plan.mark(installation)}-front"


def service_name(installation: str, service: str) -> str:
    return f"sandreel-{plan.mark(installation)}-{service}"


def nats_container(
    installation: str, image: str, *, user: tuple[int, int], data: str, config: str, port: int, memory: str
) -> dict[str, Any]:
    """The bus: its files are the host's own at the same place, its port is the host's own on loopback.

    memory  the soft limit of its heap (GOMEMLIMIT); what the kernel allows has room for as much of the files besides
    """
    return _service(
        installation,
        image,
        user=user,
        command=["-c", config],
        env=[f"GOMEMLIMIT={memory}"],
        mounts=[plan.bind_mount(data, data)],
        published={BUS_PORT: port},
        limits={"Memory": 2048 * _MIB, "PidsLimit": 512, "Ulimits": [plan.ulimit("core", 0)]},
    )


def role_container(
    installation: str,
    image: str,
    module: str,
    *,
    user: tuple[int, int],
    settings: str,
    state: str | None,
    health_port: int,
    variables: Mapping[str, str],
) -> dict[str, Any]:
    """A role that sandboxes reach: `settings` is a directory of the host, and `state` one that it may write; its health is the
    host's own on loopback. `variables` are seen by whoever may inspect it: no secrets."""
    files = 8192  # two a connection of which `[egress] max_connections` has 1024, and room for more
    own = {"SANDREEL_CONFIG": f"{SETTINGS}/sandreel.toml", "SANDREEL_HEALTH_LISTEN": f"0.0.0.0:{HEALTH_PORT}"}
    return _service(
        installation,
        image,
        user=user,
        command=[module],
        env=[f"{name}={value}" for name, value in (own | dict(variables)).items()],
        mounts=[
            plan.bind_mount(settings, SETTINGS) | {"ReadOnly": True},
            *([plan.bind_mount(state, STATE)] if state is not None else []),
        ],
        published={HEALTH_PORT: health_port},
        limits={
            "Memory": 256 * _MIB,
            "PidsLimit": 128,
            "Ulimits": [plan.ulimit("core", 0), plan.ulimit("nofile", files)],
        },
    )


def _service(
    installation: str,
    image: str,
    *,
    user: tuple[int, int],
    command: list[str],
    env: list[str],
    mounts: list[dict[str, Any]],
    published: dict[int, int],
    limits: dict[str, Any],
) -> dict[str, Any]:
    """published: its ports, and those of the host's loopback."""
    body: dict[str, Any] = {
        "Image": image,
        "Cmd": command,
        "User": f"{user[0]}:{user[1]}",
        "Env": env,
        "Labels": {plan.KIND: "service", plan.INSTALLATION: installation},
        "ExposedPorts": {f"{port}/tcp": {} for port in published},
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},  # whoever starts it asks it itself
        "HostConfig": {
            "NetworkMode": front_name(installation),
            "Mounts": mounts,
            "PortBindings": {
                f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(at)}] for port, at in published.items()
            },
            "ReadonlyRootfs": True,
            "Tmpfs": {_TMP: f"rw,nosuid,nodev,mode=1777,size={16 * _MIB}"},
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "LogConfig": {"Type": "local", "Config": {"max-size": "1m", "max-file": "1", "compress": "false"}},
            "RestartPolicy": {"Name": "no"},  # whoever started it starts it again
            **limits,
        },
    }
    body["Labels"][CONFIG] = hashlib.sha256(repr(body).encode()).hexdigest()[:16]
    return body
