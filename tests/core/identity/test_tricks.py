"""Tricks against the log, from a session's connection with its runnerd's credentials in hand, and from others.

Every test looks at what is stored afterwards, in the administrator's name: it is not enough that a trick gets no answer.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import replace

import msgspec
import pytest
from nats.aio.msg import Msg

from sandreel_core import jwt
from sandreel_core import permissions as p
from sandreel_core.bus.credentials import Creds
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.clock import new_id
from sandreel_core.contract.subjects import CMD, FEED, SessionSubjects
from sandreel_core.errors import NotFound
from sandreel_core.keys import Key
from sandreel_core.spawner.bootstrap import feed_of
from sandreel_core.spawner.issuer import Issuer
from tests.support.town import KEY, LIMIT_S, NINE, ONE, TWO, Town, pull

THEIRS = {"evt.0.acme.s1.exec.theirs": 1, "evt.0.acme.s2.exec.theirs": 1, "evt.0.umbra.s9.exec.theirs": 1}


async def test_a_session_writes_its_own_record_and_reads_its_own_commands(town: Town) -> None:
    session = await town.session(ONE)
    stored = await session.ask("evt.0.acme.s1.exec.e1", b"hello")
    assert msgspec.json.decode(stored.data)["stream"] == "REEL-0"
    command = await session.ask(f"{FEED}.{feed_of(KEY, ONE, '1-1')}", pull())
    assert (command.data, command.subject.split(".")[:4]) == (b"acme/s1", ["cmd", "runnerd", "acme", "s1"])
    for own in ("evt.0.acme.s1.workspace", "evt.0.acme.s1.command", "hb.acme.s1", "req.spawner.acme.s1.renew"):
        assert await session.publish(own), session.denied


async def test_an_empty_command_holds_nothing_up(town: Town) -> None:
    """To the server an empty answer of an imported service is its last: the feed is made again, at once, behind it."""
    subjects, name = SessionSubjects(*ONE), feed_of(KEY, ONE, "1-1")
    for body in (b"", b"behind it", b"", b"", b"last"):
        await town.log.append(subjects.command("runnerd", new_id()), body)
    token, seed = jwt.parse_creds(town.session_creds(ONE))
    bus = await JetStreamBus.connect([town.server.url], name="t", identity=Creds(token, Key(seed)))
    town.exit.push_async_callback(bus.close)
    got: list[bytes] = []
    after = 0
    async with asyncio.timeout(10):  # less than three heartbeats of a pull
        while not got or got[-1] != b"last":
            await town.log.make_feed(CMD, name, [subjects.commands("runnerd")], after=after)
            with suppress(NotFound):
                async with aclosing(bus.feed(CMD, name)) as batches:
                    async for batch in batches:
                        got += [stored.body for stored in batch]
                        after = batch[-1].sequence
                        if got[-1] == b"last":
                            break
    assert got == [b"acme/s1", b"", b"behind it", b"", b"", b"last"]


async def test_a_session_publishes_nothing_else(town: Town) -> None:
    session = await town.session(ONE)
    for subject in (
        # Another session, another organisation: an exec.exited that nobody of them wrote.
        *("evt.0.acme.s2.exec.theirs", "evt.0.umbra.s9.exec.theirs", "hb.acme.s2", "evt.0.umbra.s1.exec.e"),
        # What others decide about itself, and another partition.
        *("evt.0.acme.s1.session", "evt.0.acme.s1.credential", "evt.0.acme.s1.usage", "evt.0.acme.s1.turn.t"),
        *("evt.1.acme.s1.exec.e", f"cmd.spawner.acme.s1.{new_id()}", f"cmd.runnerd.acme.s1.{new_id()}"),
        *("dead.acme", "slot.x", "home", "closed.acme.s1"),
        # What others are asked, in its name or in another's; and what it might answer with.
        *("req.runnerd.acme.s2.health", "req.runnerd.acme.s1.health", "req.spawner.acme.s2.feed"),
        *("req.spawner.umbra.s9.log", "req.broker.acme.s2.secret", "req.spawner.acme.s1.bootstrap"),
        *("req.bridge.acme.s2.secret", "req.bridge.acme.s1.prompt"),
        *("_R_.x", "_INBOX.x", "$SYS.REQ.CLAIMS.UPDATE"),
        # JetStream: none of it, under any name.
        *("$JS.API.INFO", "$JS.API.STREAM.INFO.REEL-0", "$JS.API.STREAM.MSG.GET.REEL-0", "$JS.API.STREAM.DELETE.CMD"),
        *("$JS.API.DIRECT.GET.REEL-0.evt.0.acme.s1.exec.e1", "$JS.API.DIRECT.GET.REEL-0", "$JS.ACK.CMD.x"),
        *("$JS.API.CONSUMER.CREATE.CMD.x", "$JS.API.CONSUMER.CREATE.CMD.x.cmd.runnerd.acme.s1.*"),
        *(
            f"$JS.API.CONSUMER.MSG.NEXT.CMD.{feed_of(KEY, ONE, '1-1')}",
            f"{FEED}.{feed_of(KEY, TWO, '1-1')}",
            f"{FEED}.spawner",
        ),
    ):
        assert not await session.publish(subject, b"forged", f"{session.inbox}.x"), subject
    assert await town.stored() == THEIRS
    assert len(await town.stored("CMD")) == 3
    assert await town.stored("DEAD") == {}


async def test_a_session_hears_nothing_but_its_own(town: Town) -> None:
    session, other = await town.session(ONE), await town.session(TWO)
    for subject in (
        *(">", "*", "_INBOX.>", f"{other.inbox}.>", "_R_.>", "evt.>", "evt.0.acme.s2.exec.*", "cmd.>", "hb.>"),
        *("req.>", "req.runnerd.>", "req.runnerd.acme.s2.*", "req.runnerd.*.*.*", "req.spawner.>", "$JS.>", "$SYS.>"),
    ):
        assert not await session.subscribe(subject), subject
    for subject in (f"{session.inbox}.>", "req.runnerd.acme.s1.*"):
        assert await session.subscribe(subject), session.denied
    # Whoever asks the other one, or the other one's own answers: it hears nothing of them.
    stored = await other.ask("evt.0.acme.s2.exec.e", b"1")
    assert b"REEL-0" in stored.data
    await session.flush()
    assert session.heard == []


async def test_a_reply_subject_makes_the_server_write_nowhere(town: Town) -> None:
    """What the server acknowledges, copies or pushes goes back into the sessions' account, where nothing is stored."""
    session = await town.session(ONE)
    targets = (
        "evt.0.acme.s2.exec.theirs",
        "evt.0.umbra.s9.exec.forged",
        f"cmd.spawner.umbra.s9.{new_id()}",
        "hb.umbra.s9",
    )
    for target in targets:
        await session.publish("evt.0.acme.s1.exec.e1", b"acknowledge me there", target)
        await session.publish(f"{FEED}.{feed_of(KEY, ONE, '1-1')}", pull(), target)
        await session.publish("req.spawner.acme.s1.log", b"{}", target)
        await session.publish("hb.acme.s1", b"{}", target)
    # Its own record goes on, which is as it should be: all that was published has been taken by then.
    await session.ask("evt.0.acme.s1.exec.e2", b"last")
    assert {subject: count for subject, count in (await town.stored()).items() if ".s1." not in subject} == {
        subject: count for subject, count in THEIRS.items() if ".s1." not in subject
    }
    assert len(await town.stored("CMD")) == 3


