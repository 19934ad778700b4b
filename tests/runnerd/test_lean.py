"""What a boot postpones is there as soon as it is asked for, and not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

BOOT = "import sandreel_runnerd.__main__ as m, sys, gc, nats; later = sys.modules['nats.js']; "

# What stands there is what nats-py itself has.
SAME = (
    "h = nats.js.api.Header; import nats.js.api as api; names = ('STATUS', 'DESCRIPTION', 'CONSUMER_STALLED');"
    "print([getattr(h, n).value == getattr(api.Header, n).value for n in names], h is not api.Header)"
)
# A message with headers, as the server sends one with each status: what nats-py does with it must not import the rest.
STATUS = (
    "import asyncio; from nats.aio.client import Client; c = Client();"
    "h = asyncio.run(c._process_headers(b'NATS/1.0 100 Idle Heartbeat\\r\\nNats-Last-Consumer: 1\\r\\n\\r\\n'));"
    "print(h['Status'], h['Nats-Last-Consumer'], c._is_control_message(b'', h), 'nats.js.api' in sys.modules)"
)


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("print('nats.js.api' in sys.modules, gc.isenabled())", "False False"),
        ("m.lean.imported(); print(gc.isenabled(), gc.get_freeze_count() > 1000)", "True True"),
        ("h = nats.js.api.Header; print(h.STATUS.value, {h.STATUS: 1}['Status'], 'nats.js.api' in sys.modules)", "Status 1 False"),
        (SAME, "[True, True, True] True"),
        ("print(nats.js.api.Header.MSG_ID.value, nats.js is not later, sys.modules['nats.js'] is nats.js)", "Nats-Msg-Id True True"),
        ("print(nats.js.api.Base.__module__, hasattr(nats.js.api.Header, 'NONSENSE'))", "nats.js.api False"),
        (STATUS, "100 1 Idle Heartbeat False"),
        ("from nats.js import JetStreamContext as c; print(c.__module__)", "nats.js.client"),
        ("import nats.js.kv; print(nats.js.kv.__name__)", "nats.js.kv"),
        ("print(type(nats.NATS().jetstream()).__name__)", "JetStreamContext"),
        ("print(hasattr(nats.js, 'nonsense'))", "False"),
        ("import nats.aio.transport as t; print(t.aiohttp, 'yarl' in sys.modules)", "None False"),
    ],
)  # fmt: skip
def test_what_is_postponed_is_imported_when_it_is_needed(code: str, printed: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-I", "-c", BOOT + code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.stdout.strip(), ran.stderr, ran.returncode) == (printed, "", 0)
