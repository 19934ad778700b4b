"""`sandreel run --rm` and `client.once`, against everything real: nothing of a session stays, however it ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from sandreel_core.client.once import IDLE_TIMEOUT_S, MAX_OUT_BYTES, TTL_S, check_paths
from sandreel_core.errors import Refused
from sandreel_core.session import Session
from tests.support.program import ended, sandreel, started
from tests.support.system import ORG, Site, open_site

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with open_site(SANDREEL_SPAWNER_SWEEP_S="1") as site:
        yield site


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def nothing_stays(site: Site) -> AsyncIterator[None]:
    """Whatever a test did, its session is destroyed (and one was there, unless it says otherwise)."""
    yield
    for info in await site.client.sessions(ORG):
        assert info.phase == "destroyed", f"{info.session} is {info.phase}"
        assert not site.folder(info.session).workspace.exists()


async def newest(site: Site, where: Callable[[Session], bool]) -> str:
    """The id of a session that is so, as soon as there is one."""
    async with asyncio.timeout(60):
        while True:
            for info in await site.client.sessions(ORG):
                if info.state.exists and where(info.state):
                    return info.session
            await asyncio.sleep(0.05)


async def running(site: Site, *args: str) -> asyncio.subprocess.Process:
    """`run --rm` of a job that has said "here"."""
    process = await started(site.data, "run", "--rm", *args, "--", "sh", "-c", "echo here; exec sleep 100")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"here\n"
    return process


async def test_files_in_a_job_and_files_out(site: Site, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"one\ntwo\n")
    script = "tr a-z A-Z < data/in > out.txt; mkdir d; cat; echo oops >&2; exit 3"
    done = await sandreel(
        site.data,
        *("run", "--rm", "--in", f"{tmp_path}/in:data/in", "--out", f"out.txt:{tmp_path}/out"),
        *("--out", f"d:{tmp_path}/d", "--", "sh", "-c", script),
        stdin=b"piped",
    )

    assert (done.code, done.out) == (3, b"piped"), done.err
    assert "oops" in done.err
    assert "d was not copied: it is a directory" in done.err
    assert (tmp_path / "out").read_bytes() == b"ONE\nTWO\n"


async def test_an_output_that_is_missing_or_too_large(site: Site, tmp_path: Path) -> None:
    done = await sandreel(
        site.data,
        *("run", "--rm", "--out", f"no:{tmp_path}/no", "--out", f"big:{tmp_path}/big", "--"),
        *("truncate", "-s", str(MAX_OUT_BYTES + 1), "big"),
    )

    assert done.code == 2
    assert "no was not copied" in done.err
    assert "big was not copied: TOO_LARGE" in done.err
    assert list(tmp_path.iterdir()) == []


async def test_a_time_out_is_the_jobs_end(site: Site) -> None:
    done = await sandreel(site.data, "run", "--rm", "--timeout", "1s", "--", "sleep", "100")

    assert done.code == 128 + signal.SIGTERM
    assert "longer than its --timeout" in done.err


async def test_ctrl_c_interrupts_and_twice_ends_it(site: Site) -> None:
    process = await running(site)
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 128 + signal.SIGINT

    process = await started(
        site.data, "run", "--rm", "--", "sh", "-c", "trap 'echo no' INT; echo here; sleep 100; sleep 100"
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"here\n"
    process.send_signal(signal.SIGINT)
    assert await process.stdout.readline() == b"no\n"
    process.send_signal(signal.SIGINT)
    done = await ended(process)
    assert done.code == 130
    assert "the job ends with its session" in done.err


async def test_being_told_to_end_takes_the_session_along(site: Site) -> None:
    process = await running(site)
    process.send_signal(signal.SIGTERM)

    assert (await ended(process)).code == 128 + signal.SIGTERM


async def test_ctrl_c_while_the_session_is_made(site: Site) -> None:
    process = await started(site.data, "run", "--rm", "--", "sleep", "100")
    await newest(site, lambda state: state.phase != "none")
    process.send_signal(signal.SIGINT)

    assert (await ended(process)).code == 128 + signal.SIGINT


async def test_a_lost_exec(site: Site) -> None:
    process = await running(site)
    session = await newest(site, lambda state: state.owner is not None and state.owner.type == "once")
    site.kill_runnerd(session)
    done = await ended(process)

    assert done.code == 125
    assert "may still be there" not in done.err


async def test_a_create_that_is_refused_or_fails(site: Site) -> None:
    done = await sandreel(site.data, "run", "--rm", "--", "no-such-program")
    assert done.code == 126

    with pytest.raises(Refused, match="INVALID_CWD"):
        async with site.client.one_shot(ORG) as shot:
            await shot.start(["true"], cwd="missing")
    assert shot.left is None
    done = await sandreel(site.data, "run", "--rm", "--image", "", "--", "true")
    assert done.code == 2
    assert "image" in done.err


async def test_what_a_killed_client_leaves_has_an_end(site: Site) -> None:
    process = await running(site)
    process.kill()
    await ended(process)
    session = await newest(site, lambda state: state.owner is not None and state.owner.type == "once")
    state = (await site.client.session(ORG, session)).state

    assert (state.idle_timeout_s, state.ttl_s) == (IDLE_TIMEOUT_S, TTL_S)
    await site.client.destroy(ORG, session)


async def test_the_sweep_stops_one_that_is_left_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same time, shortened so that it is met here."""
    monkeypatch.setattr("sandreel_core.client.once.IDLE_TIMEOUT_S", 1.0)
    left = site.client.one_shot(ORG)
    shot = await left.__aenter__()

    assert (await site.stopped(shot.session)).state.stop_reason == "idle"
    await left.__aexit__(None, None, None)
    assert shot.left is None


