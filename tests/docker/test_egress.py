"""The way out of a container: through the stack's proxy, as its own session, or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest

from sandreel_core.bus.port import CaughtUp, Missing
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.usage import EgressDenied
from sandreel_core.egress.register import EGRESS, Register, Table
from sandreel_core.egress.rules import Scope
from sandreel_core.permissions import OPERATOR
from sandreel_core.spawner.docker_services import service_name
from tests.support import engine
from tests.support.program import sandreel
from tests.support.system import ORG, STREAM, Site, until
from tests.support.system_users import bus_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240), pytest.mark.xdist_group("docker")]

LIMIT_S = 60
# In a sandbox: what the proxy that is set says to CONNECT.
CONNECT = """
import os, socket, sys
from urllib.parse import urlsplit
proxy = urlsplit(os.environ["HTTPS_PROXY"])
with socket.create_connection((proxy.hostname, proxy.port), 20) as s:
    s.sendall(b"CONNECT " + sys.argv[1].encode() + b" HTTP/1.1\\r\\n\\r\\n")
    s.settimeout(20)
    while more := s.recv(4096):
        sys.stdout.write(more.decode())
"""


pytestmark = [*pytestmark, pytest.mark.skipif(engine.missing("roles") is not None, reason=str(engine.missing("roles")))]


async def refusal(site: Site, session: str, host: str) -> EgressDenied:
    """What the session's own log says of it."""
    subjects = site.client.subjects(ORG, session)
    async with asyncio.timeout(LIMIT_S), aclosing(site.client.bus.follow(STREAM, [subjects.event("egress")])) as items:
        async for item in items:
            if isinstance(item, CaughtUp | Missing):
                continue
            for stored in item:
                data = decode_event(stored.subject, stored.body).data
                if isinstance(data, EgressDenied) and data.host == host:
                    return data
    raise AssertionError("the log ended")


async def places(site: Site) -> dict[str, str]:
    """The session by its address, as the register has it."""
    table = Table()
    async with bus_of(site.stack) as bus, aclosing(bus.follow(EGRESS, ["egress.>"], live=False)) as items:
        async for item in items:
            if not isinstance(item, CaughtUp | Missing):
                for stored in item:
                    table.apply(stored)
    return {str(address): place.session for address, place in table.places.items()}


async def test_what_the_proxy_refuses_is_told_to_the_session_that_asked(site: Site) -> None:
    one, two = await site.session(), await site.session()
    told = await site.client.run(ORG, one, ["python3", "-c", CONNECT, "169.254.169.254:443"])
    assert b"403" in told.stdout, told
    assert b"link-local, where clouds serve metadata" in told.stdout
    assert (await refusal(site, one, "169.254.169.254")).port == 443
    async with bus_of(site.stack, OPERATOR.name) as bus:
        await Register(bus).allow(Scope(ORG, two), ["example.org"])
    why = b""

    async def refused() -> bool:
        nonlocal why
        why = (await site.client.run(ORG, two, ["python3", "-c", CONNECT, "nobody.invalid:443"])).stdout
        return b"403" in why

    await until(refused, "a list is followed without a restart")
    assert (await refusal(site, two, "nobody.invalid")).count >= 1
    # Beside the proxy there is no way: neither by address nor by asking for a name.
    straight = "import socket; socket.create_connection(('1.1.1.1', 443), 5)"
    told = await site.client.run(ORG, one, ["python3", "-c", straight])
    assert told.exit_code == 1
    assert b"No route to host" in told.stderr or b"Network is unreachable" in told.stderr


async def test_an_address_is_its_sessions_until_the_boot_is_dead(site: Site) -> None:
    session = await site.session()
    assert session in (await places(site)).values()
    await site.client.stop(ORG, session, wait="stopped")
    assert session not in (await places(site)).values()
    await site.client.resume(ORG, session, wait="ready")
    assert session in (await places(site)).values()


async def test_a_proxy_that_dies_is_there_again_and_new_sessions_wait_for_it(site: Site) -> None:
    before = await site.session()
    await site.kill("egress")
    after = await site.session()
    for session in (before, after):

        async def answered(session: str = session) -> bool:
            told = await site.client.run(ORG, session, ["python3", "-c", CONNECT, "10.0.0.1:443"])
            return b"403" in told.stdout

        await until(answered, "the proxy is reached, also at another address")


