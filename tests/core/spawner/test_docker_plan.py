"""The engine is asked for exactly this. A change here is a change of what a session may do: look twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.contract.boot import BootSettings
from sandreel_core.contract.session import Limits
from sandreel_core.embedded.nats import HEAP
from sandreel_core.errors import Misconfigured, Refused
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner import docker_services as services
from sandreel_core.spawner.backend import BootSpec, Key

TERMS = plan.Terms(installation="ours", node="here", image="sandreel-session-slim:1")
SETTINGS = BootSettings(
    nats_urls=["nats://nats:4222"],
    org="acme",
    session="one",
    boot_id="2-3",
    token="secret-token",
    installation="ours",
    nats_password="secret-password",
    nats_creds="secret-creds",
)
SPEC = BootSpec(
    key=Key("acme", "one"), incarnation=2, boot=3, fresh=False, profile="default", limits=Limits(), image=None, settings=SETTINGS
)  # fmt: skip
WORKSPACE = plan.volume_mount("files", plan.WORKSPACE)

DEFAULT: dict[str, Any] = {
    "Image": "sandreel-session-slim:1",
    "Cmd": ["--settings-stdin"],
    "User": "65534:65534",
    "WorkingDir": "/workspace",
    "Hostname": "sandbox",
    "Env": [
        "LANG=C.UTF-8",
        "HOME=/workspace/.home",
        "TMPDIR=/tmp",
        "PIP_CACHE_DIR=/cache/pip",
        "UV_CACHE_DIR=/cache/pip",
        "NPM_CONFIG_CACHE=/cache/npm",
        "BUN_INSTALL_CACHE_DIR=/cache/bun",
        "SANDREEL_BOOT=ours/acme/one/2-3",
    ],
    "Labels": {
        "sandreel.kind": "session",
        "sandreel.installation": "ours",
        "sandreel.org": "acme",
        "sandreel.session": "one",
        "sandreel.incarnation": "2",
        "sandreel.boot": "2-3",
        "sandreel.profile": "default",
        "sandreel.node": "here",
        "sandreel.fence": "unfenced",
    },
    "OpenStdin": True,
    "StdinOnce": True,
    "AttachStdin": True,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "StopSignal": "SIGTERM",
    "Healthcheck": {"Test": ["NONE"]},
    "HostConfig": {
        "NetworkMode": "sandreel-8f77d787f7131c00",
        "Dns": ["127.0.0.1"],
        "DnsOptions": ["timeout:1", "attempts:1"],
        "Mounts": [
            {"Type": "volume", "Source": "files", "Target": "/workspace", "VolumeOptions": {"NoCopy": True}},
            {
                "Type": "volume",
                "Source": "sandreel-8f77d787f7131c00-cache",
                "Target": "/cache",
                "VolumeOptions": {"NoCopy": True},
            },
        ],
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=134217728"},
        "ShmSize": 67108864,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "IpcMode": "private",
        "Init": False,
        "Memory": 1572864000,
        "MemorySwap": 1572864000,
        "NanoCpus": 1000000000,
        "PidsLimit": 128,
        "OomScoreAdj": 500,
        "Ulimits": [
            {"Name": "nofile", "Soft": 1024, "Hard": 4096},
            {"Name": "fsize", "Soft": 104857600, "Hard": 104857600},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        "LogConfig": {"Type": "local", "Config": {"max-size": "1m", "max-file": "1", "compress": "false"}},
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        "PublishAllPorts": False,
    },
    "NetworkingConfig": {"EndpointsConfig": {"sandreel-8f77d787f7131c00": {}}},
}


def body(terms: plan.Terms = TERMS, **changes: Any) -> dict[str, Any]:
    spec = replace(SPEC, **changes)
    return plan.session_container(terms, spec, image=terms.images(spec)[0], workspace=WORKSPACE)


def test_the_default_profile() -> None:
    assert body() == DEFAULT


def test_of_a_small_session_what_lies_in_memory_is_a_part() -> None:
    host = body(limits=Limits(memory_bytes=96 << 20))["HostConfig"]
    assert host["Tmpfs"]["/tmp"].endswith(f"size={24 << 20}")
    assert (host["Memory"], host["ShmSize"]) == (96 << 20, 12 << 20)


def test_the_agent_profile() -> None:
    """Only numbers and the user differ (behaviour §2.4)."""
    expected = json.loads(json.dumps(DEFAULT))
    expected["User"] = "10001:10001"
    expected["Labels"]["sandreel.profile"] = "agent"
    expected["HostConfig"] |= {
        "Tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=536870912"},
        "ShmSize": 536870912,
        "Memory": 4294967296,
        "MemorySwap": 4294967296,
        "NanoCpus": 2000000000,
        "PidsLimit": 512,
        "Ulimits": [
            {"Name": "nofile", "Soft": 4096, "Hard": 8192},
            {"Name": "fsize", "Soft": 536870912, "Hard": 536870912},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
    }
    assert body(profile="agent") == expected


def test_law_6_nothing_secret_and_no_users_code_is_in_it() -> None:
    text = json.dumps(body())
    for secret in ("secret-token", "secret-password", "secret-creds", "nats://"):
        assert secret not in text
    assert not any(limit["Name"] == "cpu" for limit in body()["HostConfig"]["Ulimits"]), "no limit of processor time"


def test_a_sessions_limits_stand_above_its_profiles() -> None:
    host = body(limits=Limits(cpus=0.5, memory_bytes=64 << 20, pids=10))["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (
        5 * 10**8,
        64 << 20,
        64 << 20,
        10,
    )


def test_the_world_is_reached_by_the_proxy_and_services_without() -> None:
    env = body(replace(TERMS, proxy="http://egress:3128", direct=("localhost", "nats")))["Env"]
    for name in ("HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "http_proxy"):
        assert f"{name}=http://egress:3128" in env
    assert "NO_PROXY=localhost,nats" in env


@pytest.mark.parametrize(
    "image", ["-v /:/host", "--privileged", "a b", "a\nb", "", "image;rm", "a@sha256:1", "$(id)", "../x"]
)
def test_what_is_no_name_of_an_image_is_refused(image: str) -> None:
    if not image:
        assert body(image=image)["Image"] == TERMS.image
        return
    with pytest.raises(Refused, match="BAD_IMAGE"):
        body(image=image)


@pytest.mark.parametrize(
    "image", ["ubuntu", "ghcr.io/acme/box:1.2", "localhost:5000/a/b", "a@sha256:" + "0" * 64, "sandreel-session:dev"]
)
def test_what_is_one_is_taken(image: str) -> None:
    assert body(image=image)["Image"] == image


def test_sessions_of_agents_take_an_image_with_agents_where_there_is_one() -> None:
    terms = replace(TERMS, agent_images=("full:1", "agents:1"))
    assert terms.images(replace(SPEC, profile="agent")) == ("full:1", "agents:1", TERMS.image)
    assert terms.images(SPEC) == (TERMS.image,)
    assert terms.images(replace(SPEC, profile="agent", image="mine:1")) == ("mine:1",)


@pytest.mark.parametrize("user", [(0, 1), (1, 0)])
def test_nobody_is_root(user: tuple[int, int]) -> None:
    with pytest.raises(Misconfigured, match="at least 1"):
        body(replace(TERMS, users={"default": user, "agent": (1, 1)}))


def test_names_differ_wherever_what_they_name_does() -> None:
    keys = [Key("a", "b-c"), Key("a-b", "c"), Key("a", "b"), Key("b", "a")]
    names = {plan.volume_name(installation, key) for installation in ("one", "two") for key in keys}
    assert len(names) == 8
    assert plan.container_name("one", keys[0], "1-1") != plan.container_name("one", keys[0], "1-2")
    longest = Key("o" * 128, "s" * 64)
    assert len(plan.container_name("i" * 64, longest, "1-1")) < 128
    assert len(plan.bridge_name("i" * 64, longest.org)) <= 15, "IFNAMSIZ"


def test_the_bus_is_published_on_loopback_alone_and_may_do_nothing_else() -> None:
    found = services.nats_container(
        "ours", "nats:1", user=(999, 999), data="/data", config="/data/nats.json", port=20001, memory="1MiB"
    )
    host = found["HostConfig"]
    assert host["PortBindings"] == {"4222/tcp": [{"HostIp": "127.0.0.1", "HostPort": "20001"}]}
    assert (host["CapDrop"], host["ReadonlyRootfs"], host["SecurityOpt"]) == (["ALL"], True, ["no-new-privileges"])
    other = services.nats_container(
        "ours", "nats:2", user=(999, 999), data="/data", config="/data/nats.json", port=20001, memory="1MiB"
    )
    assert found["Labels"][services.CONFIG] != other["Labels"][services.CONFIG]


def test_wherever_the_bus_runs_it_may_remember_as_much_and_has_room_for_as_much_again() -> None:
    """It was said three times, and differently (decision 0048)."""
    tree, gib = Path(__file__).parents[3], 1 << 30
    found = services.nats_container(
        "ours", "nats:1", user=(1, 1), data="/data", config="/data/nats.json", port=20001, memory=HEAP
    )
    assert f"GOMEMLIMIT={HEAP}" in found["Env"]
    assert HEAP == "1GiB"
    assert found["HostConfig"]["Memory"] >= 2 * gib
    assert f"ENV GOMEMLIMIT={HEAP}\n" in (tree / "image" / "nats" / "Dockerfile").read_text()
    compose = (tree / "compose.yml").read_text()
    assert f"${{NATS_GOMEMLIMIT:-{HEAP}}}" in compose
    assert "${NATS_MEMORY:-2g}" in compose
