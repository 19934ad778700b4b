"""Health and metrics of a whole stack, read over HTTP while it works and while parts of it are away."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from docs.metrics_page import GROUPS
from sandreel_bridge.gateway.measures import GATEWAY
from sandreel_core.clock import new_id
from sandreel_core.egress.measures import EGRESS
from sandreel_core.errors import Refused, Unavailable
from sandreel_core.health_reading import Reading, get, read
from tests.support.program import ENVIRON, sandreel
from tests.support.system import ORG, Site
from tests.support.system_job import Job
from tests.support.system_readers import reading
from tests.support.system_users import bus_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("metrics"), pytest.mark.timeout(180)]
ROLES = ("spawner", "projector", "broker", "bridge")


def listen(site: Site, role: str) -> str:
    return f"127.0.0.1:{site.stack.place.keys().health_ports[role]}"


async def told(
    site: Site, role: str, holds: Callable[[Reading], bool] = lambda shown: True, *, timeout_s: float = 60
) -> Reading:
    """What the role says, as soon as it is so."""
    shown: Reading | None = None
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                with suppress(Unavailable):
                    shown = await read(listen(site, role))
                    if holds(shown):
                        return shown
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{role} does not come to say so: {shown}") from None


async def finished(site: Site, job: Job) -> None:
    """It ends, and log and views have every byte of it."""
    watcher = site.watcher(job)
    job.enough()
    async with reading(watcher):
        pass
    await site.check_job(job, (watcher,))


async def command(site: Site, *args: str) -> tuple[int, str]:
    """Exit code and everything that is printed by `sandreel`."""
    done = await sandreel(site.data, *args)
    return done.code, done.said


async def doctor(site: Site) -> dict[str, dict[str, str]]:
    _, said = await command(site, "doctor", "--json")
    return {check["name"]: check for check in map(json.loads, said.splitlines())}


async def test_what_is_served_is_what_the_page_says_and_names_nobody(site: Site) -> None:
    session = await site.session("nameless")
    job = await site.job(session, "unnamed")
    job.enough()
    async with reading(site.watcher(job)):
        pass
    await told(site, "spawner", lambda shown: shown.total("sandreel_runnerd_messages_sent_total") > 0)
    served: set[str] = set()
    for role in ROLES:
        text = (await get(listen(site, role), "/metrics")).decode()
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert all(family.documentation for family in families.values())
        served |= set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
        assert not re.search(rf"nameless|unnamed|org=|\b{ORG}\b", text)
        assert "nameless" not in (await get(listen(site, role), "/healthz")).decode()
    # The egress proxy serves containers, and a gateway needs a provider's key: see tests/core/egress and tests/bridge/gateway.
    elsewhere = (EGRESS, GATEWAY)
    assert served == {family.name for group in GROUPS.values() if group not in elsewhere for family in group}


async def test_numbers_move_with_what_happens(site: Site) -> None:
    before, views = await told(site, "spawner"), await told(site, "projector")
    with pytest.raises(Refused, match="SESSION_NOT_FOUND"):
        await site.client.exec(ORG, "nobody", ["true"])
    async with bus_of(site.stack) as bus:
        await bus.append(f"cmd.spawner.{ORG}.nobody.{new_id()}", b"no json")
    job = await site.job(await site.session())
    shown = await told(site, "spawner", lambda shown: shown.total("sandreel_execs_open") == 1)
    assert shown.total("sandreel_sessions", phase="ready") >= 1
    assert shown.total("sandreel_bus_append_seconds_count") > before.total("sandreel_bus_append_seconds_count")
    await finished(site, job)

    def more(shown: Reading, name: str, **labels: str) -> float:
        return shown.total(name, **labels) - before.total(name, **labels)

    shown = await told(
        site,
        "spawner",
        lambda shown: shown.total("sandreel_execs_open") == 0 and shown.total("sandreel_stream_messages", stream="DEAD") == 1,
    )  # fmt: skip
    assert more(shown, "sandreel_commands_refused_total", code="SESSION_NOT_FOUND") == 1
    assert more(shown, "sandreel_commands_refused_total", code="BAD_REQUEST") == 1
    assert more(shown, "sandreel_commands_dead_total") == 1
    assert more(shown, "sandreel_commands_answered_total") == 3
    assert more(shown, "sandreel_commands_outcome_seconds_count") == 3
    assert more(shown, "sandreel_runnerd_messages_sent_total") > 0
    after = await told(site, "projector", lambda shown: shown.total("sandreel_projection_lag_events") == 0)
    assert after.total("sandreel_projection_events_total") > views.total("sandreel_projection_events_total")
    assert after.total("sandreel_projection_commit_seconds_count") > 0
    assert after.total("sandreel_projection_leading", stream="REEL-0") == 1
    checks = await doctor(site)
    assert checks["dead letters"]["level"] == "warn"
    code, said = await command(site, "health")
    expected = [["ok", part] for part in (*ROLES, "nats", "postgres")]
    assert (code, [line.split()[:2] for line in said.splitlines()]) == (0, expected)


async def test_nats_away_degrades_the_roles_and_they_come_back(site: Site) -> None:
    job = await site.job(await site.session())
    before = await told(site, "spawner")
    await site.kill_and_hold("nats")
    try:
        for role in ROLES:
            shown = await told(site, role, lambda shown: shown.report.status != "ok")
            assert shown.report.status == "degraded"
            assert "nats" in {reason.part for reason in shown.report.reasons}
            assert shown.total("sandreel_bus_connected") == 0
        code, said = await command(site, "health", "--json")
        shown_ = {each["role"]: each for each in map(json.loads, said.splitlines())}
        assert (code, shown_["nats"]["status"], shown_["postgres"]["status"]) == (1, "absent", "ok")
        assert shown_["nats"]["problem"].startswith("killed by signal 9")
        checks = await doctor(site)
        assert checks["health of spawner, nats"]["level"] == "warn"
        assert "the connection to NATS is lost" in checks["health of projector, nats"]["found"]
    finally:
        await site.release("nats")
    for role in ROLES:
        shown = await told(site, role, lambda shown: shown.report.status == "ok")
        assert shown.total("sandreel_bus_connected") == 1
        assert shown.total("sandreel_bus_reconnects_total") >= 1
    sent = before.total("sandreel_runnerd_messages_sent_total")
    await told(site, "spawner", lambda shown: shown.total("sandreel_runnerd_messages_sent_total") > sent)
    await finished(site, job)


async def test_postgres_away_degrades_the_projector_alone(site: Site) -> None:
    await site.kill_and_hold("postgres")
    try:
        shown = await told(site, "projector", lambda shown: len(shown.report.reasons) == 2)
        assert {(reason.part, reason.status) for reason in shown.report.reasons} == {
            ("CMD", "degraded"),
            ("REEL-0", "degraded"),
        }
        assert shown.total("sandreel_projection_leading") == 0
        assert shown.named("sandreel_projection_lag_events") == []
        assert (await told(site, "spawner")).report.status == "ok"
    finally:
        await site.release("postgres")
    shown = await told(site, "projector", lambda shown: shown.report.status == "ok")
    assert shown.total("sandreel_projection_interruptions_total") >= 1
    await told(site, "projector", lambda shown: shown.total("sandreel_projection_leading") == 2)


async def test_doctor_says_that_output_waits(site: Site) -> None:
    session = await site.session()
    job = await site.job(session)
    await site.hold(session, True)
    await told(site, "spawner", lambda shown: shown.total("sandreel_runnerd_held") == 1)
    assert (await doctor(site))["output held"]["level"] == "fail"
    await site.hold(session, False)
    await finished(site, job)
    await told(site, "spawner", lambda shown: not shown.total("sandreel_runnerd_held"))
    assert "output held" not in await doctor(site)


async def test_doctor_says_which_role_is_gone_and_which_hangs(site: Site) -> None:
    await site.stack.parts["projector"].hold()
    try:
        checks = await doctor(site)
        assert (checks["projector"]["level"], checks["projector"]["found"]) == ("fail", "not running")
        assert "health of projector" not in checks
        assert checks["health of spawner"]["level"] == "ok"
        code, said = await command(site, "health")
        assert (code, said.splitlines()[1].split()[:2]) == (1, ["absent", "projector"])
        assert "it is kept down" in said
    finally:
        await site.release("projector")
    pid = site.stack.parts["projector"].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        checks = await doctor(site)
        assert checks["health of projector"]["level"] == "fail"
        assert "does not answer within" in checks["health of projector"]["found"]
        code, said = await command(site, "health")
        assert (code, said.splitlines()[1].split()[:2]) == (1, ["absent", "projector"])
    finally:
        os.kill(pid, signal.SIGCONT)
    await told(site, "projector", lambda shown: shown.report.status == "ok")


async def test_a_port_that_a_stranger_took_keeps_no_role_away(site: Site) -> None:
    before = listen(site, "projector")
    await site.stack.parts["projector"].hold()
    with socket.create_server(("127.0.0.1", int(before.rpartition(":")[2]))):
        await site.release("projector")
        assert listen(site, "projector") != before
        assert (await told(site, "projector", lambda shown: shown.report.status == "ok")).report.role == "projections"


async def test_who_answers_in_a_roles_place_is_not_believed(site: Site) -> None:
    """A job may take the port of a role that is dead; here the spawner's pid file names another process."""
    pid_file = site.stack.place.pid("spawner")
    kept = pid_file.read_text()
    pid_file.write_text(site.stack.place.pid("projector").read_text())
    try:
        checks = await doctor(site)
        assert "which is not the role's" in checks["health of spawner"]["found"]
    finally:
        pid_file.write_text(kept)


