"""What an analyst waits for, as a login that row-level security binds to one organisation, over a job of a million lines."""

from __future__ import annotations

import asyncio
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import asyncpg

from bench.figure import Figure, median
from bench.output import LINES
from bench.rig import ORG, Rig
from bench.views import dsn
from sandreel_core.client import ExecHandle
from sandreel_projections import analysts

READS = 100
SEARCHES = 5
# In one line of a hundred thousand, so that what is measured is the search and not the printing.
NEEDLE = "needle"
# Lines of a hundred bytes, like those of the other figures; words, because one letter a million times searches too well.
TALKER = f"""
import random, sys
lines = int(sys.argv[1])
rnd = random.Random(1)
words = ["".join(rnd.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(2000)]
for i in range(1, lines + 1):
    text = f"{{i:8d}} " + " ".join(rnd.choices(words, k=13))
    text = text[:92] + ("{NEEDLE}" if i % 100_003 == 0 else text[92:98])
    print(text[:99])
"""


async def analyst(rig: Rig) -> list[Figure]:
    """A hundred lines from the middle, beside a table with a row per line; a word, beside grep through COPY."""
    session = await rig.session("analyst")
    handle = await rig.client.exec(ORG, session, [sys.executable, "-I", "-c", TALKER, str(rig.lines(LINES))])
    await rig.ended(handle)
    name, password = f"bench_{secrets.token_hex(4)}", secrets.token_urlsafe(24)
    operator = await asyncpg.connect(dsn(rig))
    await _projected(operator, handle)
    await analysts.add(dsn(rig), name, [ORG], password)
    try:
        await _row_per_line(operator, handle, name)
        login = await asyncpg.connect(dsn(rig), user=name, password=password)
        try:
            return [await _lines(login, handle, rig.lines(LINES)), await _search(login, handle)]
        finally:
            await login.close()
    finally:
        await operator.execute("DROP TABLE IF EXISTS bench_lines")
        await operator.close()
        await analysts.remove(dsn(rig), name)


async def _projected(operator: asyncpg.Connection, handle: ExecHandle) -> None:
    ended = "SELECT count(*) FROM reel.execs WHERE session = $1 AND exec = $2 AND phase = 'exited'"
    while not await operator.fetchval(ended, handle.session, handle.id):
        await asyncio.sleep(0.1)
    await operator.execute("VACUUM ANALYZE reel.exec_blocks")


async def _row_per_line(operator: asyncpg.Connection, handle: ExecHandle, name: str) -> None:
    """What one would have without blocks; it has the same security."""
    await operator.execute(
        "CREATE TABLE bench_lines AS SELECT org, session, exec, stream, line, text FROM reel.exec_lines"
        f" WHERE exec = '{handle.id}';"
        "CREATE INDEX ON bench_lines (exec, session, org, stream, line);"
        "ALTER TABLE bench_lines ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY own ON bench_lines USING (org = ANY ((SELECT reel_access.my_orgs())::text[]));"
        f"GRANT SELECT ON bench_lines TO {name}; ANALYZE bench_lines"
    )


async def _lines(login: asyncpg.Connection, handle: ExecHandle, lines: int) -> Figure:
    ours = "SELECT line, text FROM reel.lines_of($1, $2, $3, $4::bigint, $4::bigint + 99)"
    theirs = (
        "SELECT line, text FROM public.bench_lines WHERE org = $1 AND session = $2 AND exec = $3 AND stream = 'stdout'"
        " AND line BETWEEN $4::bigint AND $4::bigint + 99 ORDER BY line"
    )
    took: dict[str, list[float]] = {ours: [], theirs: []}
    dice = random.Random(1)
    for _ in range(READS):
        first = lines // 2 + dice.randrange(-lines // 10, lines // 10)
        found = {}
        for statement, times in took.items():
            began = time.perf_counter()
            found[statement] = await login.fetch(statement, ORG, handle.session, handle.id, first)
            times.append(time.perf_counter() - began)
        assert found[ours] == found[theirs]
    return Figure(
        *("100 lines in the middle of 1,000,000, p50", "ms", median(took[ours]) * 1e3, 10),
        detail={"a row per line, p50 ms": median(took[theirs]) * 1e3},
    )


async def _search(login: asyncpg.Connection, handle: ExecHandle) -> Figure:
    async def ours() -> list[str]:
        statement = "SELECT text FROM reel.search($1, $2, $3, $4)"
        return [row["text"] for row in await login.fetch(statement, ORG, NEEDLE, handle.session, handle.id)]

    async def theirs() -> list[str]:
        return await _grep(login, handle)

    took: dict[Callable[[], Awaitable[list[str]]], list[float]] = {ours: [], theirs: []}
    for _ in range(SEARCHES):
        found = []
        for search, times in took.items():
            began = time.perf_counter()
            found.append(await search())
            times.append(time.perf_counter() - began)
        assert found[0] == found[1]
        assert found[0]
    return Figure(
        *("a word in 1,000,000 lines", "ms", median(took[ours]) * 1e3, 2),
        median(took[theirs]) * 1e3,
        "grep through COPY",
    )


async def _grep(login: asyncpg.Connection, handle: ExecHandle) -> list[str]:
    """The blocks' bytes in order, binary, so that nothing is escaped: between them stand a few bytes of COPY's own."""
    program = await asyncio.create_subprocess_exec(
        *("grep", "-a", NEEDLE), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"LC_ALL": "C"}
    )
    assert program.stdin is not None
    writing = program.stdin

    async def pass_on(data: bytes) -> None:
        writing.write(data)
        await writing.drain()

    printed = asyncio.ensure_future(_all(program))
    await login.copy_from_query(
        "SELECT data FROM reel.exec_blocks WHERE org = $1 AND session = $2 AND exec = $3 ORDER BY stream, line, n",
        *(ORG, handle.session, handle.id),
        output=pass_on,
        format="binary",
    )
    writing.close()
    return [line.decode() for line in await printed]


async def _all(program: asyncio.subprocess.Process) -> list[bytes]:
    assert program.stdout is not None
    return (await program.stdout.read()).splitlines()
