"""What a boot postpones is there as soon as it is asked for, and not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

BOOT = "import sandreel_runnerd.__main__ as m, sys, gc, nats; later = sys.modules['nats.js']; "


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("print('nats.js.api' in sys.modules, gc.isenabled())", "False False"),
        ("m.lean.imported(); print(gc.isenabled(), gc.get_freeze_count() > 1000)", "True True"),
        ("print(nats.js.api.Header.STATUS.value, sys.modules['nats.js'] is nats.js, nats.js is not later)", "Status True True"),
        ("print(later.api is nats.js.api)", "True"),
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
