"""What a lease costs: from a session's question to its answer, and what git's helper adds to a clone."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import asyncpg
import msgspec

from bench.figure import Figure, median, percentile
from bench.rig import ORG, Rig
from sandreel_bridge.broker.keyring import KeySource
from sandreel_bridge.broker.postgres import open_vault
from sandreel_bridge.broker.vault import Name
from sandreel_core.contract.credential import Grant
from sandreel_core.contract.lease import AskLease
from sandreel_core.settings import Postgres, load
from tests.support.git_server import git_server
from tests.support.system_users import bus_of, recorder_as

LEASES = 200
CLONES = 15
# Leases of one session are two a second, after 120 at once (`sandreel_bridge.broker.pace`).
PER_SESSION = 50


async def leases(rig: Rig) -> list[Figure]:
    """A lease; and `git clone` with the helper beside the token in its URL.

    The rate at which one session may ask is the reason for several.
    """
    value = "ghp_" + os.urandom(15).hex()
    with tempfile.TemporaryDirectory(prefix="sandreel-bench-") as place, git_server(Path(place), value) as server:
        server.make("acme/tool")
        options = {"host": server.host, "scheme": "http"}
        dsn = load(Postgres, environ={}, path=rig.stack.place.roles).dsn or ""
        async with open_vault(dsn, KeySource(file=str(rig.stack.place.vault_key))) as vault:
            await vault.put(Name(ORG, "github"), value.encode(), recipe="github", options=options, by="bench")
        asked = await _asked(rig, dsn)
        return [asked, await _cloned(rig, server.url("acme/tool"), value)]


async def _asked(rig: Rig, dsn: str) -> Figure:
    times: list[float] = []
    for number in range(LEASES // PER_SESSION):
        session = await rig.session(f"leases-{number}")
        await rig.client.send(ORG, session, Grant(slug="github"))
        subjects = rig.client.subjects(ORG, session)
        body = msgspec.json.encode(AskLease(boot_id="1-1", exec="bench", slug="github"))
        async with recorder_as(rig.stack, ORG, session) as bus:
            for _ in range(PER_SESSION):
                began = time.perf_counter()
                await bus.request(subjects.request("broker", "lease"), body)
                times.append(time.perf_counter() - began)
    return Figure(
        name="lease, question to answer, p50",
        unit="ms",
        ours=median(times) * 1000,
        target=10,
        detail={
            "p99": percentile(times, 0.99) * 1000,
            "two round trips to NATS and one query": await _reference(rig, dsn),
        },
    )


async def _reference(rig: Rig, dsn: str) -> float:
    """Milliseconds of the least that a lease is made of."""
    times = []
    connection = await asyncpg.connect(dsn)
    async with bus_of(rig.stack) as bus:
        for _ in range(LEASES):
            began = time.perf_counter()
            await bus.state("REEL-0")
            await bus.state("REEL-0")
            await connection.fetchval("SELECT count(*) FROM vault.credentials WHERE org = $1", ORG)
            times.append(time.perf_counter() - began)
    await connection.close()
    return median(times) * 1000


async def _cloned(rig: Rig, url: str, value: str) -> Figure:
    session = await rig.session("clones")
    await rig.client.send(ORG, session, Grant(slug="github"))
    with_token = url.replace("http://", f"http://x:{value}@")
    ours: list[float] = []
    reference: list[float] = []
    for _ in range(rig.rounds(CLONES)):
        for where, times in ((url, ours), (with_token, reference)):
            # Timed inside, so that what starting an exec takes is no part of it.
            text = f"rm -rf tool; a=$(date +%s%N); git clone -q {where} tool; b=$(date +%s%N); echo $((b-a))"
            done = await rig.client.run(ORG, session, ["sh", "-c", text])
            times.append(int(done.stdout) / 1e6)
    return Figure(
        name="git clone with the helper, beyond the token in its URL",
        unit="ms",
        ours=median(ours) - median(reference),
        target=100,
        detail={"with the helper": median(ours), "with the token in the URL": median(reference)},
    )
