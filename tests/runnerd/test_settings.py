"""Settings arrive by pipe or by environment, and their secrets stay in neither."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from sandreel_core.contract.boot import BOOT_MARKER, UNTOLD, BootSettings
from sandreel_core.errors import Misconfigured
from sandreel_runnerd import settings

GIVEN = {
    "nats_urls": ["nats://127.0.0.1:1"],
    "org": "acme",
    "session": "s1",
    "boot_id": "1-1",
    "token": "hush-token",
    "installation": "here",
    "nats_password": "hush-password",
}


def test_settings_come_from_standard_input() -> None:
    read = settings.from_stdin(io.BytesIO(json.dumps(GIVEN).encode()))
    assert read == BootSettings(**GIVEN)  # type: ignore[arg-type]
    assert settings.marker(read) == "here/acme/s1/1-1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        json.dumps(GIVEN | {"tokn": 1}).encode(),
        json.dumps(GIVEN | {"org": "a.b"}).encode(),
        json.dumps(GIVEN | {"token": 5}).encode(),
        b"x" * 100_000,
    ],
)
def test_a_bad_document_is_one_sentence_without_its_secrets(body: bytes) -> None:
    with pytest.raises(Misconfigured) as raised:
        settings.from_stdin(io.BytesIO(body))
    assert "hush" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__cause__ is None


def test_one_that_is_told_nothing_says_so_and_is_told_from_one_that_is_told_wrongly() -> None:
    with pytest.raises(settings.Untold, match="nobody has said"):
        settings.from_stdin(io.BytesIO(b""))
    done = subprocess.run(
        [sys.executable, "-I", "-m", "sandreel_runnerd", "--settings-stdin"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.count(b"\n")) == (UNTOLD, 1)


def test_settings_come_from_the_environment_and_leave_it() -> None:
    environ = {f"SANDREEL_{name.upper()}": str(value) for name, value in GIVEN.items() if name != "nats_urls"}
    environ |= {
        "SANDREEL_NATS_URLS": "nats://a:1,nats://b:2",
        "SANDREEL_MAX_LIVE_EXECS": "7",
        "SANDREEL_SPOOL_BYTES": " ",
        BOOT_MARKER: "m",
        "HOME": "/h",
    }
    read = settings.from_environment(environ)
    assert read.nats_urls == ["nats://a:1", "nats://b:2"]
    assert (read.max_live_execs, read.spool_bytes) == (7, 64 * 1024 * 1024)
    settings.scrub(environ)
    assert environ == {BOOT_MARKER: "m", "HOME": "/h"}


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(Misconfigured, match="SANDREEL_NATS_URLS is not set"):
        settings.from_environment({})
    environ = {f"SANDREEL_{name.upper()}": str(value) for name, value in GIVEN.items()}
    with pytest.raises(Misconfigured, match="heartbeat_s"):
        settings.from_environment(environ | {"SANDREEL_HEARTBEAT_S": "soon"})
