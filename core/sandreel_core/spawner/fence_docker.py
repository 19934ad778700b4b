"""Raising and proving fences with the Docker engine: one-shot containers, each removed again whatever happens.

The other file beside the backend that knows the `docker` SDK. Its calls block, so each runs in a thread.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any, TypeVar

import docker
import docker.errors
import docker.types
import requests
from docker.models.containers import Container

from sandreel_core.clock import new_token
from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_core.spawner import fence
from sandreel_core.spawner.fence import OrgNetwork
from sandreel_core.spawner.fence_proof import MAX_WITNESS_ADDRESSES, FenceProof, Witness, attempts, judge

T = TypeVar("T")

# One attempt of the probe; a packet that is dropped is waited for this long, all at once.
TRY_S = 2.0
# A one-shot from its creation to its last word, on a busy machine; also how long a forgotten witness lives.
ONE_SHOT_S = 60.0
LABEL = "sandreel.fence"
MAX_OUTPUT_BYTES = 1 << 20
_LOOK_S = 0.05
# Where an engine's host keeps the lock of iptables-legacy; made by the first program that uses that.
_LOCK = "/run/xtables.lock"


@dataclass(frozen=True, slots=True)
class Tools:
    """What the one-shots are made of.

    image     has python3 (3.11 or newer) and, for raising, sh and iptables; never pulled here
    engine    answers within its own time-out
    user      what a session's agent runs as
    """

    engine: docker.DockerClient
    image: str
    installation: str
    python: str = "python3"
    user: str = "10001:10001"


async def raise_fence(tools: Tools, networks: Sequence[OrgNetwork]) -> None:
    """Make the installation's rules exactly those of these networks: all that there are. Idempotent.

    Raises Misconfigured with what the firewall said; Unavailable when the engine cannot be asked.
    """
    await _privileged(tools, fence.raising(tools.installation, networks))


async def take_down_fence(tools: Tools) -> None:
    """Remove the installation's rules. Idempotent. Raises as `raise_fence`."""
    await _privileged(tools, fence.taking_down(tools.installation))


async def prove(tools: Tools, network: OrgNetwork, *, others: Sequence[str] = ("bridge",)) -> FenceProof:
    """Try to get out of `network` as a session would, at whoever really listens: on the host, beside it, on `others`
    (names of networks, such as another org's; those that do not exist are left out).

    Raises Unavailable when the engine cannot be asked, Misconfigured when the image cannot probe. A proof that is not
    proven is no error: it names the holes.
    """
    began = time.monotonic()
    token = new_token("probe")
    places = {"the host": "host", "a neighbour on the same network": network.name}
    places |= {f"network {name}": name for name in others if name != network.name}
    listen = {"mode": "witness", "token": token, "lives_s": ONE_SHOT_S}
    async with _containers(tools, {what: _as_a_session(tools, name, listen) for what, name in places.items()}) as seen:
        said = await asyncio.gather(*(_first_line(each) for each in seen.values()))
        witnesses = [_witness(tools, what, line) for what, line in zip(seen, said, strict=True)]
        asked = attempts(network, witnesses)
        told = await _probe(tools, network.name, {"token": token, "attempts": asked, "wait_s": TRY_S})
        counts = await asyncio.gather(*(_arrivals(each) for each in seen.values()))
    problems = [f"{what} does not exist, so nobody could listen there" for what in places if what not in seen]
    limit = MAX_WITNESS_ADDRESSES
    problems += [
        f"{each.what} has more than {limit} addresses: not all can be tried"
        for each in witnesses
        if len(each.addresses) > limit
    ]
    outcomes, own, arrivals = told.get("outcomes", []), told.get("own", {}), dict(zip(seen, counts, strict=True))
    return judge(network.name, asked, outcomes, own, arrivals, problems, round(time.monotonic() - began, 3))


async def _privileged(tools: Tools, argv: Sequence[str]) -> None:
    lock = docker.types.Mount(_LOCK, _LOCK, type="bind")
    options: dict[str, Any] = {
        "entrypoint": list(argv),
        "command": [],
        "network_mode": "host",
        "user": "0:0",
        # Legacy tables are read and written through a raw socket.
        "cap_add": ["NET_ADMIN", "NET_RAW"],
        "tmpfs": {"/run": "size=1m"},
    }
    try:
        code, out = await _one_shot(tools, options | {"mounts": [lock], "tmpfs": {}})
    except _NoSuchPath:
        # Nobody has ever used the legacy tables on that host, so there is no lock to share.
        code, out = await _one_shot(tools, options)
    if code:
        raise Misconfigured(f"the firewall of the engine's host cannot be set: {_short(out)}")


async def _probe(tools: Tools, network: str, argument: dict[str, Any]) -> dict[str, Any]:
    code, out = await _one_shot(tools, _as_a_session(tools, network, argument | {"mode": "probe"}))
    if code:
        raise Misconfigured(f"image {tools.image} cannot probe ({tools.python} ended with {code}): {_short(out)}")
    return _line(tools, out.partition("\n")[0])


