"""The whole system with its sessions in containers: what every other backend gives, and what only a container can."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import time
from datetime import timedelta

import pytest

from sandreel_core.cli.docker_checks import CACHE_STAYS, drop_caches, orphans
from sandreel_core.contract import exec as x
from sandreel_core.contract.session import Limits
from sandreel_core.errors import NotFound, Refused
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker_plan import cache_name, container_name, volume_name
from sandreel_core.spawner.docker_services import service_name
from sandreel_core.spawner.docker_spare import SPARE
from sandreel_core.spawner.docker_spare import container_name as spare_name
from tests.support import engine
from tests.support.credentials import sandreel
from tests.support.engine import docker
from tests.support.system import ORG, Site, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240), pytest.mark.xdist_group("docker")]


def container(site: Site, session: str, boot_id: str = "1-1") -> str:
    return container_name(site.stack.place.keys().installation, Key(ORG, session), boot_id)


async def test_an_exec_in_a_container_sees_its_workspace_and_no_recorder(site: Site) -> None:
    session = await site.session()
    info = await site.client.session(ORG, session)
    assert info.state.backend == "docker"
    look = "id -u; pwd; echo out; echo err >&2; cat /proc/1/environ /proc/1/mem; ls /proc/1/fd; kill -9 1; kill -9 -1"
    result = await site.client.run(ORG, session, ["sh", "-c", look])
    assert result.stdout.startswith(b"65534\n/workspace\nout\n")
    assert result.stderr.startswith(b"err\n")
    assert b"ermission denied" in result.stderr
    again = await site.client.run(ORG, session, ["echo", "alive"])
    assert (again.exit_code, again.stdout) == (0, b"alive\n")
    shown = await asyncio.to_thread(docker, "inspect", container(site, session))
    assert "BEGIN NATS USER JWT" not in shown
    assert "nats://" not in shown
    token = json.dumps(json.loads(shown)[0]["Config"]["Env"])
    assert "TOKEN" not in token


async def test_files_outlive_the_boot_and_end_with_the_session(site: Site) -> None:
    session = await site.session()
    await site.client.run(ORG, session, ["sh", "-c", "echo kept > file"])
    await site.client.stop(ORG, session, wait="stopped")
    await site.client.resume(ORG, session, wait="ready")
    assert (await site.client.run(ORG, session, ["cat", "file"])).stdout == b"kept\n"
    await site.client.destroy(ORG, session, wait="destroyed")
    left = await asyncio.to_thread(engine.objects, site.stack.place.keys().installation)
    assert not [name for name in left if f"-{session}-" in name]


async def test_a_program_in_a_container_asks_for_its_credential(site: Site) -> None:
    value = "tok-" + os.urandom(15).hex()
    await sandreel(site, "put", "tool", value=value)
    await sandreel(site, "put", "cluster", "--recipe", "kubeconfig", value=f"{value}\n")
    digest = hashlib.sha256(value.encode()).hexdigest().encode()
    for profile in ("default", "agent"):
        session = await site.session(profile=profile, grants=("tool", "cluster"))
        # A login shell, as agents have it.
        run = "sandreel-credential run tool -- sh -c 'printf %s \"$TOOL_TOKEN\" | sha256sum'; env | grep TOOL_TOKEN"
        result = await site.client.run(ORG, session, shell=run)
        assert result.stdout.split()[0] == digest, result.stderr
        look = "sandreel-credential run cluster -- sh -c 'stat -f -c %T $KUBECONFIG; tr -d \\\\n < $KUBECONFIG | sha256sum'"
        kind, read, _ = (await site.client.run(ORG, session, shell=look)).stdout.split()
        assert (kind, read) == (b"tmpfs", digest)
        assert value not in await asyncio.to_thread(docker, "inspect", container(site, session))


async def test_an_agent_that_takes_all_memory_ends_alone(site: Site) -> None:
    session = await site.session(limits=Limits(memory_bytes=128 << 20))
    hog = "b = []\nwhile True: b.append(bytearray(1 << 20))"
    result = await site.client.run(ORG, session, ["python3", "-c", hog])
    assert isinstance(result.end, x.Exited)
    assert (result.signal, result.end.oom) == ("SIGKILL", True)
    assert (await site.client.session(ORG, session)).phase == "ready"
    assert (await site.client.run(ORG, session, ["echo", "alive"])).stdout == b"alive\n"


async def test_a_container_that_is_killed_ends_its_execs(site: Site) -> None:
    session = await site.session()
    handle = await site.client.exec(ORG, session, ["sleep", "600"])
    began = time.monotonic()
    await asyncio.to_thread(docker, "kill", container(site, session))
    result = await handle.collect()
    took_s = time.monotonic() - began
    assert isinstance(result.end, x.Lost)
    assert (await site.client.session(ORG, session)).state.stop_reason == "killed"
    assert took_s < 4, "promised is 2 s; this machine may be busy"


async def test_a_container_that_is_stopped_by_hand_says_so(site: Site) -> None:
    session = await site.session()
    handle = await site.client.exec(ORG, session, ["sleep", "600"])
    await asyncio.to_thread(docker, "stop", "--time", "20", container(site, session))
    result = await handle.collect()
    assert isinstance(result.end, x.Exited)
    assert result.reason == "stopped"
    assert (await site.stopped(session)).state.stop_reason == "killed"


async def test_the_bus_may_die_and_no_line_is_lost(site: Site) -> None:
    session = await site.session()
    count = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; [ $((i % 200)) -ne 0 ] || sleep 0.2; done"
    handle = await site.client.exec(ORG, session, ["sh", "-c", count])
    name = service_name(site.stack.place.keys().installation, "nats")
    before = await asyncio.to_thread(docker, "inspect", "-f", "{{.State.StartedAt}}", name)
    await asyncio.to_thread(docker, "kill", name)
    result = await handle.collect()
    assert result.exit_code == 0
    assert result.stdout == b"".join(b"line %d\n" % n for n in range(1, 2001))
    after = await asyncio.to_thread(docker, "inspect", "-f", "{{.State.StartedAt}}", name)
    assert before != after
    # And a bus that was made anew is in the orgs' networks again.
    await asyncio.to_thread(docker, "rm", "-f", name)
    await site.stack.parts["nats"].ready(after=site.stack.parts["nats"].starts)
    assert (await site.client.run(ORG, session, ["echo", "back"])).stdout == b"back\n"


async def test_a_workspace_that_cannot_be_written_fails_the_resume_and_keeps_the_files(site: Site) -> None:
    session = await site.session()
    await site.client.run(ORG, session, ["sh", "-c", "echo kept > file"])
    await site.client.stop(ORG, session, wait="stopped")
    workspace = engine.volume_path(volume_name(site.stack.place.keys().installation, Key(ORG, session)))
    kept = workspace.stat()
    os.chown(workspace, 0, 0)
    with pytest.raises(Refused, match="WORKSPACE_UNWRITABLE"):
        await site.client.resume(ORG, session, wait="ready", timeout_s=60)
    failure = (await site.client.session(ORG, session)).state.failure
    assert failure is not None
    assert (failure.stage, failure.code) == ("boot", "WORKSPACE_UNWRITABLE")
    os.chown(workspace, kept.st_uid, kept.st_gid)
    await site.client.resume(ORG, session, wait="ready", timeout_s=60)
    assert (await site.client.run(ORG, session, ["cat", "file"])).stdout == b"kept\n"


async def test_caches_of_an_org_without_sessions_are_listed_and_removed_only_when_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    args, installation = argparse.Namespace(data=site.data), site.stack.place.keys().installation
    monkeypatch.setattr("sandreel_core.cli.docker_checks._YOUNG", timedelta(0))
    await site.session()  # the org of these has one
    await site.client.create_session("gone", "one", timeout_s=60)
    await site.client.destroy("gone", "one", wait="destroyed")
    mine, used = cache_name(installation, "gone"), cache_name(installation, ORG)
    listed = {each.name for each in await orphans(args) if each.would == CACHE_STAYS}
    assert mine in listed
    assert used not in listed
    assert mine in await asyncio.to_thread(docker, "volume", "ls", "-q")
    dropped = {each.name: each.would for each in await drop_caches(args)}
    assert dropped[mine] == "removed"
    left = await asyncio.to_thread(docker, "volume", "ls", "-q")
    assert mine not in left
    assert used in left


async def test_an_image_that_is_none_fails_the_session_and_leaves_nothing(site: Site) -> None:
    with pytest.raises((Refused, NotFound), match="NO_IMAGE"):
        await site.client.create_session(ORG, "imageless", image="no-such-image:1", timeout_s=60)
    info = await site.client.session(ORG, "imageless")
    assert info.phase == "failed"
    assert info.state.failure is not None
    assert (info.state.failure.stage, info.state.failure.code) == ("provision", "NO_IMAGE")
    left = await asyncio.to_thread(engine.objects, site.stack.place.keys().installation)
    assert not [name for name in left if "imageless" in name]


async def test_twenty_at_once_are_all_ready(site: Site) -> None:
    sessions = await asyncio.gather(*(site.session("many") for _ in range(20)))
    for session in sessions:
        assert (await site.client.session(ORG, session)).phase == "ready"
    await asyncio.gather(*(site.client.destroy(ORG, session, wait="destroyed") for session in sessions))

    async def gone() -> bool:
        left = await asyncio.to_thread(engine.objects, site.stack.place.keys().installation)
        return not [name for name in left if "-many-" in name]

    await until(gone, "every trace of them is away")


async def test_a_session_from_a_warm_pool_is_a_session_like_any_other_and_outlives_its_spawner(site: Site) -> None:
    installation, key = site.stack.place.keys().installation, Key("warm", "one")
    name, log = container_name(installation, key, "1-1"), site.stack.place.log("spawner")

    def made() -> int:
        return log.read_text().count("a spare waits")

    await until(lambda: made() > 0, "there is one to be taken", timeout_s=60)
    assert await site.client.sessions("warm") == []
    assert (await site.client.create_session(*key, timeout_s=60)).ready
    assert await asyncio.to_thread(docker, "inspect", "-f", f'{{{{index .Config.Labels "{SPARE}"}}}}', name)
    look = await site.client.run(*key, shell="echo kept > file; echo $SANDREEL_BOOT")
    assert look.stdout.decode() == f"{installation}/warm/one/1-1\n"
    # Whoever comes after its spawner finds it, and the spare of that one has ended with it.
    await until(lambda: made() > 1, "another one waits", timeout_s=60)
    waiting = f"name={spare_name(installation, '')}"
    before = await asyncio.to_thread(docker, "ps", "-q", "--filter", waiting)
    await site.kill("spawner")
    await site.stack.parts["spawner"].ready()
    await until(lambda: made() > 2, "its successor has one of its own", timeout_s=60)
    after = await asyncio.to_thread(docker, "ps", "-q", "--filter", waiting)
    assert (len(before.split()), len(after.split()), before != after) == (1, 1, True)
    assert (await site.client.run(*key, ["cat", "file"])).stdout == b"kept\n"
    await site.client.stop(*key, wait="stopped")
    await site.client.resume(*key, wait="ready", timeout_s=60)
    assert (await site.client.run(*key, ["cat", "file"])).stdout == b"kept\n"
    await site.client.destroy(*key, wait="destroyed")
    left = await asyncio.to_thread(engine.objects, installation)
    assert not [each for each in left if "-one-" in each]


async def test_one_shot_leaves_no_container_and_no_volume(site: Site) -> None:
    installation = site.stack.place.keys().installation
    async with site.client.one_shot(ORG) as shot:
        await shot.files.write("in", b"b\na\n")
        result = await (await shot.start(["sh", "-c", "sort in > out; exit 4"])).wait()
        name = container_name(installation, Key(ORG, shot.session), "1-1")
        volumes = await asyncio.to_thread(docker, "volume", "ls", "-q", "--filter", f"name={shot.session}")
        assert await shot.files.read("out") == b"a\nb\n"
    assert (result.exit_code, shot.left) == (4, None)
    assert await asyncio.to_thread(docker, "ps", "-aq", "--filter", f"name={name}") == ""
    if volumes:
        assert await asyncio.to_thread(docker, "volume", "ls", "-q", "--filter", f"name={shot.session}") == ""
