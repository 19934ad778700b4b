"""Canaries in every place where a secret can be, a run of all that can happen, and then a look everywhere else.

Issue 7, part 5. What a session was given, what the stack keeps secret itself (seeds, keys, the database's password), and what
boots are started with: none of it is in the log, the views, the files, the logs, the spool, process lists, other
processes' variables, health, metrics, or in what the command line says when something is wrong.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from sandreel_core.contract import agent as a
from sandreel_core.contract import exec as x
from sandreel_core.contract import turn as t
from sandreel_core.contract.boot import EXEC_MARKER
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.message import Owner
from sandreel_core.embedded.stack import GATEWAY
from sandreel_core.errors import Refused
from sandreel_core.health_reading import get
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.bootstrap import token_of
from sandreel_runnerd.mask import MARKER
from tests.support import claude, memory
from tests.support.canary import TELL, Canaries, homes, leased, messages_of, of_stack, planted
from tests.support.lender import grant, lease
from tests.support.model_api import Failure, ModelApi, steps
from tests.support.program import ENVIRON, sandreel
from tests.support.system import ORG, STREAM, Site, open_site, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

FILTERS = {STREAM: "evt.>", "CMD": "cmd.>", "DEAD": "dead.>"}
LEASED = leased()
PROVIDER_KEY = f"sk-ant-{os.urandom(20).hex()}"
MODEL = "claude-sonnet-4-5"
# What an agent does with the key of its turn: says it, and asks the model itself.
ASKS = """
import json, os, urllib.request, urllib.error
body = json.dumps({"model": os.environ["MODEL"], "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]})
asked = urllib.request.Request(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", body.encode())
asked.add_header("x-api-key", os.environ["ANTHROPIC_AUTH_TOKEN"])
try: print(urllib.request.urlopen(asked, timeout=20).read())
except urllib.error.HTTPError as error: print("answered", error.code, error.headers, error.read())
"""
AGENT = f"""until test -e ../go; do sleep 0.1; done
echo "$ANTHROPIC_AUTH_TOKEN"; MODEL={MODEL} {sys.executable} -I -c '{ASKS}'"""
# No secrets, and so in all of these places: what is looked for is found there, however it was written.
PLANTED = planted()
FOUND_IN = (
    "a message on evt",
    "a row of reel",
    "variables of process",
    "the client's result",
    "a spy",
    "the spool",
    "nats/",
    "sandreel events",
    "logs/",
    "state/sessions/",
    "a message on cmd",
)
PATHS = ("/healthz", "/metrics")
RAISES = "import os; raise SystemError('cannot use ' + os.environ['TOKEN'])"
FOREVER = "import os, time\nwhile True: os.write(1, ' '.join([os.environ['TOKEN'], os.environ['PLANTED'], ' ' * 100]).encode()); time.sleep(0.005)"


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(agents: Path) -> AsyncIterator[Site]:
    """A whole stack, its gateway before a stand-in of the provider that quotes the key it was shown in its error."""
    refused = Failure(401, f"invalid x-api-key: {PROVIDER_KEY}, Bearer {PROVIDER_KEY}")
    async with ModelApi(steps(refused)) as api:
        own = {"ANTHROPIC_API_KEY": PROVIDER_KEY, "SANDREEL_GATEWAY_ANTHROPIC_URL": api.url}
        own["SANDREEL_BRIDGE_PROGRAMS"] = f"claude={agents}/claude"
        async with open_site(stop_sessions=True, **own) as site:
            yield site
        assert any(PROVIDER_KEY in seen.headers.values() for seen in api.seen)


@pytest.fixture(scope="module")
def agents() -> Iterator[Path]:
    # Not below /tmp, of which sessions in bubblewrap have one of their own.
    with tempfile.TemporaryDirectory(prefix="sandreel-agents-", dir="/var/tmp") as name:
        program = Path(name) / "claude"
        program.write_text(f"#!{sys.executable} -I\n{Path(claude.SOURCE).read_text()}")
        program.chmod(0o755)
        program.parent.chmod(0o755)
        yield program.parent


async def test_no_secret_is_anywhere_but_where_it_belongs(site: Site) -> None:
    keys = of_stack(site.stack) | {"provider key": PROVIDER_KEY}
    session = await site.session(env={"PLANTED": PLANTED.text})
    said = [("sandreel credential put", (await grant(site, session, LEASED)).encode())]
    keys[f"token of {session}"] = boot_token(site, session)
    keys["virtual key"] = await turn(site)
    (site.data / "logs" / "planted.log").write_text(PLANTED.text)
    await site.client.run(ORG, session, ["sh", "-c", 'printf %s "$PLANTED" > planted'])
    canaries = Canaries(LEASED | keys | PLANTED.values)
    given = await work(site, session, said)
    gateway = site.stack.parts[GATEWAY].pid
    canaries.look_at_processes(given, {gateway: frozenset({"provider key"})} if gateway else {})
    # That the look would have found it: it is in the variables of whom it was given to.
    assert {name for holder in given for name, _ in canaries.found(await environ_of(holder))} == {
        "token",
        *PLANTED.values,
    }
    await asyncio.to_thread(look_at_memory, site, session, next(iter(given)), await site.session())
    said += await crash(site, session)
    said += await mistakes(site, keys["postgres password"])
    await look_everywhere(site, canaries, said)
    assert PLANTED.others(canaries.seen) == []
    assert PLANTED.missing(canaries.seen, FOUND_IN) == []


def look_at_memory(site: Site, session: str, holder: str, other: str) -> None:
    """The exec that was given the value has it, and its recorder, which asked for it (and the broker); nobody else."""
    if os.geteuid() != 0:
        return
    recorder = memory.below(site.boot(session).pid)
    parts = {name: part.pid for name, part in site.stack.parts.items() if part.pid is not None and name != "broker"}
    others = {
        f"{name} ({pid})": pid for name, root in parts.items() for pid in memory.below(root) if pid not in recorder
    }
    others |= {f"another session's recorder ({pid})": pid for pid in memory.below(site.boot(other).pid)}
    assert {"nats", "postgres", "projector", "spawner"} <= parts.keys()
    value, seen = LEASED["token"].encode(), set[tuple[str, str, str]]()
    assert memory.holds(pid_of(holder), value, seen), "the look would have found it"
    assert any(memory.holds(pid, value, seen) for pid in recorder)
    assert [name for name, pid in others.items() if memory.holds(pid, value, seen)] == []


async def turn(site: Site) -> str:
    """An agent says the key that it was given for its turn, and what the gateway answers. The key."""
    owner = Owner(type="session", id="agent")
    start = t.StartTurn(turn="telling", agent="claude-code", model=MODEL, prompt=f"sh {AGENT}", owner=owner)
    await site.client.create_session(ORG, "agent", owner=owner)
    await site.client.send(ORG, "agent", start)
    environ = await environ_of("telling-1")
    key = next(each for each in environ.split(b"\0") if each.startswith(b"ANTHROPIC_AUTH_TOKEN=")).partition(b"=")[2]
    await site.client.files(ORG, "agent").write("go", b"")
    subjects = site.client.subjects(ORG, "agent")
    subject, said = subjects.event("turn", "telling"), ""
    async with asyncio.timeout(60), aclosing(site.client.bus.follow(subjects.stream, [subject])) as items:
        async for item in items:
            events = [decode_event(subject, each.body).data for each in (item if isinstance(item, list) else ())]
            said += "".join(event.text for event in events if isinstance(event, a.AgentText))
            if any(isinstance(event, t.TurnFinished) for event in events):
                break
    assert said.startswith(MARKER.decode()), said
    assert "answered 401" in said, said
    return key.decode()


async def work(site: Site, session: str, said: list[tuple[str, bytes]]) -> dict[str, frozenset[str]]:
    """Everything that goes well, or is refused. What the live execs were given, by their ids."""
    client = site.client
    for name, fields in (("plain", {}), ("terminal", {"tty": x.Terminal()}), ("capped", {"stdout_max_bytes": 700})):
        result = await (
            await client.exec(ORG, session, python(TELL), secret_env=lease(*LEASED), exec=name, **fields)
        ).collect()
        assert result.exit_code == 0, result.stderr
        assert MARKER in result.stdout
        said.append((f"the client's result of {name}", result.stdout + result.stderr))
    traced = await client.exec(
        ORG, session, ["sh", "-xc", 'curl="$TOKEN"; env; cat no-$TOKEN'], secret_env=lease("token")
    )
    said.append(("a trace", (await traced.collect()).stderr))
    failed = await client.exec(ORG, session, python(RAISES), secret_env=lease("token"))
    said.append(("a traceback", (await failed.collect()).stderr))
    missing = await client.exec(ORG, session, ["no-such-program"], secret_env=lease("token"))
    assert (await missing.collect()).reason == "spawn_failed"
    holder = f"holder-{os.urandom(4).hex()}"
    await client.exec(ORG, session, ["sleep", "600"], secret_env=lease("token"), exec=holder)
    # One that was given nothing reads what it can of the others, and tells it.
    spy = await client.run(ORG, session, shell="cat /proc/*/environ; cat /proc/*/cmdline; env")
    assert MARKER in spy.stdout
    said.append(("a spy", spy.stdout + spy.stderr))
    # Programs that ask for theirs by themselves.
    asked = await client.run(
        ORG, session, ["sh", "-c", "sandreel-credential get token; sandreel-credential get nothing"]
    )
    assert asked.stdout.startswith(MARKER)
    said.append(("a program that asked", asked.stdout + asked.stderr))
    for refs in (lease("revoked"), {"A=B": x.SecretRef(role="broker", lease="token")}):
        with pytest.raises(Refused) as refused:
            await client.exec(ORG, session, ["true"], secret_env=refs)
        said.append(("a refusal", str(refused.value).encode()))
    return {holder: frozenset({"token"})}


async def crash(site: Site, session: str) -> list[tuple[str, bytes]]:
    """Every part is killed while a secret is being printed; what could not be sent meanwhile is looked at, too."""
    handle = await site.client.exec(ORG, session, python(FOREVER), secret_env=lease("token"))
    pid = site.boot(session).pid
    await site.kill_and_hold("nats")
    spooled = await until_spooled(pid)
    await site.release("nats")
    await site.kill("spawner", "projector", "broker", "bridge", GATEWAY, "postgres")
    os.kill(pid, signal.SIGKILL)
    result = await handle.collect()
    assert isinstance(result.end, x.Lost)
    await site.stopped(session)
    await site.client.resume(ORG, session)
    return [("the spool", spooled), ("an exec that was lost", result.stdout)]


async def until_spooled(pid: int) -> bytes:
    """What runnerd's spool holds, as soon as it holds something: a file without a name, open in that process."""
    held = [b""]

    def look() -> bool:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # it tries to connect meanwhile
                if fd.readlink().name.endswith(" (deleted)") and MARKER in (data := fd.read_bytes()):
                    held[0] = data
        return bool(held[0])

    await until(look, "something was spooled")
    return held[0]


async def mistakes(site: Site, password: str) -> list[tuple[str, bytes]]:
    """What the command line says of a wrong password, of credentials that are none, and of the whole stack."""
    wrong = site.data / "wrong.creds"
    seed = (site.stack.place.identity / "spawner.creds").read_text()
    wrong.write_text(seed.replace("-----BEGIN", "-----BEGAN"))
    dsn = site.dsn.replace(f":{password}@", f":x{password}@")
    asked: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
        (("doctor", "--json"), {}),
        (("health", "--json"), {}),
        (("sql", "SELECT * FROM reel.execs"), {}),
        (("sql", "SELECT 1"), {"SANDREEL_POSTGRES_DSN": dsn}),
        (("session", "ls"), {"SANDREEL_BUS_CREDS_FILE": str(wrong)}),
        (("session", "ls"), {"SANDREEL_BUS_CREDS": wrong.read_text()}),
        (("session", "ls"), {"SANDREEL_POSTGRES_DNS": dsn}),
        (("credential", "ls", "--json"), {}),
        (("events", "--raw"), {}),
    )
    printed = await asyncio.gather(*(sandreel(site.data, *words, environ=ENVIRON | more) for words, more in asked))
    said = [
        (f"sandreel {' '.join(words)}", done.said.encode()) for (words, _), done in zip(asked, printed, strict=True)
    ]
    wrong.unlink()
    ports = [
        port for name, port in site.stack.place.keys().health_ports.items() if name != "bridge"
    ]  # which is held down
    said += [(f"{path} at {port}", await get(f"127.0.0.1:{port}", path)) for port in ports for path in PATHS]
    assert all(text for _, text in said)
    return said


async def look_everywhere(site: Site, canaries: Canaries, said: list[tuple[str, bytes]]) -> None:
    for where, text in said:
        canaries.look(where, text)
    for stream in (STREAM, "CMD", "DEAD"):
        messages = await messages_of(site.stack, stream, FILTERS[stream])
        assert messages or stream == "DEAD"
        for subject, body in messages:
            canaries.look_at_json(f"a message on {subject}", body)
    await site.projected()
    assert await canaries.look_at_postgres(site.dsn) > 50
    gateway = site.stack.parts[GATEWAY].pid
    canaries.look_at_processes({}, {gateway: frozenset({"provider key"})} if gateway else {})
    # The holder died with its boot. The servers' own files, logs of roles and runnerds, records of boots, workspaces.
    assert canaries.look_at_files(site.data, homes(site.stack)) > 50


def boot_token(site: Site, session: str) -> str:
    """What its runnerd was started with."""
    key = (site.stack.place.state / "installation.key").read_text().strip().encode()
    return token_of(key, Key(ORG, session), site.boot(session).boot_id)


async def environ_of(exec_id: str) -> bytes:
    """The variables of an exec's process, as soon as it is there."""
    await until(lambda: bool(processes_of(exec_id)), f"{exec_id} runs")
    return next(iter(processes_of(exec_id).values()))


def pid_of(exec_id: str) -> int:
    return next(iter(processes_of(exec_id)))


def processes_of(exec_id: str) -> dict[int, bytes]:
    """An exec's processes, each with its variables."""
    found: dict[int, bytes] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environ = (process / "environ").read_bytes()
            if f"{EXEC_MARKER}={exec_id}".encode() in environ.split(b"\0"):
                found[int(process.name)] = environ
    return found
