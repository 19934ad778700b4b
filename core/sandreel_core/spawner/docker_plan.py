"""What the engine is asked for, to the last field: names, labels and the bodies of its API. Pure.

No body holds a secret or a word of a user's code: a boot's settings go over the container's standard input.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandreel_core.contract.boot import BOOT_MARKER
from sandreel_core.contract.session import Limits, Profile
from sandreel_core.errors import Misconfigured, Refused
from sandreel_core.spawner.backend import BootSpec, Fence, Key
from sandreel_core.spawner.fence import SANDBOX_DNS, SANDBOX_DNS_OPTIONS

WORKSPACE = "/workspace"
HOME = f"{WORKSPACE}/.home"
CACHE = "/cache"
CACHES = ("pip", "npm", "bun")

_LABEL = "sandreel."
INSTALLATION, ORG, SESSION = f"{_LABEL}installation", f"{_LABEL}org", f"{_LABEL}session"
INCARNATION, BOOT, PROFILE, NODE = f"{_LABEL}incarnation", f"{_LABEL}boot", f"{_LABEL}profile", f"{_LABEL}node"
# What `session.provisioned` says of it. One that says `proven` was not started before that was so.
FENCE = f"{_LABEL}fence"
# What an object is: `session`, `hand` (a container that is never started), `fence` (one that raises or proves it),
# `service`, `workspace`, `cache`, `org` and `front` (networks).
KIND = f"{_LABEL}kind"

_MIB = 1024 * 1024
_TMP = "/tmp"  # noqa: S108 - the container's own, in memory
# What lies there is the session's memory, and no process is rid of it by being killed: full to the last byte they must leave
# room for runnerd, or the kernel kills that (seen with 96 MiB). So of a small session each has a part at most.
_TMP_PART, _SHM_PART = 4, 8
# The engine's own grammar (distribution/reference), short of what nobody needs; never a leading dash.
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*(@sha256:[0-9a-f]{64})?")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a profile may use. All but cpus, memory and pids are not for a session to change."""

    user: tuple[int, int]
    cpus: float
    memory_bytes: int
    pids: int
    nofile: tuple[int, int]
    fsize_bytes: int
    tmp_bytes: int
    shm_bytes: int


