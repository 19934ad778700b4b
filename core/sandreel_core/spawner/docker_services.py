"""Containers that serve sandboxes, as the engine is asked for them: the bus, and the network that publishes it. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

from sandreel_core.spawner import docker_plan as plan

# A hash of the container's body, so that one that is as it should be is started again with the networks that it is in.
CONFIG = "sandreel.config"
# Of the bus, in the networks of sandboxes: the same always, also when its port on the host has to move.
BUS_PORT = 4222
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

    memory  the soft limit of its heap (GOMEMLIMIT); what the kernel allows is four times as much
    """
    body: dict[str, Any] = {
        "Image": image,
        "Cmd": ["-c", config],
        "User": f"{user[0]}:{user[1]}",
        "Env": [f"GOMEMLIMIT={memory}"],
        "Labels": {plan.KIND: "service", plan.INSTALLATION: installation},
        "ExposedPorts": {f"{BUS_PORT}/tcp": {}},
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},  # whoever starts it asks it itself
        "HostConfig": {
            "NetworkMode": front_name(installation),
            "Mounts": [plan.bind_mount(data, data)],
            "PortBindings": {f"{BUS_PORT}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]},
            "ReadonlyRootfs": True,
            "Tmpfs": {_TMP: f"rw,nosuid,nodev,mode=1777,size={16 * _MIB}"},
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Memory": 2048 * _MIB,
            "PidsLimit": 512,
            "Ulimits": [plan.ulimit("core", 0)],
            "LogConfig": {"Type": "local", "Config": {"max-size": "1m", "max-file": "1", "compress": "false"}},
            "RestartPolicy": {"Name": "no"},  # whoever started it starts it again
        },
    }
    body["Labels"][CONFIG] = hashlib.sha256(repr(body).encode()).hexdigest()[:16]
    return body
