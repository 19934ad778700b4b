"""The manners of a role: one line for an operator's mistake, 0 when it is told to end, a traceback for a bug."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import pytest

from sandreel_core.embedded.nats import NatsServer
from sandreel_core.embedded.place import free_port
from sandreel_core.errors import Unavailable
from sandreel_core.health import Report
from sandreel_core.health_reading import read

ROLE = """
import asyncio, gc, sys
from typing import ClassVar
from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_core.runtime import Role, run_role
from sandreel_core.settings import Section

class Example(Section, frozen=True, kw_only=True):
    section: ClassVar[str] = "bridge"
    do: str = "serve"

async def main(role: Role[Example]) -> None:
    if role.settings.do == "break":
        raise ValueError("a bug")
    async with asyncio.TaskGroup() as tasks:
        if role.settings.do == "complain":
            tasks.create_task(complain())
        role.ready()
        assert gc.get_freeze_count() > 10_000, "every full collection would look at all modules"
        await asyncio.Event().wait()

async def complain() -> None:
    raise Misconfigured("the stream is from\\nelsewhere")

sys.exit(run_role("example", Example, main))
"""


async def start(
    server: NatsServer | None, given: dict[str, str], listener: socket.socket | None = None
) -> asyncio.subprocess.Process:
    environ = {"PATH": os.environ["PATH"]} | given
    if server is not None:
        environ["SANDREEL_BUS_NATS_URLS"] = server.url
        environ.setdefault("SANDREEL_BUS_USER", "role")
        environ.setdefault("SANDREEL_BUS_PASSWORD", server.password("role"))
    if listener is not None:
        environ["NOTIFY_SOCKET"] = "@" + listener.getsockname()[1:].decode()
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ROLE), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environ
    )


async def ended(child: asyncio.subprocess.Process) -> tuple[int | None, str]:
    async with asyncio.timeout(30):
        output, errors = await child.communicate()
    assert output == b""
    return child.returncode, errors.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_that_it_serves_and_ends_well_when_told_to(nats_server: NatsServer, number: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("")
        listener.setblocking(False)
        child = await start(nats_server, {}, listener)
        async with asyncio.timeout(30):
            assert await asyncio.get_running_loop().sock_recv(listener, 64) == b"READY=1"
    child.send_signal(number)
    code, said = await ended(child)
    assert code == 0, said
    assert "traceback" not in said.lower()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"SANDREEL_BRIDGE_DOO": "x"}, "variable SANDREEL_BRIDGE_DOO is not known; did you mean SANDREEL_BRIDGE_DO?"),
        ({"SANDREEL_BUS_PARTITIONS": "0"}, "SANDREEL_BUS_PARTITIONS is '0': expected int >= 1"),
        ({"SANDREEL_LOG_LEVEL": "loud"}, "SANDREEL_LOG_LEVEL"),
        ({"SANDREEL_HEALTH_LISTEN": "9400"}, "SANDREEL_HEALTH_LISTEN is '9400'"),
        ({"SANDREEL_HEALTH_LISTEN": "127.0.0.1:99999"}, "with a port of at most 65535"),
        ({"SANDREEL_BUS_NATS_URLS": "nats://127.0.0.1:1", "SANDREEL_BUS_CONNECT_TIMEOUT_S": "0.3"}, "sandreel doctor"),
    ],
)
async def test_an_operators_mistake_is_one_line_and_2(given: dict[str, str], line: str) -> None:
    code, said = await ended(await start(None, given))
    *_, last = said.splitlines()
    assert (code, last.startswith("sandreel example: ")) == (2, True), said
    assert line in last
    assert "Traceback" not in said


async def test_a_wrong_password_is_one_line_without_it(nats_server: NatsServer) -> None:
    given = {"SANDREEL_BUS_PASSWORD": "geheim", "SANDREEL_BUS_CONNECT_TIMEOUT_S": "10"}
    code, said = await ended(await start(nats_server, given))
    assert code == 2, said
    assert "geheim" not in said
    assert "Traceback" not in said


async def test_a_mistake_found_deep_inside_is_one_line_too(nats_server: NatsServer) -> None:
    code, said = await ended(await start(nats_server, {"SANDREEL_BRIDGE_DO": "complain"}))
    assert code == 2
    assert said.splitlines()[-1] == "sandreel example: the stream is from elsewhere"


async def test_a_role_that_waits_for_nats_says_so_and_then_that_it_is_well(nats_server: NatsServer) -> None:
    port = free_port()
    given = {"SANDREEL_HEALTH_LISTEN": f"127.0.0.1:{port}"}
    nats_server.kill()
    await nats_server.wait()
    child = await start(nats_server, given)
    try:
        report = await told(port, lambda report: True)
        assert (report.role, report.status) == ("example", "failing")
        assert {reason.part for reason in report.reasons} == {"start", "nats"}
        await nats_server.restart()
        report = await told(port, lambda report: report.status == "ok")
        assert (report.reasons, report.pid) == ((), child.pid)
    finally:
        if nats_server.pid is None:
            await nats_server.restart()
        child.terminate()
    assert (await ended(child))[0] == 0


async def told(port: int, holds: Callable[[Report], bool]) -> Report:
    """What `/healthz` says, as soon as it is so."""
    async with asyncio.timeout(30):
        while True:
            with suppress(Unavailable):
                report = (await read(f"127.0.0.1:{port}")).report
                if holds(report):
                    return report
            await asyncio.sleep(0.05)


async def test_a_port_for_its_health_that_is_taken_is_one_line_and_2(nats_server: NatsServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = await ended(await start(nats_server, {"SANDREEL_HEALTH_LISTEN": listen}))
    assert code == 2, said
    assert said == (
        f"sandreel example: [health] listen: {listen} is taken by another program; give it another, or leave it out\n"
    )


async def test_a_bug_is_1_and_a_traceback_in_the_log(nats_server: NatsServer) -> None:
    code, said = await ended(await start(nats_server, {"SANDREEL_BRIDGE_DO": "break"}))
    assert code == 1
    last = json.loads(said.splitlines()[-1])
    assert last["event"] == "role died"
    assert "ValueError: a bug" in last["traceback"]