async def test_the_same_trick_works_in_the_logs_own_account(town: Town) -> None:
    """Why sessions are not its users: the test above would be worth nothing if it could not fail."""
    confined = replace(p.SESSION, account="LOG")
    names = {"org": "acme", "session": "s1", "partition": "0", "feed": "none"}
    session = await town.connect(town.creds(confined, **names))
    assert await session.publish("evt.0.acme.s1.exec.e1", b"acknowledge me there", "evt.0.umbra.s9.exec.forged")
    async with asyncio.timeout(LIMIT_S):
        while "evt.0.umbra.s9.exec.forged" not in await town.stored():
            await asyncio.sleep(0.05)


async def test_a_reply_subject_makes_no_role_write_there(town: Town) -> None:
    """A role answers wherever it is asked to: into the account of whoever asked."""
    spawner = await town.bus("spawner")
    asked: list[str] = []

    async def handle(subject: str, body: bytes) -> bytes:
        asked.append(subject)
        return b"an answer of the spawner"

    async with spawner.serve("req.spawner.*.*.log", handle):
        session = await town.session(ONE)
        await session.publish("req.spawner.acme.s1.log", b"{}", "evt.0.acme.s2.exec.theirs")
        answer = await session.ask("req.spawner.acme.s1.log")
    assert answer.data == b"an answer of the spawner"
    assert asked == ["req.spawner.acme.s1.log"] * 2
    assert await town.stored() == THEIRS


