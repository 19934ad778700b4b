"""aiohttp is not loaded by who does not ask for it, and is there for everybody who does."""

from __future__ import annotations

import subprocess
import sys

import pytest

BUS = "import sys, sandreel_core.client, sandreel_core.bus.jetstream; import nats.aio.transport as t; "


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        (BUS + "print('aiohttp' in sys.modules, bool(t.aiohttp))", "False True"),
        (BUS + "kind = t.aiohttp.ClientSession; import aiohttp; print(kind is aiohttp.ClientSession)", "True"),
        (BUS + "from aiohttp import web; import aiohttp; print(web is aiohttp.web, aiohttp.__spec__.name)", "True aiohttp"),
        ("import aiohttp; " + BUS + "print(t.aiohttp is aiohttp is sys.modules['aiohttp'])", "True"),
        ("import sys; sys.modules['aiohttp'] = None; " + BUS + "print(t.aiohttp, sys.modules['aiohttp'])", "None None"),
    ],
    ids=["nobody asks", "nats-py asks", "somebody else asks", "it was there before", "it is not to be had"],
)  # fmt: skip
def test_aiohttp_is_loaded_when_it_is_needed(code: str, printed: str) -> None:
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout.strip(), ran.stderr, ran.returncode) == (printed, "", 0)
