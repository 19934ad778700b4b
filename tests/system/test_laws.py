"""One test per law of the design, by its name: each would fail if the law broke. Over the whole system."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandreel_core import jwt
from sandreel_core.bus.port import CaughtUp
from sandreel_core.client import Client, Ended, Output
from sandreel_core.clock import new_id
from sandreel_core.contract import exec as x
from sandreel_core.contract.bootstrap import Bootstrap, MakeFeed
from sandreel_core.contract.codec import decode_event, encode, seal
from sandreel_core.contract.session import Extend, Pin, Provisioned, Unpin
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Conflict, Denied, Refused, SandreelError
from sandreel_core.ids import uuid7
from sandreel_core.keys import new_key
from sandreel_migrations.upgrade import upgrade
from sandreel_projections.projector import Projector
from sandreel_projections.registry import reel_source
from tests.support.system import ORG, STREAM, Site, left_of, until
from tests.support.system_log import check_views, stored_rows
from tests.support.system_readers import reading
from tests.support.system_users import asker_of, bus_of, recorder_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("laws"), pytest.mark.timeout(120)]


async def events(site: Site, subject: str) -> list[Any]:
    """The envelopes that are stored on a subject."""
    return [decode_event(stored.subject, stored.body) for stored in await site.log() if stored.subject == subject]


def made_up(subjects: SessionSubjects, exec_id: str, n: int, event: x.ExecEvent, time: datetime) -> bytes:
    """An event of an exec, as somebody else would say it."""
    subject = subjects.exec(exec_id)
    return encode(seal(event, id=new_id(), source="/runnerd/made-up", subject=subject, time=time, n=n))


async def test_law_1_one_aggregate_one_subject_one_writer_at_a_time(site: Site) -> None:
    session = await site.session()
    subjects = site.client.subjects(ORG, session)
    job = await site.job(session)
    watcher = site.watcher(job)
    async with reading(watcher):
        await watcher.more()
        # A recorder that cannot be reached is not dead: the session is degraded, and nobody else ends its exec.
        boot = site.boot(session)
        os.kill(boot.pid, signal.SIGSTOP)
        try:
            await phase(site, session, "degraded")
            await site.kill("spawner")
            assert [event.type for event in await events(site, subjects.exec(job.id))].count("exec.lost") == 0
        finally:
            os.kill(boot.pid, signal.SIGCONT)
        await phase(site, session, "ready")
        await watcher.more()
        # Writers that race for one subject: each command has one event, and the sequence of the subject has no fork.
        outcomes = await asyncio.gather(
            *(
                site.client.send(ORG, session, command)
                for command in [Pin(), Unpin(), Extend(ttl_s=60), Pin(), Extend(ttl_s=90), Unpin()] * 3
            )
        )
        assert len({outcome.cursor for outcome in outcomes}) == len(outcomes)
        async with bus_of(site.stack) as late:
            with pytest.raises(Conflict):
                await late.append(subjects.event("session"), b"{}", expected=outcomes[0].cursor.sequence)
        # Those who are no writers may not write.
        with pytest.raises(Denied):
            await site.client.bus.append(subjects.event("session"), b"{}")
        async with recorder_of(site.stack, session) as recorder:
            with pytest.raises(Denied):
                await recorder.append(subjects.event("session"), b"{}")
        job.enough()

    await site.check_job(job, (watcher,))
    sources = {event.source for event in await events(site, subjects.exec(job.id))}
    assert sources == {f"/runnerd/{ORG}/{session}/{boot.boot_id}"}


async def test_law_2_exit_is_a_fact(site: Site) -> None:
    session = await site.session()
    subjects = site.client.subjects(ORG, session)
    job, other = await site.job(session, "fact", limit=1000), await site.job(session, "cut")
    ended, cut = site.watcher(job), site.watcher(other)
    async with reading(ended, cut):
        await ended.over()
        await cut.more()
        boot = site.kill_runnerd(session)
    assert cut.ends == ["exec.lost"]
    assert left_of(boot) == []

    # Whatever is stored behind an end is nobody's: no viewer, no view and no new reader takes it.
    async with bus_of(site.stack) as bus:
        for id, last_n in ((job.id, ended.last_n), (other.id, cut.last_n)):
            end = x.Exited(exit_code=0, reason="exited", duration_ms=1)
            for n in (last_n, last_n + 1):
                await bus.append(subjects.exec(id), made_up(subjects, id, n, end, datetime.now(UTC)))
    assert (await site.client.collect(ORG, session, job.id)).exit_code == 7
    lost = await site.client.collect(ORG, session, other.id)
    assert (lost.reason, lost.exit_code) == ("lost", None)
    await site.projected()
    rows = await site.sql("SELECT exec, phase, exit_code FROM reel.execs WHERE session = $1 ORDER BY exec", session)
    assert rows == [("cut", "lost", None), ("fact", "exited", 7)]

    # It never runs twice: not in this boot, not in the next one.
    await site.client.resume(ORG, session, timeout_s=60)
    for one in (job, other):
        with pytest.raises(Refused, match="DUPLICATE_EXEC"):
            await site.client.exec(ORG, session, ["touch", "ran-twice"], exec=one.id)
        assert one.runs() == 1
    assert not (job.workspace / "ran-twice").exists()


async def test_law_3_no_silent_loss(site: Site) -> None:
    session = await site.session()
    job = await site.job(session, pause_s=0)
    watcher = site.watcher(job)
    async with reading(watcher):
        await watcher.more()
        await site.hold(session, True)
        await site.waits(job)  # nothing is dropped: the child waits
        assert (await site.heartbeat(session)).held
        stuck = job.printed_bytes()
        await site.hold(session, False)
        await watcher.seen(stuck + 100_000)
        job.enough()

    told = await site.check_job(job, (watcher,))
    accepted = sorted({n for n, _ in told.bodies})
    assert accepted == list(range(1, told.last_n + 1))


async def test_law_4_nobody_owns_a_running_exec_but_runnerd(site: Site) -> None:
    session = await site.session()
    job = await site.job(session)
    watcher, attached = site.watcher(job), site.attached(job)
    everything = ("spawner", "projector", "nats", "postgres")
    async with reading(watcher, attached):
        await asyncio.gather(watcher.more(), attached.more())
        boot = site.boot(session)
        attached.kill()
        await site.kill_and_hold(*everything)
        printed = job.printed_bytes()
        await until(lambda: job.printed_bytes() > printed + 200_000, "the job goes on while nothing else lives")
        await site.release(*everything)
        await asyncio.gather(watcher.more(), attached.more())
        assert site.boot(session).pid == boot.pid
        job.enough()

    await site.check_job(job, (watcher, attached))


async def test_law_5_the_log_is_the_truth(site: Site) -> None:
    """Views that are thrown away come back to the same rows, from the stream alone."""
    session = await site.session()
    job = await site.job(session, limit=5000)
    watcher = site.watcher(job)
    async with reading(watcher):
        pass
    await site.client.stop(ORG, session)
    await site.check()
    before = await stored_rows(site.dsn)

    await site.sql("CREATE DATABASE again TEMPLATE template0")
    dsn = site.dsn.rpartition("/")[0] + "/again"
    await upgrade(dsn, wait_s=20)
    last = (await site.client.bus.state(STREAM)).last_sequence
    async with bus_of(site.stack) as bus, asyncio.TaskGroup() as group:
        projector = group.create_task(Projector(bus, dsn, reel_source(0)).run())

        async def read_all() -> bool:
            cursors = await site.sql_at(dsn, "SELECT sequence FROM reel.cursors WHERE stream = $1", STREAM)
            return [row for row in cursors if row[0] >= last] != []

        await until(read_all, "the new views have read everything")
        projector.cancel()
    again = await stored_rows(dsn)
    assert again == before
    check_views(await site.log(), (await site.client.bus.state(STREAM)).epoch, again)


async def test_law_6_no_secret_enters_the_log(site: Site) -> None:
    """Keys and credentials of everybody, the key of the installation, the bootstrap token and what was typed are found
    nowhere but where they belong."""
    session = await site.session()
    typed = "typed-" + os.urandom(12).hex()
    secrets = [typed, *seeds(site.stack.place.identity)]
    secrets.append((site.stack.place.state / "installation.key").read_text().strip())

    terminal = await site.client.exec(
        ORG, session, shell="stty -echo; echo ready; read line; echo ${#line}", tty=x.Terminal()
    )
    async with asyncio.timeout(30), aclosing(terminal.follow()) as items:
        async for item in items:
            if isinstance(item, Output) and b"ready" in item.data:
                break
    await terminal.keys(typed.encode() + b"\n", offset=0)
    assert str(len(typed)) in (await terminal.collect()).text
    # What an exec can see of itself, of its recorder and of the machine it runs on.
    look = "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; cat /proc/1/environ"
    look += "; ls -lR / 2>/dev/null | head -c 0; grep -rs . /workspace ~ /tmp | head -c 100000; true"
    seen = await site.client.run(ORG, session, shell=look)
    # Error texts: credentials that nobody of ours has signed, a wrong token, a recorder that dies.
    errors = []
    stranger = new_key("user")
    claims = jwt.user(stranger.public, "mallory", account="A", publish=[">"], subscribe=[">"])
    forged = jwt.encode(claims, issuer=stranger.public, issued_at_s=0, sign=stranger.sign)
    try:
        async with Client.connect(
            f"nats://127.0.0.1:{site.stack.place.keys().nats_port}", creds=jwt.creds(forged, stranger.seed)
        ):
            raise AssertionError("forged credentials were taken")
    except SandreelError as error:
        errors.append(str(error))
    secrets += [forged, stranger.seed]
    await bootstrap(site, session, errors)
    site.kill_runnerd(session)
    await site.stopped(session)

    await site.projected()
    places: dict[str, bytes] = {"an exec": seen.stdout + seen.stderr, "errors": "\n".join(errors).encode()}
    places["processes"] = b"".join(read_proc("cmdline"))
    for stored in await site.log():
        places[stored.subject] = places.get(stored.subject, b"") + stored.body
    async with bus_of(site.stack) as bus:
        for stream in ("CMD", "DEAD"):
            async with aclosing(bus.follow(stream, [">"], live=False)) as batches:
                async for batch in batches:
                    for stored in batch if isinstance(batch, list) else ():
                        places[stored.subject] = stored.body
    for path in [*site.data.glob("logs/*"), site.folder(session).log, *site.data.glob("nats/*.log")]:
        places[str(path)] = path.read_bytes()
    for table, rows in (await stored_rows(site.dsn)).items():
        places[table] = repr(rows).encode()
    for secret in secrets:
        bare, coded = secret.encode(), base64.b64encode(secret.encode()).rstrip(b"=")[:-1]
        found = [place for place, body in places.items() if bare in body or coded in body]
        assert found == [], f"a secret is in {found}"


async def test_law_7_commands_are_idempotent_by_id(site: Site) -> None:
    session = await site.session()
    id, exec_id = new_id(), "once"

    async def start() -> Any:
        handle = await site.client.exec(
            *(ORG, session), shell="echo ran >> once; sleep 0.3", exec=exec_id, command_id=id, answer_timeout_s=60
        )
        return handle.accepted

    first = await asyncio.gather(*(start() for _ in range(5)))
    await site.kill("spawner", "nats")
    again = await asyncio.gather(*(start() for _ in range(5)))
    assert len({(outcome.cursor, outcome.event.id) for outcome in first + again}) == 1
    result = await site.client.collect(ORG, session, exec_id)
    assert result.exit_code == 0, result
    assert (site.folder(session).workspace / "once").read_text() == "ran\n"

    pin = new_id()
    pins = await asyncio.gather(*(site.client.send(ORG, session, Pin(), command_id=pin) for _ in range(5)))
    assert len({outcome.cursor for outcome in pins}) == 1
    caused = [stored for stored in await site.log() if f'"causationid":"{pin}"'.encode() in stored.body]
    assert len(caused) == 1

    ancient = uuid7(int((datetime.now(UTC) - timedelta(days=7)).timestamp() * 1000), os.urandom(10))
    for command in (Unpin(), x.Start(exec="ancient", argv=["touch", "ancient"])):
        with pytest.raises(Refused, match="STALE"):
            await site.client.send(ORG, session, command, command_id=ancient)
        ancient = uuid7(int((datetime.now(UTC) - timedelta(days=7)).timestamp() * 1000), os.urandom(10))
    assert not (site.folder(session).workspace / "ancient").exists()


async def test_law_8_fail_closed(site: Site) -> None:
    session = await site.session()
    # A backend without a fence says so in the log.
    provisioned = [event.data for event in await events(site, site.client.subjects(ORG, session).event("session"))]
    assert [event.fence for event in provisioned if isinstance(event, Provisioned)] == ["none"]
    # No grant, no lease: an exec that needs a secret does not start.
    reference = {"TOKEN": x.SecretRef(role="broker", lease="lease-1")}
    with pytest.raises(Refused) as refused:
        await site.client.exec(ORG, session, ["touch", "ran-anyway"], secret_env=reference)
    assert refused.value.code == "SECRET_UNAVAILABLE"
    assert "NOT_GRANTED" in refused.value.message
    assert not (site.folder(session).workspace / "ran-anyway").exists()
    # No token, no boot; and not without the rights.
    errors: list[str] = []
    await bootstrap(site, session, errors)
    assert len(errors) == 3
    async with recorder_of(site.stack, session) as bus:
        for subject in (f"cmd.spawner.{ORG}.{session}.{new_id()}", f"dead.{session}"):
            with pytest.raises(Denied):
                await bus.append(subject, b"{}")
    async with bus_of(site.stack, "operator") as bus:
        with pytest.raises(Denied):
            await bus.purge(STREAM, site.client.subjects(ORG, session).event("session"))


async def test_law_9_bounded_everything(site: Site) -> None:
    session = await site.session()
    subjects = site.client.subjects(ORG, session)
    # A line of 10 MB is cut into blocks that the server takes, and is whole again for who reads.
    line = await site.client.exec(ORG, session, shell="head -c 10000000 /dev/zero | tr '\\0' x; echo")
    whole = await line.collect(max_bytes=11_000_000)
    assert whole.stdout == b"x" * 10_000_000 + b"\n"
    stored = [message for message in await site.log() if message.subject == subjects.exec(line.id)]
    assert max(len(message.body) for message in stored) < site.client.bus.max_payload
    # What is cut is cut at the byte, and said.
    cut = await site.client.exec(ORG, session, shell="seq 1000", stdout_max_bytes=1001)
    result = await cut.collect()
    assert (len(result.stdout), result.truncated) == (1001, frozenset({"stdout"}))
    said = [event.data for event in await events(site, subjects.exec(cut.id)) if isinstance(event.data, x.Truncated)]
    assert [truncated.limit_bytes for truncated in said] == [1001]
    # Execs, sizes and queues have ends, and they are answers.
    sleepers = [await site.client.exec(ORG, session, ["sleep", "60"]) for _ in range(4)]
    with pytest.raises(Refused, match="EXEC_LIMIT"):
        await site.client.exec(ORG, session, ["true"])
    with pytest.raises(Refused, match="BAD_REQUEST"):
        await sleepers[0].write_stdin(b"x" * (64 * 1024 + 1))
    await asyncio.gather(*(sleeper.cancel() for sleeper in sleepers))
    await asyncio.gather(*(sleeper.wait() for sleeper in sleepers))
    # The recorder stays small while the bus is away and the child prints as fast as it can.
    job = await site.job(session, pause_s=0, wave=2000)
    watcher = site.watcher(job)
    async with reading(watcher):
        await watcher.more(1_000_000)
        before = rss_bytes(site.boot(session).pid)
        await site.kill_and_hold("nats")
        await site.waits(job)
        assert rss_bytes(site.boot(session).pid) < before + (48 << 20)
        await site.release("nats")
        await watcher.more()
        job.enough()
    await site.check_job(job, (watcher,))


async def test_law_10_order_is_the_stream_sequence(site: Site) -> None:
    """Clocks that go backwards, at every sayer, change nothing."""
    session = await site.session()
    subjects = site.client.subjects(ORG, session)
    story: list[x.ExecEvent] = [x.Accepted(boot_id="b"), x.Started(cwd="/", pid=1, argv=["true"])]
    story += [x.Output(stream="stdout", line=i, count=1, text=f"line {i}\n", eol=True) for i in range(1, 21)]
    story.append(x.Exited(exit_code=0, reason="exited", duration_ms=1, lines={"stdout": 20}))
    clock = datetime(2100, 1, 1, tzinfo=UTC)
    async with bus_of(site.stack) as bus:
        for n, event in enumerate(story, 1):
            time = clock - timedelta(days=400 * n)
            await bus.append(subjects.exec("clocks"), made_up(subjects, "clocks", n, event, time))
    async with aclosing(site.client.follow(ORG, session, "clocks")) as items:
        seen = [item async for item in items if not isinstance(item, CaughtUp)]
    entries = [item for item in seen if isinstance(item, Output | Ended)]
    assert [entry.n for entry in entries] == list(range(3, 24))
    sequences = [entry.cursor.sequence for entry in entries]
    assert sequences == sorted(set(sequences))
    await site.check()
    rows = await site.sql("SELECT line, text FROM reel.lines_of($1, $2, 'clocks')", ORG, session)
    assert rows == [(i, f"line {i}") for i in range(1, 21)]
    # Lag is the server's time, and zero when all has been read.
    lag = await site.sql("SELECT lag_events, lag_s FROM reel.projection_lag WHERE stream = $1", STREAM)
    assert [(events, lag_s < 10) for events, lag_s in lag] == [(0, True)]
    # A deadline is judged by whoever acts on it, whatever the sender's clock says about now.
    for command in (Pin(), x.Start(exec="late", argv=["true"])):
        with pytest.raises(Refused, match="EXPIRED"):
            await site.client.send(ORG, session, command, deadline=datetime.now(UTC) - timedelta(seconds=1))


async def phase(site: Site, session: str, wanted: str) -> None:
    """Returns when the session is in this phase."""
    async with asyncio.timeout(40), aclosing(site.client.follow_session(ORG, session)) as states:
        async for info in states:
            if info.phase == wanted and (await site.client.session(ORG, session)).phase == wanted:
                return


async def bootstrap(site: Site, session: str, errors: list[str]) -> None:
    """Ask in the name of a runnerd, with tokens that are not its own."""
    subjects = site.client.subjects(ORG, session)
    boot_id = site.boot(session).boot_id
    async with asker_of(site.stack, session) as bus:
        for token, keys in (("", {}), ("0" * 64, {"sign": "stranger"})):
            ask = Bootstrap(boot_id=boot_id, token=token, runnerd_version="0", contract_version=1, public_keys=keys)
            with pytest.raises(SandreelError) as caught:
                await bus.request(subjects.request("spawner", "bootstrap"), msgspec.json.encode(ask))
            assert isinstance(caught.value, Denied | Refused), caught.value
            errors.append(str(caught.value))
    async with recorder_of(site.stack, session) as bus:
        ask_feed = MakeFeed(boot_id="99-99", after=0)
        with pytest.raises(Denied) as denied:
            await bus.request(subjects.request("spawner", "feed"), msgspec.json.encode(ask_feed))
        errors.append(str(denied.value))


def seeds(identity: Path) -> list[str]:
    """Every private key of the installation."""
    files = [path.read_text() for path in identity.iterdir() if path.is_file()]
    return sorted(set(re.findall(r"\bS[OAU][A-Z2-7]{56}\b", "\n".join(files))))


def read_proc(name: str) -> list[bytes]:
    bodies = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            bodies.append((entry / name).read_bytes())
        except OSError:
            continue
    return bodies


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