async def test_a_reply_subject_asks_no_other_runnerd(town: Town) -> None:
    """What a stream delivers goes, within the sessions' account, to whatever place a pull names: also to where another
    runnerd takes requests, with a body that the puller has stored as a command to itself. Nobody has asked there."""
    victim, attacker = await town.bus_of_session(NINE), await town.session(ONE)
    own, done = SessionSubjects(*ONE), asyncio.Event()
    asked: list[tuple[str, bytes]] = []

    async def handle(subject: str, body: bytes) -> bytes:
        asked.append((subject, body))
        done.set()
        return b"done"

    where = "req.runnerd.umbra.s9.delete_file"
    await town.log.append(own.command("runnerd", new_id()), b'{"path": "all that they have"}')
    async with victim.serve(where, handle):
        witness = await town.session(NINE)
        assert await witness.subscribe(where)
        await attacker.publish(f"{FEED}.{feed_of(KEY, ONE, '1-1')}", pull(), where)
        await attacker.publish("evt.0.acme.s1.exec.e1", b"acknowledge me there", where)
        async with asyncio.timeout(LIMIT_S):
            while len(witness.heard) < 3:  # the server does deliver it: two commands, an acknowledgement
                await asyncio.sleep(0.01)
        # Behind all that, somebody who may ask it does.
        operator = await town.bus("operator")
        assert await operator.request(where, b"truly asked") == b"done"
    assert asked == [(where, b"truly asked")]


async def test_an_answer_of_a_runnerd_is_stored_nowhere(town: Town) -> None:
    """Whoever asks a runnerd of its own organisation cannot make it write for them, nor answer for another."""
    session, service = await town.session(ONE), await town.connect(town.creds(p.COMMAND, org="acme"))

    async def answer(message: Msg) -> None:
        await message.respond(b"an answer of runnerd")

    await session.client.subscribe("req.runnerd.acme.s1.*", cb=answer)
    await session.flush()
    await service.publish("req.runnerd.acme.s1.health", b"{}", "evt.0.umbra.s9.exec.theirs")
    assert (await service.ask("req.runnerd.acme.s1.health")).data == b"an answer of runnerd"
    assert await town.stored() == THEIRS


async def test_a_bootstrap_user_may_only_ask(town: Town) -> None:
    bootstrap = await town.connect(town.issuer.bootstrap(SessionSubjects(*ONE)))
    for subject in (
        *("evt.0.acme.s1.exec.e", "hb.acme.s1", "req.spawner.acme.s1.feed", "req.spawner.acme.s1.log"),
        *("req.spawner.acme.s2.bootstrap", "req.spawner.umbra.s1.renew", "req.broker.acme.s1.secret"),
        f"{FEED}.{feed_of(KEY, ONE, '1-1')}",
    ):
        assert not await bootstrap.publish(subject, b"{}", f"{bootstrap.inbox}.x"), subject
    for subject in ("req.runnerd.acme.s1.*", "_INBOX.>", ">"):
        assert not await bootstrap.subscribe(subject), subject
    assert await bootstrap.publish("req.spawner.acme.s1.bootstrap")
    assert await bootstrap.publish("req.spawner.acme.s1.renew")
    assert await town.stored() == THEIRS


