"""SIGKILL of everything that is not the recorder, in the middle of the output: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from sandreel_core.contract.exec import Lost
from sandreel_core.embedded.stack import Stack
from sandreel_core.errors import Refused
from tests.support.system import ORG, SETTINGS, Site, client_of, left_of, open_site, site_at
from tests.support.system_readers import reading

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("faults"), pytest.mark.timeout(180)]
VIEWER = "viewer"


@pytest.mark.parametrize(
    "victims",
    [
        ("spawner",),
        ("projector",),
        ("nats",),
        ("postgres",),
        ("spawner", "projector"),
        ("spawner", "nats"),
        ("spawner", "postgres"),
        ("projector", "nats"),
        ("projector", "postgres"),
        ("nats", "postgres"),
        ("spawner", VIEWER),
        ("projector", VIEWER),
        ("nats", VIEWER),
        ("postgres", VIEWER),
    ],
    ids="+".join,
)
async def test_killed_in_the_middle_of_the_output(site: Site, victims: tuple[str, ...]) -> None:
    job = await site.job(await site.session())
    watcher, attached = site.watcher(job), site.attached(job)
    async with reading(watcher, attached):
        await asyncio.gather(watcher.more(), attached.more())
        parts = site.kill(*(name for name in victims if name != VIEWER))
        await asyncio.gather(parts, *([attached.killed()] if VIEWER in victims else []))
        await asyncio.gather(watcher.more(), attached.more())
        job.enough()

    assert attached.attached == 1 + (VIEWER in victims)
    await site.check_job(job, (watcher, attached))


async def test_a_viewer_that_is_killed_goes_on_from_its_cursor(site: Site) -> None:
    job = await site.job(await site.session())
    viewers = [site.attached(job), site.attached(job)]
    async with reading(*viewers):
        for _ in range(3):
            await asyncio.gather(*(viewer.more(20_000) for viewer in viewers))
            await viewers[0].killed()
        job.enough()

    assert (viewers[0].attached, viewers[1].attached) == (4, 1)
    await site.check_job(job, viewers)


async def test_nats_away_for_longer_than_the_duplicate_window(site: Site) -> None:
    """What was sent and not acknowledged comes again when the server does not remember it any more."""
    window_s = 1.0
    job = await site.job(await site.session())
    watcher, attached = site.watcher(job), site.attached(job)
    async with reading(watcher, attached):
        for _ in range(2):
            await watcher.more()
            await site.kill_and_hold("nats")
            printed = job.printed_bytes()
            await asyncio.sleep(1.5 * window_s)
            assert job.printed_bytes() > printed, "the job waits for a bus that is away"
            await site.release("nats")
        await asyncio.gather(watcher.more(), attached.more())
        job.enough()

    await site.check_job(job, (watcher, attached))


async def test_a_full_spool_makes_the_child_wait(site: Site) -> None:
    session = await site.session()
    job = await site.job(session, pause_s=0)
    watcher = site.watcher(job)
    async with reading(watcher):
        await watcher.more()
        await site.kill_and_hold("nats")
        await site.waits(job)
        assert job.printed_bytes() > 2 << 20, "the spool was not used"
        await site.release("nats")
        await watcher.more()
        job.enough()

    await site.check_job(job, (watcher,))


async def test_a_slow_viewer_costs_the_fast_one_nothing_and_loses_nothing(site: Site) -> None:
    job = await site.job(await site.session(), wave=1000, pause_s=0.01)
    slow, fast = site.watcher(job), site.watcher(job)
    async with reading(slow, fast):
        await asyncio.gather(slow.more(), fast.more())
        slow.go.clear()
        before = slow.size
        await fast.more(10_000_000)
        job.enough()
        await fast.over()
        assert slow.size - before < 2_000_000
        slow.go.set()

    await site.check_job(job, (slow, fast))


@pytest.mark.parametrize("others", [(), ("nats",), ("spawner",)], ids=("alone", "nats", "spawner"))
async def test_a_killed_recorder_leaves_an_exact_prefix_and_one_lost(site: Site, others: tuple[str, ...]) -> None:
    session = await site.session()
    ended = await site.job(session, "ended", limit=1000)
    watcher = site.watcher(ended)
    async with reading(watcher):
        pass
    job = await site.job(session, "cut")
    shy = await site.client.exec(ORG, session, shell="trap '' TERM HUP INT; setsid sleep 600 & sleep 600")
    watcher, attached = site.watcher(job), site.attached(job)
    async with reading(watcher, attached):
        await asyncio.gather(watcher.more(), attached.more())
        boot = site.kill_runnerd(session)
        await site.kill(*others)

    info = await site.stopped(session)
    # Only the spawner that is its parent hears how it ended; another one knows that it is gone.
    reasons = {"killed", "exited"} if "spawner" in others else {"killed"}
    assert info.phase == "stopped"
    assert info.state.stop_reason in reasons
    assert left_of(boot) == []
    for exec_id in (job.id, shy.id):  # they are closed behind the session's stop
        await site.client.handle(ORG, session, exec_id).wait()
    execs = await site.check()
    for exec_id in (job.id, shy.id):
        lost = execs[site.client.subjects(ORG, session).exec(exec_id)]
        assert (lost.ends, lost.exit_code, lost.boot_id) == (["exec.lost"], None, boot.boot_id)
    lost = execs[site.client.subjects(ORG, session).exec(job.id)]
    end = (await site.client.collect(ORG, session, job.id)).end
    assert isinstance(end, Lost)
    assert (end.cause, end.last_n) == ("runnerd_died", lost.last_n - 1)
    for reader in (watcher, attached):
        assert (reader.wrong, reader.ends, reader.exit_code) == ([], ["exec.lost"], None)
        for stream, seen in reader.data.items():
            assert job.printed(stream).startswith(bytes(seen))
            assert bytes(lost.data[stream]) == bytes(seen)
    rows = await site.sql(
        "SELECT exec, phase, lost_cause, exit_code FROM reel.execs WHERE session = $1 ORDER BY exec", session
    )
    assert rows == sorted(
        [(job.id, "lost", "runnerd_died", None), (shy.id, "lost", "runnerd_died", None), ("ended", "exited", None, 7)]
    )

    await site.client.resume(ORG, session, timeout_s=60)
    with pytest.raises(Refused, match="DUPLICATE_EXEC"):
        await site.client.exec(ORG, session, ["true"], exec=job.id)
    assert job.runs() == 1
    again = await site.job(session, "again", limit=1000)
    watcher = site.watcher(again)
    async with reading(watcher):
        pass
    await site.check_job(again, (watcher,))


async def test_a_session_that_is_stopped_while_its_output_is_held_ends_with_all_of_it(site: Site) -> None:
    session = await site.session()
    job = await site.job(session, pause_s=0)
    watcher = site.watcher(job)
    async with reading(watcher):
        await watcher.more()
        await site.hold(session, True)
        await site.waits(job)
        await site.client.stop(ORG, session)

    assert (watcher.wrong, watcher.ends) == ([], ["exec.exited"])
    assert (await site.client.collect(ORG, session, job.id, max_bytes=0)).reason == "stopped"
    for stream, seen in watcher.data.items():
        assert job.printed(stream).startswith(bytes(seen))
        assert len(job.printed(stream)) - len(seen) < 70_100, "more is missing than what it was about to print"
    await site.check()


async def test_a_killed_supervisor_is_followed_by_one_that_adopts_everything() -> None:
    directory = Path(tempfile.mkdtemp(prefix="sandreel-system-"))
    directory.chmod(0o711)
    data = directory / "data"
    try:
        pid = await up(data)
        first = Stack(data)
        async with client_of(first) as client:
            site = Site(first, client)
            job = await site.job(await site.session())
            watcher, attached = site.watcher(job), site.attached(job)
            async with reading(watcher, attached):
                await asyncio.gather(watcher.more(), attached.more())
                boot = site.boot(job.session)
                os.kill(pid, signal.SIGKILL)
                await watcher.more()
                async with site_at(data) as second:
                    await asyncio.gather(watcher.more(), attached.more())
                    assert second.boot(job.session) == boot
                    job.enough()
                    await asyncio.gather(watcher.over(), attached.over())
                    await second.check_job(job, (watcher, attached))
        assert left_of(boot) == []
    finally:
        await sandreel("down", "--data", str(data))
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def up(data: Path) -> int:
    """`sandreel up --detach`; the pid of the supervisor."""
    return int(
        json.loads(await sandreel("up", "--backend", "process", "--detach", "--json", "--data", str(data)))["pid"]
    )


async def sandreel(*arguments: str) -> bytes:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "sandreel_core.cli", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"]} | SETTINGS,
    )
    async with asyncio.timeout(90):
        output, _ = await child.communicate()
    assert child.returncode == 0, output
    return output


async def test_a_stack_that_stops_leaves_no_session_that_was_about_to_be_ready() -> None:
    async with open_site() as site:
        marker = f"SANDREEL_BOOT={site.stack.place.keys().installation}/".encode()
        for number in range(3):
            await site.client.create_session(ORG, f"young-{number}", wait="requested")

    left = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            left += [entry.name] if marker in (entry / "environ").read_bytes() else []
        except OSError:
            continue
    assert left == []