async def test_strangers_cannot_keep_a_role_from_its_work(site: Site) -> None:
    address = ("127.0.0.1", int(listen(site, "spawner").rpartition(":")[2]))
    silent = [socket.create_connection(address) for _ in range(40)]
    try:
        for each in silent:
            with suppress(OSError):
                each.sendall(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000)
        await site.session()
    finally:
        for each in silent:
            each.close()
    await told(site, "spawner", lambda shown: shown.report.status == "ok")


async def test_the_settings_that_a_stack_wrote_lead_to_it(site: Site, tmp_path: Path) -> None:
    """SANDREEL_CONFIG alone, as a program has it: doctor, health and down mean the stack that wrote the file."""
    environ = ENVIRON | {"SANDREEL_CONFIG": str(site.data / "client.toml"), "HOME": str(tmp_path)}
    checks = {check["name"]: check for check in (await sandreel(None, "doctor", "--json", environ=environ)).objects}
    assert (checks["stack"]["level"], checks["health of spawner"]["level"]) == ("ok", "ok")
    assert str(site.data) in checks["data directory"]["found"]
    assert (await sandreel(None, "health", environ=environ)).code == 0
    refused = await sandreel(None, "up", environ=environ)
    assert (refused.code, refused.err.count("\n"), "unset it" in refused.err) == (2, 1, True), refused.said


async def test_the_settings_of_a_single_role_are_not_taken_for_all(site: Site) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "sandreel_core.cli", "up", "--data", str(site.data / "other")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "SANDREEL_HEALTH_LISTEN": "127.0.0.1:9400"},
    )
    async with asyncio.timeout(60):
        _, said = await child.communicate()
    assert child.returncode == 2
    assert said.decode().count("\n") == 1
    assert "`sandreel up` gives every role a port of its own" in said.decode()
    code, told_ = await command(site, "health", "--at", "nowhere")
    assert (code, told_.count("\n")) == (2, 1)
    assert "expected HOST:PORT" in told_
    code, told_ = await command(site, "health", "--at", "127.0.0.1:1", "--at", listen(site, "spawner"), "--json")
    found = [json.loads(line) for line in told_.splitlines()]
    assert (code, [each["status"] for each in found]) == (1, ["absent", "ok"])