# behaviour §2.4 and design §6
SHAPES: Mapping[Profile, Shape] = {
    "default": Shape((65534, 65534), 1, 1500 * _MIB, 128, (1024, 4096), 100 * _MIB, 128 * _MIB, 64 * _MIB),
    "agent": Shape((10001, 10001), 2, 4096 * _MIB, 512, (4096, 8192), 512 * _MIB, 512 * _MIB, 512 * _MIB),
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What every container of an installation shares.

    image   for sessions that name none
    agent_images  for those of the profile `agent`, the first that the engine has; where it has none of them, `image`
    users   (uid, gid) by profile, at least 1 each
    fence   `proven` where nothing starts without a proof
    proxy   the URL by which sessions reach the world; None: they do not
    direct  names that are reached without the proxy
    """

    installation: str
    node: str
    image: str
    users: Mapping[Profile, tuple[int, int]] = field(
        default_factory=lambda: {profile: shape.user for profile, shape in SHAPES.items()}
    )
    agent_images: tuple[str, ...] = ()
    fence: Fence = "unfenced"
    proxy: str | None = None
    direct: tuple[str, ...] = ("127.0.0.1", "localhost")

    def user(self, profile: Profile) -> tuple[int, int]:
        """Raises Misconfigured for root, which no session is."""
        user = self.users[profile]
        if min(user) < 1:
            raise Misconfigured(f"profile {profile} runs as {user[0]}:{user[1]}: uid and gid are at least 1")
        return user

    def defaults(self, profile: Profile) -> tuple[str, ...]:
        """As `images`, of a session that names none."""
        return (*(self.agent_images if profile == "agent" else ()), self.image)

    def images(self, spec: BootSpec) -> tuple[str, ...]:
        """Of which the session takes the first that is there. Raises Refused (BAD_IMAGE)."""
        found = (spec.image,) if spec.image else self.defaults(spec.profile)
        for image in found:
            if not IMAGE.fullmatch(image):
                raise Refused("BAD_IMAGE", f"{image[:100]!r} is no name of an image")
        return found


def mark(installation: str, *parts: str) -> str:
    """16 hexadecimal digits that only these parts make: ids joined by a character that they may hold could collide."""
    return hashlib.sha256("\0".join((installation, *parts)).encode()).hexdigest()[:16]


def container_name(installation: str, key: Key, boot_id: str) -> str:
    """One name a boot, so that the engine itself lets only one be made."""
    return f"sandreel-{key.session}-{mark(installation, *key)}-{boot_id}"


def volume_name(installation: str, key: Key) -> str:
    return f"sandreel-{key.session}-{mark(installation, *key)}-workspace"


def cache_name(installation: str, org: str) -> str:
    return f"sandreel-{mark(installation, org)}-cache"


def network_name(installation: str, org: str) -> str:
    return f"sandreel-{mark(installation, org)}"


def bridge_name(installation: str, org: str) -> str:
    """The network's interface on the host, for whoever sets rules: at most 15 characters (IFNAMSIZ)."""
    return f"sr-{mark(installation, org)[:12]}"


def session_labels(terms: Terms, spec: BootSpec) -> dict[str, str]:
    """By which a container is found again, and whose it is."""
    return key_labels(terms.installation, spec.key, "session") | {
        INCARNATION: str(spec.incarnation),
        BOOT: spec.boot_id,
        PROFILE: spec.profile,
        NODE: terms.node,
        FENCE: terms.fence,
    }


def key_labels(installation: str, key: Key, kind: str) -> dict[str, str]:
    return {KIND: kind, INSTALLATION: installation, ORG: key.org, SESSION: key.session}


def org_labels(installation: str, org: str, kind: str) -> dict[str, str]:
    return {KIND: kind, INSTALLATION: installation, ORG: org}


def volume_mount(name: str, target: str) -> dict[str, Any]:
    # NoCopy: what an image has at that place is its own, and would be copied with the image's owner.
    return {"Type": "volume", "Source": name, "Target": target, "VolumeOptions": {"NoCopy": True}}


def bind_mount(path: str, target: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": path, "Target": target, "BindOptions": {"Propagation": "rprivate"}}


def session_container(terms: Terms, spec: BootSpec, *, image: str, workspace: dict[str, Any]) -> dict[str, Any]:
    """The body of `POST /containers/create` for one boot. `workspace` is its mount. Raises Misconfigured."""
    key = spec.key
    return sandbox_container(
        terms,
        key.org,
        spec.profile,
        spec.limits,
        image=image,
        workspace=workspace,
        labels=session_labels(terms, spec),
        environment={BOOT_MARKER: f"{spec.settings.installation}/{key.org}/{key.session}/{spec.boot_id}"},
        spool_bytes=spec.settings.spool_bytes,
    )


def sandbox_container(
    terms: Terms,
    org: str,
    profile: Profile,
    limits: Limits,
    *,
    image: str,
    workspace: dict[str, Any],
    labels: dict[str, str],
    environment: dict[str, str],
    spool_bytes: int,
) -> dict[str, Any]:
    """What every sandbox of an org is like. Raises Misconfigured."""
    shape = SHAPES[profile]
    uid, gid = terms.user(profile)
    memory = limits.memory_bytes or shape.memory_bytes
    tmp = f"rw,exec,nosuid,nodev,mode=1777,size={min(shape.tmp_bytes, memory // _TMP_PART)}"
    network = network_name(terms.installation, org)
    return {
        "Image": image,
        "Cmd": ["--settings-stdin"],
        "User": f"{uid}:{gid}",
        "WorkingDir": WORKSPACE,
        "Hostname": "sandbox",
        "Env": [f"{name}={value}" for name, value in variables(terms, environment).items()],
        "Labels": labels,
        # The settings come this way, once; whoever attaches later finds it closed.
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},  # an image's own would be a process that no exec accounts for
        "HostConfig": {
            "NetworkMode": network,
            # The engine's own names only (`nats`): whatever else it asked would be asked for it by the host, outside.
            "Dns": [SANDBOX_DNS],
            "DnsOptions": list(SANDBOX_DNS_OPTIONS),
            "Mounts": [workspace, volume_mount(cache_name(terms.installation, org), CACHE)],
            "ReadonlyRootfs": True,
            "Tmpfs": {_TMP: tmp},
            "ShmSize": min(shape.shm_bytes, memory // _SHM_PART),
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],  # seccomp and AppArmor stay the engine's defaults
            "Privileged": False,
            "IpcMode": "private",
            "Init": False,  # runnerd is PID 1 itself: `kill -9 -1` by the agent would kill it behind an init
            "Memory": memory,
            "MemorySwap": memory,
            "NanoCpus": round((limits.cpus or shape.cpus) * 1_000_000_000),
            "PidsLimit": limits.pids or shape.pids,
            "OomScoreAdj": 500,
            "Ulimits": [
                {"Name": "nofile", "Soft": shape.nofile[0], "Hard": shape.nofile[1]},
                ulimit("fsize", max(shape.fsize_bytes, spool_bytes)),
                ulimit("core", 0),
            ],
            # What runnerd itself complains of; `compress` must be off where one file is kept.
            "LogConfig": {"Type": "local", "Config": {"max-size": "1m", "max-file": "1", "compress": "false"}},
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,
            "PublishAllPorts": False,
        },
        "NetworkingConfig": {"EndpointsConfig": {network: {}}},
    }


def variables(terms: Terms, own: dict[str, str]) -> dict[str, str]:
    """What `docker inspect` shows of it: nothing that is not known anyway."""
    found = {
        "LANG": "C.UTF-8",
        "HOME": HOME,
        "TMPDIR": _TMP,
        "PIP_CACHE_DIR": f"{CACHE}/pip",
        "UV_CACHE_DIR": f"{CACHE}/pip",
        "NPM_CONFIG_CACHE": f"{CACHE}/npm",
        "BUN_INSTALL_CACHE_DIR": f"{CACHE}/bun",
        **own,
    }
    if terms.proxy is not None:
        direct = ",".join(terms.direct)
        for name, value in (("HTTP_PROXY", terms.proxy), ("HTTPS_PROXY", terms.proxy), ("NO_PROXY", direct)):
            found |= {name: value, name.lower(): value}
    return found


def hand_container(installation: str, image: str, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    """A container that is never started: the engine unpacks into its mounts what a fresh volume is to hold."""
    return {
        "Image": image,
        "Entrypoint": ["/bin/false"],
        "Labels": {KIND: "hand", INSTALLATION: installation},
        "HostConfig": {"NetworkMode": "none", "Mounts": mounts, "CapDrop": ["ALL"]},
    }


def org_network(installation: str, org: str) -> dict[str, Any]:
    """The body of `POST /networks/create`, but its range: internal, so that nothing is routed out of it."""
    labels = org_labels(installation, org, "org")
    return network(network_name(installation, org), labels, bridge_name(installation, org), internal=True)


def network(name: str, labels: dict[str, str], bridge: str, *, internal: bool) -> dict[str, Any]:
    """A bridge without IPv6. `bridge`: its interface on the host."""
    return {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Internal": internal,
        "EnableIPv6": False,
        "Labels": labels,
        "Options": {"com.docker.network.bridge.name": bridge},
    }


def ulimit(name: str, value: int) -> dict[str, Any]:
    return {"Name": name, "Soft": value, "Hard": value}


def wants_disk_limit(limits: Limits, default_bytes: int | None) -> int | None:
    """Bytes that the workspace may hold; None: as much as there is."""
    return limits.disk_bytes or default_bytes