async def test_the_same_from_python(site: Site) -> None:
    once = await site.client.once(
        ORG,
        shell="cat a/b; sort a/b > sorted; echo $LANG",
        env={"LANG": "C"},
        files={"a/b": b"2\n1\n"},
        outputs=["sorted", "never"],
    )

    assert (once.result.exit_code, once.result.stdout, once.left) == (0, b"2\n1\nC\n", None)
    assert once.files == {"sorted": b"1\n2\n"}
    assert not once.ok
    assert set(once.missing) == {"never"}


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["--", "true"], "give --rm"),
        (["--rm"], "give the job after --"),
        (["--rm", "--in", "nowhere", "--", "true"], "is not LOCAL:PATH"),
        (["--rm", "--in", "/nowhere:a", "--", "true"], "'/nowhere' is not a file"),
        (["--rm", "--in", "/etc/hostname:../a", "--", "true"], "neither . nor .."),
        (["--rm", "--out", "a b:x", "--", "true"], "path 'a b'"),
        (["--rm", "--out", f"{'a' * 201}:x", "--", "true"], "at most 200 characters"),
        (["--rm", *[word for n in range(51) for word in ("--out", f"o{n}:x")], "--", "true"], "at most 50"),
        (["--rm", "--timeout", "301", "--", "true"], "at most 300 s"),
    ],
)
async def test_bad_input(site: Site, args: list[str], problem: str) -> None:
    before = len(await site.client.sessions(ORG))
    done = await sandreel(site.data, "run", *args)

    assert done.code == 2
    assert problem in done.err
    assert len(done.err.splitlines()) == 1
    assert len(await site.client.sessions(ORG)) == before


async def test_paths() -> None:
    check_paths(["a", "a.b/-c/_d", ".hidden"])
    for wrong in ("", "/a", "a//b", "a/", "a/..", "ä", "a\n", "a b"):
        with pytest.raises(Refused, match="BAD_REQUEST"):
            check_paths([wrong])
    with pytest.raises(Refused, match="twice"):
        check_paths(["a", "a"])