# Outside: says who it is, tells of every line that it gets, and sends it back in capitals.
OUTSIDE = """
import socketserver, sys
class Hall(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(sys.argv[1].encode() + b"\\n")
        for line in self.rfile:
            print("heard", line, flush=True)
            self.wfile.write(line.upper())
socketserver.ThreadingTCPServer(("", 443), Hall).serve_forever()
"""
# In a sandbox: through the proxy to argv[1], a line there, and what comes back.
THROUGH = (
    CONNECT.split("with ", maxsplit=1)[0]
    + """
with socket.create_connection((proxy.hostname, proxy.port), 20) as s:
    s.settimeout(20)
    s.sendall(b"CONNECT " + sys.argv[1].encode() + b" HTTP/1.1\\r\\n\\r\\n")
    answer = s.makefile("rb")
    print(answer.readline().decode().strip())
    if answer.readline() == b"\\r\\n":
        print(answer.readline().decode().strip())
        s.sendall(b"bytes of a session\\n")
        print(answer.readline().decode().strip())
"""
)


@pytest.fixture
def outside(site: Site) -> Iterator[tuple[str, str]]:
    """Two machines outside, by address, on a network with a public range, to which the proxy's container has a way."""
    name = f"sandreel-outside-{os.getpid()}"
    first = f"11.203.{random.randrange(1, 255)}"  # no private range: `egress/address.py` takes it for the internet
    here = [f"{first}.10", f"{first}.11"]
    engine.docker("network", "create", "--subnet", f"{first}.0/24", name)
    try:
        for address in here:
            known = ("--name", f"{name}-{address}", "--network", name, "--ip", address, "--user", "0:0")
            python = ("--entrypoint", "/opt/sandreel/bin/python", engine.IMAGE, "-I", "-c", OUTSIDE, address)
            engine.docker("run", "-d", *known, *python)
        engine.docker("network", "connect", name, service_name(site.stack.place.keys().installation, "egress"))
        yield here[0], here[1]
    finally:
        for address in here:
            engine.docker("rm", "-f", "-v", f"{name}-{address}")
        engine.docker("network", "disconnect", "-f", name, service_name(site.stack.place.keys().installation, "egress"))
        engine.docker("network", "rm", name)


async def test_a_session_reaches_whom_its_list_names_and_nobody_else(site: Site, outside: tuple[str, str]) -> None:
    allowed, other = outside
    session = await site.session()
    async with bus_of(site.stack, OPERATOR.name) as bus:
        await Register(bus).allow(Scope(ORG, session), [allowed])

    async def tried(address: str) -> list[str]:
        return (
            (await site.client.run(ORG, session, ["python3", "-c", THROUGH, f"{address}:443"]))
            .stdout.decode()
            .splitlines()
        )

    said: list[str] = []

    async def refused() -> bool:
        nonlocal said
        said = await tried(other)
        return "403" in said[0]

    await until(refused, "the list is followed")
    assert (await refusal(site, session, other)).port == 443
    status, who, echo = await tried(allowed)
    assert "200" in status
    assert (who, echo) == (allowed, "BYTES OF A SESSION")
    name = f"sandreel-outside-{os.getpid()}"
    assert "heard" in engine.docker("logs", f"{name}-{allowed}")
    # There without the proxy is no way, although somebody listens.
    straight = f"import socket; socket.create_connection(({allowed!r}, 443), 5)"
    assert (await site.client.run(ORG, session, ["python3", "-c", straight])).exit_code == 1


async def health(site: Site) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and what `sandreel health` says by part."""
    done = await sandreel(site.data, "health", "--json", timeout_s=LIMIT_S)
    return done.code, {each["role"]: each for each in done.objects}


async def test_health_says_how_the_containers_are_and_why_one_is_down(site: Site) -> None:
    code, shown = await health(site)
    assert {name: each["status"] for name, each in shown.items()} == {
        **dict.fromkeys(("spawner", "projections", "broker", "bridge", "egress", "nats", "postgres"), "ok")
    }
    assert code == 0
    assert shown["nats"]["pid"] == site.stack.parts["nats"].pid
    await site.kill_and_hold("egress")
    try:
        await until(lambda: site.stack.parts["egress"].state == "died", "it is noticed")
        code, shown = await health(site)
        assert (code, shown["egress"]["status"]) == (1, "absent")
        assert "killed by signal 9" in shown["egress"]["problem"]
        # A server that is there and does not answer is not well.
        name = service_name(site.stack.place.keys().installation, "nats")
        engine.docker("pause", name)
        try:
            code, shown = await health(site)
            assert (code, shown["nats"]["status"]) == (1, "absent")
            assert "does not answer" in shown["nats"]["problem"]
        finally:
            engine.docker("unpause", name)
    finally:
        await site.release("egress")


async def test_its_container_has_nothing_that_it_does_not_need(site: Site) -> None:
    name = service_name(site.stack.place.keys().installation, "egress")
    shown = json.loads(engine.docker("inspect", name))[0]
    host = shown["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert shown["Config"]["User"].split(":")[0] not in ("", "0")
    assert [mount["RW"] for mount in shown["Mounts"]] == [False]
    assert "BEGIN" not in json.dumps(shown)