async def test_a_service_of_an_organisation_commands_its_own_sessions_alone(town: Town) -> None:
    service = await town.connect(town.creds(p.COMMAND, org="acme"))
    sent = await service.ask(f"cmd.spawner.acme.s1.{new_id()}", b"a command")
    assert msgspec.json.decode(sent.data)["stream"] == "CMD"
    for subject in (
        *(f"cmd.spawner.umbra.s9.{new_id()}", f"cmd.runnerd.umbra.s9.{new_id()}", "evt.0.acme.s1.session"),
        *("evt.0.acme.s1.exec.e", "req.runnerd.umbra.s9.keys", "req.spawner.acme.s1.bootstrap", "hb.acme.s1"),
        *(
            "req.runnerd.acme.s1.drain",
            "req.runnerd.acme.s1.hold",
            "req.bridge.umbra.s9.prompt",
            "req.bridge.acme.s1.secret",
            "$JS.API.STREAM.INFO.CMD",
            "$JS.API.STREAM.DELETE.CMD",
        ),
    ):
        assert not await service.publish(subject, b"forged", f"{service.inbox}.x"), subject
    assert await service.publish("req.bridge.acme.s1.prompt", b"{}")
    await service.publish(
        f"cmd.spawner.acme.s1.{new_id()}", b"acknowledge me there", f"cmd.spawner.umbra.s9.{new_id()}"
    )
    await service.ask(f"cmd.spawner.acme.s1.{new_id()}", b"last")
    assert [subject for subject in await town.stored("CMD") if ".umbra." in subject and ".spawner." in subject] == []


@pytest.mark.parametrize("user", ["projector", "operator", "backup", "broker", "spawner"])
async def test_no_role_writes_for_another(town: Town, user: str) -> None:
    role = await town.connect(town.authority.creds_file(user).read_text())
    allowed = {"spawner": ["evt.0.acme.s1.session"], "broker": ["evt.0.acme.s1.credential"]}.get(user, [])
    for subject in (
        "evt.0.acme.s1.session",
        "evt.0.acme.s1.workspace",
        "evt.0.acme.s1.credential",
        "evt.0.acme.s1.usage",
    ):
        assert await role.publish(subject, b"1") is (subject in allowed), subject
    for subject in ("STREAM.DELETE.CMD", "STREAM.RESTORE.CMD", "STREAM.PURGE.REEL-0", "STREAM.MSG.DELETE.REEL-0"):
        assert not await role.publish(f"$JS.API.{subject}"), subject
    for subject in (">", "_INBOX.>", "$SYS.>"):
        assert not await role.subscribe(subject), subject


async def test_an_identity_that_has_ended_is_none(town: Town) -> None:
    creds = town.session_creds(ONE, lasts_s=2)
    session = await town.connect(creds)
    assert await session.publish("evt.0.acme.s1.exec.e1", b"in time")
    await session.closed()
    # The server counts whole seconds: within the last one it takes a connection that it ends at once.
    async with asyncio.timeout(LIMIT_S):
        while not await town.refuses(creds):
            await asyncio.sleep(0.2)


async def test_an_identity_that_was_revoked_is_none_at_once(town: Town) -> None:
    system = await town.connect(town.authority.creds_file("system").read_text())
    creds, other = town.creds(p.COMMAND, org="acme"), town.creds(p.COMMAND, org="acme")
    service, bystander = await town.connect(creds), await town.connect(other)
    public = jwt.claims_of(jwt.parse_creds(creds)[0])["sub"]
    answer = await system.ask("$SYS.REQ.CLAIMS.UPDATE", town.authority.revoke("PLATFORM", public).encode())
    assert msgspec.json.decode(answer.data)["data"]["code"] == 200
    await service.closed()
    assert await town.refuses(creds)
    assert await bystander.publish(f"cmd.spawner.acme.s1.{new_id()}")
    # It stays so when the server starts again.
    await town.server.restart()
    assert await town.refuses(creds)
    await town.connect(other)


async def test_nobody_signs_who_has_not_the_key(town: Town) -> None:
    """A JWT signed by another installation, and one that is ours but presented by another's key."""
    from sandreel_core.keys import new_key

    key = new_key("user")
    stranger = Issuer(town.issuer.account, new_key("account"), 3600)
    forged = stranger.session(SessionSubjects(*ONE), "f", {"nats": key.public})
    assert await town.refuses(jwt.creds(forged, key.seed))
    token, _ = jwt.parse_creds(town.session_creds(NINE))
    assert await town.refuses(jwt.creds(token, key.seed))
