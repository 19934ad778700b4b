"""The backup drill of docs/backup.md: its commands as they stand there, against a whole installation with live sessions."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import pytest

from sandreel_core.client import Client, ClientSettings
from sandreel_core.embedded.ending import left_over, stop_sessions
from sandreel_core.embedded.stack import Stack
from sandreel_core.errors import Malformed, SandreelError
from sandreel_core.settings import load
from tests.support.system import ORG, SETTINGS, STREAM, Site
from tests.support.system_job import EXIT_CODE, STREAMS, Job
from tests.support.system_log import Told

pytestmark = [pytest.mark.xdist_group("backup"), pytest.mark.timeout(300)]
DOCUMENT = Path(__file__).parents[2] / "docs" / "backup.md"
# A command of the drill: starting a whole installation is the longest of them.
_COMMAND_S = 120


def commands(section: str, part: int = 0) -> list[str]:
    """The lines of one block of commands in the document."""
    text = DOCUMENT.read_text().split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    blocks: list[str] = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return blocks[part].strip().splitlines()


class Drill:
    """An installation below one directory, through the command line alone."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.backup = directory / "backup"
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(directory)} | SETTINGS
        self.said = ""

    async def run(self, line: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of a line of the document."""
        program, *words = line.replace("BACKUP", str(self.backup)).split()
        assert program == "sandreel"
        if words[0] == "up":
            words += ["--backend", "process"]  # the jobs are watched by their files
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sandreel_core.cli", *words, "--data", str(self.data)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environ,
        )
        async with asyncio.timeout(_COMMAND_S):
            out, err = await child.communicate()
        return child.returncode or 0, out.decode(), err.decode()

    async def do(self, *lines: str) -> str:
        """What they print; all of them must succeed."""
        said = ""
        for line in lines:
            code, out, err = await self.run(line)
            assert code == 0, f"{line}: {code} {out} {err}"
            said += out
        return said

    @asynccontextmanager
    async def site(self) -> AsyncIterator[Site]:
        """A client of what is up now."""
        stack = Stack(self.data, environ=self.environ)
        async with Client.connect(load(ClientSettings, environ={}, path=stack.client), actor="drill") as client:
            yield Site(stack, client)

    def lose_log(self) -> None:
        shutil.rmtree(self.data / "nats" / "store")

    def lose_views(self) -> None:
        shutil.rmtree(self.data / "postgres" / "cluster")


@pytest.fixture
async def drill() -> AsyncIterator[Drill]:
    # Not pytest's own directory: its parents are closed to the users that servers and sessions run as.
    directory = Path(tempfile.mkdtemp(prefix="sandreel-drill-"))
    directory.chmod(0o711)
    drill = Drill(directory)
    try:
        await drill.do("sandreel up --detach --keep-sessions")
        yield drill
    finally:
        await end(drill)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def end(drill: Drill) -> None:
    """Stop it with its sessions, whatever state the test has left it in."""
    with suppress(SandreelError):  # it may be down
        await stop_sessions(drill.data / "client.toml", within_s=20, report=lambda status: None)
    await drill.run("sandreel down")
    if left_over(drill.data):  # then a stack that keeps nothing ends them
        await drill.run("sandreel up --detach")
        await drill.run("sandreel down")


async def ended(site: Site, *jobs: Job) -> None:
    """Let the jobs end by themselves; others may go on."""
    for job in jobs:
        job.enough()
    for job in jobs:
        async with asyncio.timeout(90), aclosing(site.client.follow(ORG, job.session, job.id)) as items:
            async for _ in items:
                pass


async def finished(site: Site, *jobs: Job) -> dict[str, Told]:
    """Let the jobs end, which are all that run, and check log and views. Every exec by its id."""
    await ended(site, *jobs)
    return {told.subject.rpartition(".")[2]: told for told in (await site.check()).values()}


def check_part(told: Told, job: Job) -> None:
    """It ran once and its end is a fact; of its output what the gap says is missing, and nothing else."""
    assert job.runs() == 1
    assert (told.ends, told.exit_code) == (["exec.exited"], EXIT_CODE)
    for stream in STREAMS:
        have, printed = bytes(told.data[stream]), job.printed(stream)
        same = next((at for at, (a, b) in enumerate(zip(have, printed, strict=False)) if a != b), len(have))
        assert printed.endswith(have[same:]), f"{stream} is not what was printed, with one piece missing"


async def test_the_log_is_lost(drill: Drill) -> None:
    async with drill.site() as site:
        session = await site.session()
        before = await site.job(session, "before", pause_s=0.2)  # ends long after all
        over = await site.job(session, "over", pause_s=0.2)  # ends between backup and loss
        await site.projected()
        begun = await site.client.bus.state(STREAM)
        await drill.do(*commands("Take one"))
        copied = await site.client.bus.state(STREAM)
        after = await site.job(session, "after", pause_s=0.2)  # accepted behind the backup
        gone = await site.job(session, "gone", pause_s=0.2, limit=1)  # accepted and ended behind it
        await ended(site, over, gone)
        await site.projected()
        lost = await site.client.bus.state(STREAM)
        old = f"{lost.epoch}:0:{copied.last_sequence}"

    down, restore, up = commands("The log is lost")
    code, _, err = await drill.run(restore)
    assert (code, "sandreel is up on" in err) == (2, True), "it is refused while roles run"
    await drill.do(down)
    drill.lose_log()
    (told,) = map(json.loads, (await drill.do(f"{restore} --json")).splitlines())
    of_log = next(each for each in told["streams"] if each["stream"] == STREAM)
    assert begun.last_sequence <= of_log["restored_to"] <= copied.last_sequence
    assert of_log["known_from"] == "the views"
    assert of_log["last_known"] >= lost.last_sequence
    assert of_log["lost"] == of_log["last_known"] - of_log["restored_to"] > 0
    assert of_log["until"] is not None
    code, _, err = await drill.run(restore)
    assert (code, "--replace deletes it" in err) == (2, True), "what is there is not deleted unasked"

    await drill.do(up)
    async with drill.site() as site:
        state = await site.client.bus.state(STREAM)
        assert state.epoch == told["epoch"] != lost.epoch
        with pytest.raises(Malformed, match="it was restored or replaced"):
            async with aclosing(site.client.follow(ORG, session, "before", after=old)) as items:
                await anext(items)
        execs = await finished(site, before, over, after, gone)
        for job in (before, over, after, gone):
            assert execs[job.id].gaps == 1
            check_part(execs[job.id], job)
        assert bytes(execs["gone"].data["stdout"]) == b""
        more = await site.job(session, "more", limit=1)
        assert (await finished(site, more))["more"].gaps == 0, "the session goes on as if nothing had been"


async def test_the_views_are_lost_and_then_both(drill: Drill) -> None:
    empty, from_dump = (commands("Postgres is lost", part) for part in (0, 1))
    async with drill.site() as site:
        session = await site.session()
        job = await site.job(session, "early", limit=400)
        await finished(site, job)
        await drill.do(*commands("Take one"))
        late = await site.job(session, "late", pause_s=0.2)
        await site.projected()

    await drill.do(empty[0])
    drill.lose_views()
    await drill.do(*empty[1:])
    async with drill.site() as site:
        await site.projected()
        assert {row[0] for row in await site.sql("SELECT exec FROM reel.execs")} == {"early", "late"}

    down, restore, up = from_dump
    await drill.do(down)
    drill.lose_views()
    said = json.loads(await drill.do(f"{restore} --json"))
    (views,) = (each for each in said["views"] if each["stream"] == STREAM)
    assert said["restored"] == "postgres"
    assert views["unread"] > 0, "what the job printed since the dump"
    await drill.do(up)
    async with drill.site() as site:
        assert (await finished(site, late))["late"].gaps == 0

    await drill.do(down)
    drill.lose_views()
    drill.lose_log()
    said = await drill.do(commands("The log is lost")[1])
    assert f"{STREAM}: the copy ends at " in said
    assert "nobody knows how far the lost stream reached" in said
    code, _, err = await drill.run(restore)
    assert (code, "it was restored since" in err) == (2, True), "the dump knows only the old epoch"
    await drill.do(up)
    async with drill.site() as site:
        execs = await finished(site, job, late)  # the end of the second is stored again when its runnerd is back
        assert {name: told.ends for name, told in execs.items()} == {
            "early": ["exec.exited"],
            "late": ["exec.exited"],
        }
        check_part(execs["late"], late)


async def test_a_restore_that_is_cut_short_is_completed_by_the_next(drill: Drill) -> None:
    async with drill.site() as site:
        await finished(site, await site.job(await site.session(), "kept", limit=400))
        await drill.do(*commands("Take one"))
    down, restore, up = commands("The log is lost")
    await drill.do(down)
    drill.lose_log()
    damaged = drill.backup / "streams" / "CMD.snapshot"
    whole = damaged.read_bytes()
    manifest = drill.backup / "manifest.json"
    kept = manifest.read_text()
    # The last stream of all cannot be put back: what a server that goes away then leaves.
    damaged.write_bytes(whole[:-20])
    told = json.loads(kept)
    (cmd,) = (each["file"] for each in told["streams"] if each["name"] == "CMD")
    cmd |= {"bytes": len(whole) - 20, "sha256": hashlib.sha256(whole[:-20]).hexdigest()}
    manifest.write_text(json.dumps(told))
    code, _, err = await drill.run(restore)
    assert (code, err.count("\n")) == (2, 1), err
    code, _, err = await drill.run(up)
    assert (code, "a restore was cut short" in err) == (2, True), err
    damaged.write_bytes(whole)
    manifest.write_text(kept)
    await drill.do(restore, up)
    async with drill.site() as site:
        assert len(await site.check()) == 1
