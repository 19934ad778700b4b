"""Masking in a whole stack: what is leased in a session is in no output of it, until it stops."""

from __future__ import annotations

import os
import sys
import urllib.parse
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sandreel_core.client import Result
from sandreel_core.contract import exec as x
from sandreel_runnerd.lines import READ_BYTES
from sandreel_runnerd.mask import MARKER
from tests.support.lender import lease, lends
from tests.support.system import ORG, Site, open_site

# Shared by the module: each test has a session of its own.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
TOKEN = "ghp/" + os.urandom(18).hex()
SHORT = "k3y"
PRINT = "import os, sys, time; token = os.environ['TOKEN'].encode(); put = lambda b: os.write(1, b)\n"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site() -> AsyncIterator[Site]:
    async with open_site() as site, lends(site.stack, site.client, {"token": TOKEN, "short": SHORT}):
        yield site


async def python(site: Site, session: str, code: str, **fields: object) -> Result:
    """What a program that was given the token printed."""
    argv = [sys.executable, "-I", "-S", "-c", PRINT + code]
    handle = await site.client.exec(ORG, session, argv, secret_env=lease("token"), **fields)  # type: ignore[arg-type]
    return await handle.collect()


def exited(result: Result) -> x.Exited:
    assert isinstance(result.end, x.Exited)
    return result.end


async def test_a_value_is_masked_however_a_program_writes_it(site: Site) -> None:
    session = await site.session()
    plain = await python(site, session, "put(b'a ' + token + b' z\\n'); os.write(2, token)")
    assert (plain.stdout, plain.stderr) == (b"a " + MARKER + b" z\n", MARKER)
    assert exited(plain).masked
    # What is counted is what is recorded.
    assert exited(plain).bytes == {"stdout": len(plain.stdout), "stderr": len(MARKER)}
    assert exited(plain).lines == {"stdout": 1, "stderr": 0}

    pieces = "for at in range(0, len(token), 7): put(token[at:at+7]); time.sleep(0.03)\nput(b'.\\n')"
    assert (await python(site, session, pieces)).stdout == MARKER + b".\n"
    # Longer than anything is held: at most three bytes of it are shown, and the rest is known for what it is.
    slowly = "put(token[:3]); time.sleep(1.3); put(token[3:9]); time.sleep(1.3); put(token[9:] + b'.\\n')"
    assert (await python(site, session, slowly)).stdout == TOKEN[:3].encode() + MARKER + b".\n"
    killed = "put(b'x ' + token[:-1]); os.kill(os.getpid(), 9)"
    assert (await python(site, session, killed)).stdout == b"x " + MARKER

    encoded = "import base64, urllib.parse\nfor before in range(3): put(base64.b64encode(bytes(before) + token + b'ab') + b'\\n')"
    shown = (await python(site, session, encoded)).stdout.split(b"\n")
    # At its edge stand the characters that depend on what is before it.
    assert [line.index(MARKER) for line in shown[:3]] == [0, 2, 3]
    quoted = urllib.parse.quote(TOKEN, safe="").encode()
    asked = await python(site, session, f"put({b'https://u:' + quoted + b'@host/' + quoted.lower()!r})")
    assert asked.stdout == b"https://u:" + MARKER + b"@host/" + MARKER


async def test_a_terminal_shows_no_value_and_its_echo_is_not_late(site: Site) -> None:
    session = await site.session()
    shown = await python(
        site, session, "put(b'> ' + token[:9]); time.sleep(0.1); put(token[9:] + b'\\n')", tty=x.Terminal()
    )
    assert shown.stdout == b"> " + MARKER + b"\r\n"
    assert exited(shown).masked


async def test_values_are_masked_at_any_place_of_a_long_output(site: Site) -> None:
    """Over the borders of reads, blocks and pipes; a cap counts what is recorded."""
    session = await site.session()
    size = 3 * READ_BYTES
    code = f"out = b''.join(b'%d ' % n + token + b'\\n' for n in range({size} // 20))\nwhile out: out = out[put(out):]"
    whole = await python(site, session, code)
    want = b"".join(b"%d " % n + MARKER + b"\n" for n in range(size // 20))
    assert whole.stdout == want
    assert exited(whole).lines["stdout"] == size // 20
    capped = await python(site, session, code, stdout_max_bytes=100_001)
    assert capped.stdout == want[:100_001]


async def test_a_value_is_masked_in_the_whole_session_and_forgotten_as_it_stops(site: Site) -> None:
    session = await site.session()
    # This one runs before the value is leased, and never gets it.
    before = await site.client.exec(
        ORG, session, shell="until test -s kept; do sleep 0.05; done; cat kept; echo; base64 -w0 kept"
    )
    kept = await python(site, session, "open('kept', 'wb').write(token)")
    assert not exited(kept).masked
    seen = await before.collect()
    assert seen.stdout.startswith(MARKER + b"\n" + MARKER)
    assert exited(seen).masked
    other = await site.client.run(ORG, session, ["cat", "kept"])
    assert (other.stdout, exited(other).masked) == (MARKER, True)
    # The user's own bytes, which are stored nowhere.
    assert await site.client.files(ORG, session).read("kept") == TOKEN.encode()

    await site.client.stop(ORG, session)
    await site.client.resume(ORG, session)
    after = await site.client.run(ORG, session, ["cat", "kept"])
    assert (after.stdout, exited(after).masked) == (TOKEN.encode(), False)
    # The log has what runnerd said, which of that session is this once.
    bodies = [stored.body for stored in await site.log() if session in stored.subject.split(".")]
    assert sum(TOKEN.encode() in body for body in bodies) == 1


async def test_a_value_that_is_too_short_is_shown_and_said(site: Site) -> None:
    session = await site.session()
    handle = await site.client.exec(ORG, session, shell='printf %s "$SHORT"', secret_env=lease("short"))
    result = await handle.collect()
    assert (result.stdout, exited(result).masked) == (SHORT.encode(), False)
    log = site.folder(session).log.read_text()
    assert "a value is too short to be masked" in log
    assert SHORT not in log