def _witness(tools: Tools, what: str, line: str) -> Witness:
    told = _line(tools, line or "the witness said nothing")
    try:
        return Witness(what, tuple(told["addresses"]), told["tcp"], told["udp"])
    except KeyError as error:
        raise Misconfigured(f"image {tools.image} cannot listen: {_short(line)}") from error


async def _arrivals(container: Container) -> int:
    text = await _thread(lambda: container.logs(stdout=True, stderr=False)[:MAX_OUTPUT_BYTES].decode(errors="replace"))
    return sum('"arrived"' in line for line in text.splitlines())


def _as_a_session(tools: Tools, network: str, argument: dict[str, Any]) -> dict[str, Any]:
    """The options of a sandbox on `network` with the probe as its program."""
    source = resources.files("sandreel_core.spawner").joinpath("fence_probe.py").read_text()
    return {
        "entrypoint": [tools.python, "-I", "-c", source, json.dumps(argument)],
        "command": [],
        "user": tools.user,
        "dns": [fence.SANDBOX_DNS],
        "dns_opt": list(fence.SANDBOX_DNS_OPTIONS),
        **({"network_mode": "host"} if network == "host" else {"network": network}),
    }


async def _one_shot(tools: Tools, options: dict[str, Any]) -> tuple[int, str]:
    """(exit code, what it printed)."""
    async with _containers(tools, {"one": options}) as started:
        if not started:
            raise Unavailable(f"network {options.get('network')} is not there (any more)")
        code = await _thread(lambda: started["one"].wait(timeout=ONE_SHOT_S)["StatusCode"])
        out = await _thread(lambda: started["one"].logs()[:MAX_OUTPUT_BYTES].decode(errors="replace"))
    return int(code), out


@asynccontextmanager
async def _containers(tools: Tools, wanted: dict[str, dict[str, Any]]) -> AsyncIterator[dict[str, Container]]:
    """Started containers with nothing that they do not need, all at once, and removed afterwards. Those whose network
    does not exist are left out."""
    made: dict[str, Container] = {}

    async def start(key: str, options: dict[str, Any]) -> None:
        hardened: dict[str, Any] = {
            "name": new_token("sandreel-fence-"),
            "labels": {LABEL: tools.installation},
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "read_only": True,
            "pids_limit": 64,
            "mem_limit": "128m",
            "working_dir": "/",
            "log_config": docker.types.LogConfig(type="json-file", config={"max-size": "1m", "max-file": "1"}),
        }
        # Shielded: what the engine was asked to make is made, and has to be known to be removed.
        create = _thread(lambda: tools.engine.containers.create(tools.image, **(hardened | options)))
        making = asyncio.ensure_future(create)
        try:
            made[key] = await asyncio.shield(making)
        except asyncio.CancelledError:
            made[key] = await making
            raise
        try:
            await _thread(made[key].start)
        except _NoSuchNetwork:
            missing.add(key)

    missing = set[str]()
    try:
        async with asyncio.TaskGroup() as group:
            for key, options in wanted.items():
                group.create_task(start(key, options))
        yield {key: made[key] for key in wanted if key not in missing}
    except BaseExceptionGroup as errors:
        # The first one says it; a group would have to be taken apart by everybody who calls.
        raise errors.exceptions[0] from errors
    finally:
        await asyncio.shield(asyncio.gather(*(_thread(partial(_remove, each)) for each in made.values())))


def _remove(container: Container) -> None:
    with suppress(docker.errors.NotFound):
        container.remove(force=True, v=True)


async def _first_line(container: Container) -> str:
    """As soon as it is printed; what there is, when the container has ended before. Asked for, and not streamed: a
    stream of the SDK that is left early keeps its socket."""
    deadline = time.monotonic() + ONE_SHOT_S
    while True:
        await _thread(container.reload)
        ended = container.status not in ("created", "running") or time.monotonic() > deadline
        out = (await _thread(container.logs))[:MAX_OUTPUT_BYTES].decode(errors="replace")
        if "\n" in out or ended:
            return str(out.partition("\n")[0])
        await asyncio.sleep(_LOOK_S)


def _line(tools: Tools, line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError as error:
        raise Misconfigured(f"image {tools.image} cannot probe: {_short(line)}") from error
    if not isinstance(told, dict):
        raise Misconfigured(f"image {tools.image} cannot probe: {_short(line)}")
    return told


class _NoSuchNetwork(Exception):
    pass


class _NoSuchPath(Exception):
    pass


async def _thread(call: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(call)
    except docker.errors.ImageNotFound as error:
        raise Misconfigured(f"the engine has no image for the fence: {_short(str(error.explanation))}") from error
    except docker.errors.APIError as error:
        text = str(error.explanation)
        if "bind source path does not exist" in text:
            raise _NoSuchPath from error
        if error.status_code == 404 and "network" in text:
            raise _NoSuchNetwork from error
        raise Unavailable(f"the engine does not do what the fence needs: {_short(text)}") from error
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise Unavailable(f"the engine cannot be asked: {_short(str(error))}") from error


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
