"""Raising and proving fences with the Docker engine: one-shot containers, each removed again whatever happens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from sandreel_core.clock import new_token
from sandreel_core.errors import Misconfigured, NotFound, Refused, Unavailable
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner import fence
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.fence import OrgNetwork
from sandreel_core.spawner.fence_proof import MAX_WITNESS_ADDRESSES, FenceProof, Witness, attempts, judge

# One attempt of the probe; a packet that is dropped is waited for this long, all at once.
TRY_S = 2.0
# A one-shot from its creation to its last word, on a busy machine; also how long a forgotten witness lives.
ONE_SHOT_S = 60.0
KIND = "fence"
MAX_OUTPUT_BYTES = 1 << 20
_LOOK_S = 0.05
# Where an engine's host keeps the lock of iptables-legacy; made by the first program that uses that.
_LOCK = "/run/xtables.lock"
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tools:
    """What the one-shots are made of.

    image   has python3 (3.11 or newer) and, for raising, sh and iptables; never pulled here
    user    what a session's agent runs as
    """

    engine: Engine
    image: str
    installation: str
    python: str = "python3"
    user: str = "10001:10001"


@dataclass(frozen=True, slots=True)
class OneShot:
    """A program in a container with nothing that it does not need. `host`: what it gets beside that, as `HostConfig`."""

    argv: tuple[str, ...]
    network: str
    user: str
    host: dict[str, Any]


async def raise_fence(tools: Tools, networks: Sequence[OrgNetwork]) -> None:
    """Make the installation's rules exactly those of these networks: all that there are; for none, none. Idempotent.

    Raises Misconfigured with what the firewall said; Unavailable when the engine cannot be asked.
    """
    if not networks:
        await take_down_fence(tools)
        return
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
        said = await asyncio.gather(*(_first_line(tools, id) for id in seen.values()))
        witnesses = [_witness(tools, what, line) for what, line in zip(seen, said, strict=True)]
        asked = attempts(network, witnesses)
        told = await _probe(tools, network.name, {"token": token, "attempts": asked, "wait_s": TRY_S})
        counts = await asyncio.gather(*(_arrivals(tools, id) for id in seen.values()))
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
    # Legacy tables are read and written through a raw socket.
    may = {"CapAdd": ["NET_ADMIN", "NET_RAW"]}
    try:
        shared = OneShot(tuple(argv), "host", "0:0", may | {"Mounts": [plan.bind_mount(_LOCK, _LOCK)]})
        code, out = await _one_shot(tools, shared)
    except Refused as error:
        if "bind source path does not exist" not in error.message:
            raise Misconfigured(f"the firewall of the engine's host cannot be set: {error.message}") from error
        # Nobody has ever used the legacy tables on that host, so there is no lock to share.
        alone = OneShot(tuple(argv), "host", "0:0", may | {"Tmpfs": {"/run": f"rw,size={_MIB}"}})
        code, out = await _one_shot(tools, alone)
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


async def _arrivals(tools: Tools, id: str) -> int:
    text = await tools.engine.output(id, errors=False, max_bytes=MAX_OUTPUT_BYTES)
    return sum('"arrived"' in line for line in text.splitlines())


def _as_a_session(tools: Tools, network: str, argument: dict[str, Any]) -> OneShot:
    """A sandbox on `network` with the probe as its program."""
    argv = (tools.python, "-I", "-c", _source(), json.dumps(argument))
    dns = {"Dns": [fence.SANDBOX_DNS], "DnsOptions": list(fence.SANDBOX_DNS_OPTIONS)}
    return OneShot(argv, network, tools.user, dns)


@cache
def _source() -> str:
    return resources.files("sandreel_core.spawner").joinpath("fence_probe.py").read_text()


async def _one_shot(tools: Tools, wanted: OneShot) -> tuple[int, str]:
    """(exit code, what it printed). Raises as `_containers`; Unavailable when it does not end."""
    async with _containers(tools, {"one": wanted}) as started:
        if not started:
            raise Unavailable(f"network {wanted.network} is not there (any more)")
        id = started["one"]
        if not await tools.engine.ended(id, ONE_SHOT_S):
            raise Unavailable(f"a container of the fence has not ended after {ONE_SHOT_S:g} s")
        state = (await tools.engine.container(id))["State"]
        return int(state["ExitCode"]), await tools.engine.output(id, errors=True, max_bytes=MAX_OUTPUT_BYTES)


@asynccontextmanager
async def _containers(tools: Tools, wanted: dict[str, OneShot]) -> AsyncIterator[dict[str, str]]:
    """Started containers (ids), all at once, and removed afterwards. Those whose network does not exist are left out.

    Raises Misconfigured when the image is not there, Refused for what the engine does not take, Unavailable.
    """
    made: dict[str, str] = {}
    missing = set[str]()

    async def start(key: str, shot: OneShot) -> None:
        # Shielded: what the engine was asked to make is made, and has to be known to be removed.
        making = asyncio.ensure_future(tools.engine.create(new_token("sandreel-fence-"), _body(tools, shot)))
        try:
            made[key] = await asyncio.shield(making)
        except asyncio.CancelledError:
            made[key] = await making
            raise
        except NotFound as error:
            raise Misconfigured(f"image {tools.image} is not on this machine: `make image`") from error
        try:
            await tools.engine.start(made[key])
        except NotFound as error:
            if "network" not in str(error):
                raise Misconfigured(f"image {tools.image} cannot be started: {error}") from error
            missing.add(key)

    try:
        async with asyncio.TaskGroup() as group:
            for key, shot in wanted.items():
                group.create_task(start(key, shot))
        yield {key: made[key] for key in wanted if key not in missing}
    except BaseExceptionGroup as errors:
        # The first one says it; a group would have to be taken apart by everybody who calls.
        raise errors.exceptions[0] from errors
    finally:
        await asyncio.shield(asyncio.gather(*(tools.engine.remove(id, force=True) for id in made.values())))


def _body(tools: Tools, shot: OneShot) -> dict[str, Any]:
    return {
        "Image": tools.image,
        "Entrypoint": list(shot.argv),
        "Cmd": [],
        "User": shot.user,
        "WorkingDir": "/",
        "Labels": {plan.KIND: KIND, plan.INSTALLATION: tools.installation},
        "HostConfig": {
            "NetworkMode": shot.network,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "PidsLimit": 64,
            "Memory": 128 * _MIB,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
            **shot.host,
        },
    }


async def _first_line(tools: Tools, id: str) -> str:
    """As soon as it is printed; what there is, when the container has ended before. Asked for, and not streamed: a
    stream of the SDK that is left early keeps its socket."""
    deadline = time.monotonic() + ONE_SHOT_S
    while True:
        state = str((await tools.engine.container(id))["State"]["Status"])
        ended = state not in ("created", "running") or time.monotonic() > deadline
        out = await tools.engine.output(id, errors=True, max_bytes=MAX_OUTPUT_BYTES)
        if "\n" in out or ended:
            return out.partition("\n")[0]
        await asyncio.sleep(_LOOK_S)


def _line(tools: Tools, line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError as error:
        raise Misconfigured(f"image {tools.image} cannot probe: {_short(line)}") from error
    if not isinstance(told, dict):
        raise Misconfigured(f"image {tools.image} cannot probe: {_short(line)}")
    return told


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
