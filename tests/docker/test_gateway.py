"""The gateway in a container: reached by sessions in their org's network, at one port, past the egress proxy; and by nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from sandreel_bridge.gateway.client import GatewayClient
from sandreel_bridge.gateway.port import key_name
from tests.support import engine
from tests.support.contained import open_contained_site
from tests.support.gateway import PROVIDER_KEY, key_terms
from tests.support.model_api import ModelApi
from tests.support.system import ORG, Site
from tests.support.system_users import bus_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240), pytest.mark.xdist_group("docker")]

# In a sandbox: a model call as a program makes it that heeds the proxy settings, and then what else can be reached there.
CALL = """
import json, socket, sys, urllib.request
body = json.dumps({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}).encode()
asked = urllib.request.Request("http://gateway:8600/anthropic/v1/messages", body, {"x-api-key": sys.argv[1]})
print(json.load(urllib.request.urlopen(asked, timeout=20))["content"][0]["text"])
for port in (9400, 4222):
    try:
        socket.create_connection(("gateway", port), 5)
        print("reached", port)
    except OSError as error:
        print(port, error.strerror or error)
"""


pytestmark = [*pytestmark, pytest.mark.skipif(engine.missing("roles") is not None, reason=str(engine.missing("roles")))]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gated() -> AsyncGenerator[tuple[Site, ModelApi], None]:
    """A stack before a stand-in of the provider, which listens where containers find this machine."""
    host = engine.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
    async with ModelApi(host=host) as api:
        own = {"ANTHROPIC_API_KEY": PROVIDER_KEY, "SANDREEL_GATEWAY_ANTHROPIC_URL": api.url}
        async with open_contained_site(**own) as site:
            yield site, api


async def test_a_session_reaches_a_model_by_the_gateway_and_nothing_else_of_it(gated: tuple[Site, ModelApi]) -> None:
    site, api = gated
    session = await site.session()
    async with bus_of(site.stack) as bus:
        client = GatewayClient(bus)
        assert (await client.enforce(ORG))[0] == "claude-sonnet-5-5"
        terms = key_terms("t1", org=ORG, session=session, models=("claude-sonnet-4-5",))
        key = await client.mint(key_name(ORG, session, 1, "t1", 1), terms)
        told = await site.client.run(ORG, session, ["python3", "-c", CALL, key.value])
        last = await client.revoke(key.name)
    assert told.stdout.decode().splitlines()[0] == "Hello from the stand-in.", told
    assert "reached" not in told.stdout.decode()
    assert last is not None
    assert (last.calls, last.usage.input_tokens) == (1, 420)
    assert api.seen[-1].headers["x-api-key"] == PROVIDER_KEY


async def test_the_providers_key_is_in_nothing_that_can_be_seen(gated: tuple[Site, ModelApi]) -> None:
    site, _ = gated
    names = engine.docker("ps", "-a", "--format", "{{.Names}}").split()
    for name in names:
        done = subprocess.run(["docker", "inspect", name], capture_output=True, timeout=20)
        assert PROVIDER_KEY.encode() not in done.stdout, name
    told = await site.client.run(ORG, await site.session(), ["sh", "-c", "env; cat /proc/*/environ 2>/dev/null"])
    assert PROVIDER_KEY.encode() not in told.stdout


async def test_it_listens_in_the_orgs_networks_alone(gated: tuple[Site, ModelApi]) -> None:
    site, _ = gated
    await site.session()
    pid = site.stack.parts["gateway"].pid
    assert pid is not None
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    listens = [row[1] for row in rows if row[3] == "0A"]
    at = {address for address, port in (each.split(":") for each in listens) if int(port, 16) == 8600}
    assert at
    assert "00000000" not in at
    pool = engine.POOL.split(".")[:2]
    assert {tuple(str(int(each[start : start + 2], 16)) for start in (6, 4)) for each in at} == {tuple(pool)}
