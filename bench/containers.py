"""`python -m bench.containers`: what sessions in containers cost, beside bare Docker on the same engine in the same run."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from bench.bare import chatter
from bench.figure import Figure, keep, median, table
from bench.rig import ORG, ended, rig, without
from sandreel_core.client import Changed, Client, ClientSettings, Output
from sandreel_core.contract.message import Owner
from sandreel_core.contract.session import Profile
from sandreel_core.embedded.stack import Stack
from sandreel_core.images import image
from sandreel_core.settings import load
from sandreel_core.spawner import docker_spare
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_census import erase
from sandreel_core.spawner.docker_plan import network_name

LINES = 1_000_000
ROUNDS, EXECS, CROWD = 5, 20, 20
WARM_ROUNDS, SPARES = 8, 2
PRINT = f"import sys; sys.stdout.write(''.join(f'line {{n:07d}} of the job\\n' for n in range({LINES})))"
# As little as a program in a container can do that reaches the bus: import the client, connect, be greeted.
CONNECT = (
    "import nats, msgspec, socket; s = socket.create_connection(('nats', 4222)); s.recv(64); print('up', flush=True);"
    " import time; time.sleep(600)"
)
PYTHON = "/opt/sandreel/bin/python"
# What a session is given, as far as it costs time: also its share of the processor and a volume of its own, which
# `docker rm -f -v` takes away with it. Its network is the org's, which stays.
SHAPE = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("-m", "1500m", "--cpus", "1", "--pids-limit", "128", "-v", "/workspace"),
)
AWAY = ("rm", "-f", "-v")


class Yard:
    """A stack whose sessions are containers, and the engine's own command line beside it."""

    def __init__(self, stack: Stack, client: Client) -> None:
        self.stack = stack
        self.client = client
        self.image = image("session-slim")
        self.network = network_name(stack.place.keys().installation, ORG)
        self._names = 0

    async def session(self, profile: Profile = "default") -> str:
        self._names += 1
        name = f"bench-{self._names}"
        owner = Owner(type="bench", id=name)
        await self.client.create_session(ORG, name, owner=owner, profile=profile, timeout_s=180)
        return name

    async def away(self, session: str) -> None:
        await self.client.stop(ORG, session, wait="stopped")
        await self.client.destroy(ORG, session, wait="destroyed")

    async def bare(self, code: str = CONNECT, *, wait_for: bytes = b"up") -> str:
        """`docker run` of a hardened container that does nothing else; its name, once it has said so."""
        name = f"sandreel-bench-{uuid.uuid4().hex[:12]}"
        words = (
            "run",
            "--name",
            name,
            "--network",
            self.network,
            *SHAPE,
            "--entrypoint",
            PYTHON,
            self.image,
            "-I",
            "-c",
            code,
        )
        child = await asyncio.create_subprocess_exec(
            "docker", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert child.stdout is not None
        while wait_for not in await child.stdout.readline():
            pass
        child.kill()  # the command line; the container goes on
        await child.wait()
        return name


async def docker(*words: str) -> int:
    """How many bytes the command line printed."""
    child = await asyncio.create_subprocess_exec(
        "docker", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert child.stdout is not None
    count = 0
    while body := await child.stdout.read(1 << 20):
        count += len(body)
    await child.wait()
    return count


async def lines(yard: Yard) -> list[Figure]:
    """A million lines from a child to a viewer, all durable, beside an attached `docker exec` and `docker logs -f`: which have
    no views in Postgres, so the projector is down meanwhile, as in `bench.output`; how it is with it is in the details."""
    session, beside = await yard.session(), await yard.bare()
    ours, attached, logged = [], [], []
    size = LINES * len("line 0000000 of the job\n")
    async with without(yard.stack, "projector"):
        for _ in range(ROUNDS):
            ours.append(await _viewed(yard, session, size))
            began = time.perf_counter()
            assert await docker("exec", beside, "python3", "-c", PRINT) == size
            attached.append(time.perf_counter() - began)
    projected = [await _viewed(yard, session, size) for _ in range(2)]
    name = f"sandreel-bench-{uuid.uuid4().hex[:12]}"
    began = time.perf_counter()
    await docker("run", "-d", "--name", name, "--network", "none", "--entrypoint", "python3", yard.image, "-c", PRINT)
    assert await docker("logs", "-f", name) == size
    logged.append(time.perf_counter() - began)
    await asyncio.gather(docker(*AWAY, name), docker(*AWAY, beside), yard.away(session))
    return [
        Figure(
            *("a million lines, child → viewer", "s", median(ours), 1.2, median(attached), "docker exec, attached"),
            detail={"with the projector, s": median(projected)},
        ),
        Figure("a million lines, child → viewer", "s", median(ours), 0.15, median(logged), "docker logs -f"),
    ]


async def _viewed(yard: Yard, session: str, size: int) -> float:
    """Seconds from the command to the end of what it printed, `size` bytes."""
    began = time.perf_counter()
    handle = await yard.client.exec(ORG, session, ["python3", "-c", PRINT])
    seen = 0
    async with aclosing(yard.client.follow(ORG, session, handle.id)) as items:
        async for item in items:
            if isinstance(item, Output):
                seen += len(item.data)
            elif isinstance(item, Changed) and item.event.type == "exec.exited":
                break
    assert seen == size
    return time.perf_counter() - began


async def output(yard: Yard) -> list[Figure]:
    """A chatty child → acknowledged, in turn with a session of the process backend, which has no limits: so beside it the
    profile with as many processors as this machine has, and the other one in the details."""
    sessions: dict[Profile, str] = {profile: await yard.session(profile) for profile in ("agent", "default")}
    rates: dict[str, list[float]] = {name: [] for name in (*sessions, "process")}
    async with rig(1, lambda _: None) as beside, without(yard.stack, "projector"), beside.without("projector"):
        plain = await beside.session("output")

        async def contained(profile: Profile) -> None:
            began, end = await ended(
                yard.client, await yard.client.exec(ORG, sessions[profile], chatter(LINES, PYTHON))
            )
            rates[profile].append(LINES / ((end - began) / 1e9))

        for _ in range(ROUNDS):
            await contained("agent")
            began, end = await beside.ended(await beside.start(plain, LINES))
            rates["process"].append(LINES / ((end - began) / 1e9))
        # Afterwards: a server keeps what it was given some seconds ago in memory, and collects the more garbage the more that is.
        for _ in range(ROUNDS):
            await contained("default")
    await asyncio.gather(*(yard.away(session) for session in sessions.values()))
    return [
        Figure(
            *("child → acknowledged", "lines/s", median(rates["agent"]), 0.85, median(rates["process"])),
            *("process backend", True),
            detail={"default profile (1 cpu)": median(rates["default"])},
        )
    ]


async def life(yard: Yard) -> list[Figure]:
    """Create → ready, and stop and destroy, one after the other with bare containers."""
    first = await yard.session()  # keeps the org's network
    born, bare_born, gone, bare_gone, stopped = [], [], [], [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        session = await yard.session()
        born.append(time.perf_counter() - began)
        began = time.perf_counter()
        name = await yard.bare()
        bare_born.append(time.perf_counter() - began)
        began = time.perf_counter()
        await yard.client.stop(ORG, session, wait="stopped")
        stopped.append(time.perf_counter() - began)
        await yard.client.destroy(ORG, session, wait="destroyed")
        gone.append(time.perf_counter() - began)
        began = time.perf_counter()
        await docker(*AWAY, name)
        bare_gone.append(time.perf_counter() - began)
    await yard.away(first)
    return [
        Figure(
            "create → ready",
            "ms",
            median(born) * 1e3,
            2,
            median(bare_born) * 1e3,
            "docker run of a Python that connects",
        ),
        Figure(
            *("stop and destroy", "ms", median(gone) * 1e3, 1.5, median(bare_gone) * 1e3),
            "docker rm -f -v: container, volume, endpoint",
            detail={"of which stop ms": median(stopped) * 1e3},
        ),
    ]


async def execs(yard: Yard) -> list[Figure]:
    """`exec.start` → `exec.started` seen by a viewer, beside `docker exec` of true."""
    session, beside = await yard.session(), await yard.bare()
    ours, reference = [], []
    for number in range(EXECS):
        watcher = asyncio.ensure_future(_started(yard.client, session, f"true-{number}"))
        await asyncio.sleep(0.05)
        began = time.perf_counter()
        await yard.client.exec(ORG, session, ["true"], exec=f"true-{number}")
        ours.append(await watcher - began)
        began = time.perf_counter()
        await docker("exec", beside, "true")
        reference.append(time.perf_counter() - began)
    await asyncio.gather(docker(*AWAY, beside), yard.away(session))
    return [
        Figure("exec.start → exec.started", "ms", median(ours) * 1e3, 0.25, median(reference) * 1e3, "docker exec true")
    ]


async def _started(client: Client, session: str, exec_id: str) -> float:
    async with aclosing(client.follow(ORG, session, exec_id)) as items:
        async for item in items:
            if isinstance(item, Changed) and item.event.type == "exec.started":
                return time.perf_counter()
    raise AssertionError("no exec.started")


async def crowd(yard: Yard) -> list[Figure]:
    """Twenty at once, all ready."""
    first = await yard.session()
    began = time.perf_counter()
    names = await asyncio.gather(*(yard.bare() for _ in range(CROWD)))
    bare = time.perf_counter() - began
    await docker(*AWAY, *names)
    began = time.perf_counter()
    sessions = await asyncio.gather(*(yard.session() for _ in range(CROWD)))
    ours = time.perf_counter() - began
    await asyncio.gather(*(yard.away(session) for session in (*sessions, first)))
    return [Figure(f"{CROWD} at once, all ready", "s", ours, 1.5, bare, f"{CROWD} × docker run")]


async def warm(yard: Yard) -> list[Figure]:
    """Create → ready from a warm pool, which is whole again each time, one after the other with bare containers."""
    waiting = docker_spare.container_name(yard.stack.place.keys().installation, "")
    ours, bare = [], []
    for _ in range(WARM_ROUNDS):
        async with asyncio.timeout(120):
            while await docker("ps", "-q", "--filter", f"name={waiting}") < SPARES * len("0123456789ab\n"):
                await asyncio.sleep(0.2)
        await asyncio.sleep(1)  # it runs; now it has imported what it needs as well
        began = time.perf_counter()
        session = await yard.session()
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        name = await yard.bare()
        bare.append(time.perf_counter() - began)
        await asyncio.gather(docker(*AWAY, name), yard.away(session))
    return [
        Figure(
            *("create → ready, warm pool", "ms", median(ours) * 1e3, 150),
            detail={
                "docker run of a Python that connects, ms": median(bare) * 1e3,
                "at best, at worst, ms": f"{min(ours) * 1e3:.0f}, {max(ours) * 1e3:.0f}",
            },
        )
    ]


@asynccontextmanager
async def yard(**more: str) -> AsyncIterator[Yard]:
    """`more`: variables for the stack."""
    many = {f"SANDREEL_SPAWNER_MAX_SESSIONS{suffix}": "400" for suffix in ("", "_PER_ORG")}
    environ = dict(os.environ) | many | {"SANDREEL_STACK_BACKEND": "docker"} | more
    with tempfile.TemporaryDirectory(prefix="sandreel-bench-") as folder:
        Path(folder).chmod(0o711)
        async with Stack(Path(folder), environ=environ) as stack:
            installation = stack.place.keys().installation
            found = load(ClientSettings, environ={}, path=stack.client)
            async with Client.connect(found, actor="bench") as client:
                yield Yard(stack, client)
        async with Engine.open() as engine:
            await erase(engine, installation)


async def main(only: list[str]) -> int:
    figures: list[Figure] = []
    measures = (life, execs, lines, output, crowd)
    names = [*(each.__name__ for each in measures), "warm"]
    if unknown := [name for name in only if name not in names]:
        print(f"no such measurement: {' '.join(unknown)}; there are {' '.join(names)}", file=sys.stderr)
        return 2
    chosen = [each for each in measures if not only or each.__name__ in only]
    if chosen:
        async with yard() as here:
            for measure in chosen:
                figures += await measure(here)
                print(table(figures[-2:]), flush=True)
    if not only or "warm" in only:
        # A stack of its own: with a pool, no session of the others would be made as they measure it.
        async with yard(SANDREEL_DOCKER_WARM=f"{ORG}/default={SPARES}") as here:
            figures += await warm(here)
            print(table(figures[-1:]), flush=True)
    print(f"\n{table(figures)}\n\nkept as {keep(figures)}")
    return int(not all(figure.reached for figure in figures))


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
