"""The role as a process on a real NATS, and the command that sets its lists."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.usage import EgressDenied
from sandreel_core.egress.register import Place, Register, documents
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.embedded.place import free_port
from sandreel_core.health_reading import read
from tests.support.egress import connect_to
from tests.support.nats import Connect
from tests.support.shell import Shell

pytestmark = pytest.mark.timeout(120)
LIMIT_S = 60


@pytest.fixture
async def bus(nats_server: NatsServer, connect_bus: Connect, tmp_path: Path) -> JetStreamBus:
    bus = await connect_bus()
    await ensure_installation(bus)
    await bus.ensure([documents()])
    password = nats_server.password("role")
    lines = ["[bus]", f'nats_urls = ["{nats_server.url}"]', 'user = "role"', f'password = "{password}"']
    for name in ("client", "roles"):
        (tmp_path / f"{name}.toml").write_text("\n".join([*lines, ""]))
    return bus


@asynccontextmanager
async def role(folder: Path, **given: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, str]]:
    """(the process, its port, where its health is), once it serves."""
    port, health = free_port(), f"127.0.0.1:{free_port()}"
    environ = {"PATH": os.environ["PATH"], "SANDREEL_CONFIG": str(folder / "roles.toml")}
    environ |= {"SANDREEL_EGRESS_LISTEN": f"127.0.0.1:{port}", "SANDREEL_HEALTH_LISTEN": health} | given
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sandreel_core.egress"), env=environ, stderr=asyncio.subprocess.PIPE
    )
    assert child.stderr is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            while b"proxy listens" not in (line := await child.stderr.readline()):
                assert line, "the role has ended"
        yield child, port, health
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(LIMIT_S / 4):
                await child.communicate()
        except TimeoutError:
            child.kill()
            await child.wait()
            raise


async def ask(port: int, host: str) -> str:
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(connect_to(host).encode())
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
    return answer


async def test_a_role_follows_its_lists_and_tells_what_it_refused(bus: JetStreamBus, tmp_path: Path) -> None:
    await Register(bus).place(ip_address("127.0.0.1"), Place("default", "s1", "1-1"))
    shell = Shell(tmp_path)
    async with role(tmp_path) as (child, port, health):
        assert "link-local" in await ask(port, "169.254.169.254:443")
        assert (await read(health)).report.status == "ok"

        assert (await shell.here("egress", "allow", "*.example.com", "1.1.1.1")).out == b"default: 2 patterns\n"
        async with asyncio.timeout(LIMIT_S):
            while "allowlist of default" not in await ask(port, "169.254.169.254:443"):
                await asyncio.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        assert child.stderr is not None
        rest = await child.stderr.read()
        assert await child.wait() == 0
    # A fresh one knows the list, and the address, from the stream.
    async with role(tmp_path) as (_, port, _):
        assert "allowlist of default" in await ask(port, "evil.test:443")
    denied = []
    sequence = 0
    while (stored := await bus.next("REEL-0", "evt.0.default.s1.egress", after=sequence)) is not None:
        sequence = stored.sequence
        data = decode_event(stored.subject, stored.body).data
        assert isinstance(data, EgressDenied)
        denied.append((data.host, "allowlist" in data.why))
    assert {("169.254.169.254", False), ("169.254.169.254", True), ("evil.test", True)} <= set(denied)
    lines = [json.loads(line) for line in rest.decode().splitlines()]
    decisions = [line for line in lines if line["event"] == "connection"]
    assert all(line["decision"] == "denied" and line["session"] == "s1" for line in decisions)


async def test_lists_are_set_shown_and_taken_away(bus: JetStreamBus, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert (await shell.here("egress", "ls")).out.startswith(b"no list: every host")
    await shell.here("egress", "allow", "--everybody", "*")
    await shell.here("egress", "allow", "--org", "acme", "--session", "s1", "--nothing")
    await bus.append("egress.rules.broken", b"[]")
    shown = (await shell.here("egress", "ls")).out.decode()
    assert [line.split()[:2] for line in shown.splitlines()[1:]] == [
        ["everybody", "*"],
        ["acme/s1", "nothing"],
        ["broken", "cannot"],
    ]
    told = [json.loads(line) for line in (await shell.here("egress", "ls", "--json")).out.splitlines()]
    assert [(each["org"], each["session"], each.get("allow")) for each in told] == [
        ("", "", ["*"]),
        ("acme", "s1", []),
        ("broken", "", None),
    ]
    done = await shell.here("egress", "open", "--org", "acme", "--session", "s1", "--json")
    assert json.loads(done.out) == {"org": "acme", "session": "s1", "allow": None}
    for wrong in (("allow",), ("allow", "a b"), ("allow", "x.com", "--nothing"), ("allow", "--org", "a.b", "x.com")):
        done = await shell.here("egress", *wrong)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err


async def test_a_role_that_is_set_wrongly_says_so_in_one_line(bus: JetStreamBus, tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "SANDREEL_CONFIG": str(tmp_path / "roles.toml")}
    for name, value in (
        ("ALSO_REFUSED", "10.0.0.1/8"),
        ("LISTEN", "here"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONECTIONS", "1"),
    ):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sandreel_core.egress"),
            env=environ | {f"SANDREEL_EGRESS_{name}": value},
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await asyncio.wait_for(child.communicate(), LIMIT_S)
        last = err.decode().splitlines()[-1]
        assert (child.returncode, last.startswith("sandreel egress: ")) == (2, True), err.decode()
        assert name.lower() in last.lower()
