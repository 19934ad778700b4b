"""The broker over a log and a vault: grants, leases, revocations, and whatever ends in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from sandreel_bridge.broker.vault import Name, Vault
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import Bus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.client import Client
from sandreel_core.contract import credential as c
from sandreel_core.contract import turn as t
from sandreel_core.contract.lease import AskGit, Forget
from sandreel_core.contract.requests import Done
from sandreel_core.contract.secret import AskSecret, Secret
from sandreel_core.contract.subjects import CMD
from sandreel_core.errors import Malformed, NotFound, Refused
from sandreel_core.spawner.backend import Key
from tests.support import samples
from tests.support.broker import VALUE, FakeIssuer, Session, broker_on, grant, granted, revoke, said, soon, types

pytestmark = pytest.mark.timeout(60)


class Behind:
    """A bus of which whoever follows it hears nothing new while `reads` is not set. Everything else is as it is."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.reads = asyncio.Event()
        self.reads.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def follow(self, *given: Any, live: bool = True, **named: Any) -> AsyncGenerator[Any, None]:
        async with aclosing(self._bus.follow(*given, live=live, **named)) as items:
            async for item in items:
                if live:
                    await self.reads.wait()
                yield item


async def test_law_8_no_grant_no_lease(session: Session, vault: Vault) -> None:
    async with broker_on(session.bus, vault):
        with pytest.raises(Refused, match="NOT_GRANTED"):
            await session.ask()
        await grant(session, purpose="a fix")
        lease = await session.ask(pid=7, program="git", purpose="a push")
        assert session.open(lease) == VALUE
        assert (lease.username, lease.variables) == ("x-access-token", ["GH_TOKEN", "GITHUB_TOKEN"])
        leased = await said(session, c.Leased, lease_id=lease.lease_id)
        assert (leased.exec, leased.pid, leased.program, leased.version) == ("e1", 7, "git", 1)
        assert leased.fingerprint == (await vault.entries("acme", ["github"]))[0].fingerprint
        assert (await revoke(session)).lease_ids == [lease.lease_id]
        with pytest.raises(Refused, match="NOT_GRANTED"):
            await session.ask()
    notes = [note for note in await vault.notes("acme", "github") if note.action == "read"]
    assert [(note.reader.session, note.reader.lease, note.reader.purpose) for note in notes] == [
        ("one", lease.lease_id, "a push")
    ]
    assert VALUE not in msgspec.json.encode(await session.events(aggregate="credential"))


async def test_a_whole_exec_is_given_a_value_and_the_log_says_that_it_was(session: Session, vault: Vault) -> None:
    async with broker_on(session.bus, vault):
        await grant(session)
        subject = session.subjects().request("broker", "secret")
        ask = AskSecret(lease="github", exec="e1", boot_id="1-1")
        answer = await session.bus.request(subject, msgspec.json.encode(ask), timeout_s=10)
        assert session.sealing.open(msgspec.json.decode(answer, type=Secret).sealed) == VALUE
        leased = await said(session, c.Leased)
        assert (leased.injected, leased.exec) == (True, "e1")
        assert leased.expires_at > soon(1800)


async def test_another_boot_and_a_session_that_does_not_run_get_none(session: Session, vault: Vault) -> None:
    async with broker_on(session.bus, vault):
        await grant(session)
        with pytest.raises(Refused, match="BOOT_OVER"):
            await session.ask(boot_id="1-2")
        await session.stop()
        revoked = await said(session, c.Revoked)
        assert (revoked.reason, revoked.ends) == ("stopped", "all")
        with pytest.raises(Refused, match="SESSION_NOT_READY"):
            await session.ask()
        for command, code in (
            (c.Grant(slug="github"), "SESSION_NOT_READY"),
            (c.Grant(slug="nothing"), "SESSION_NOT_READY"),
        ):
            with pytest.raises(Refused, match=code):
                await Client(session.bus).send("acme", "one", command)
        with pytest.raises(Refused, match="SESSION_NOT_FOUND"):
            await Client(session.bus).send("acme", "nobody", c.Grant(slug="github"))
        await session.resume(2)
        with pytest.raises(Refused, match="CREDENTIAL_NOT_FOUND"):
            await grant(session, "nothing")
        with pytest.raises(Refused, match="NOT_GRANTED"):
            await session.ask(boot_id="1-2")


async def test_a_session_is_born_with_its_grants_at_every_boot_until_one_is_taken_back(vault: Vault) -> None:
    bus = MemoryBus()
    await ensure_installation(bus)
    session = Session(bus)
    async with broker_on(bus, vault):
        await session.begin(grants=("github", "gone"))
        await said(session, c.Granted, slug="gone")
        assert session.open(await session.ask()) == VALUE
        # One that the vault does not have breaks no other.
        with pytest.raises(Refused, match="CREDENTIAL_NOT_FOUND"):
            await session.ask("gone")
        assert (await said(session, c.LeaseRefused)).code == "CREDENTIAL_NOT_FOUND"
        await session.stop()
        await said(session, c.Revoked, slug="gone", reason="stopped")
        await session.resume(2)
        async with asyncio.timeout(10):
            while (await types(session)).count("granted") < 4:
                await asyncio.sleep(0.01)
        assert session.open(await session.ask(boot_id="1-2")) == VALUE
        await revoke(session)
        await session.stop()
        await said(session, c.Revoked, slug="gone", reason="stopped")
        await session.resume(3)
        with pytest.raises(Refused, match="NOT_GRANTED"):
            await session.ask(boot_id="1-3")
    await bus.close()


@pytest.mark.parametrize("command", [c.Revoke(slug="github"), c.Ungrant(slug="github")], ids=["revoke", "ungrant"])
@pytest.mark.parametrize("away", ["session", "broker", "news"])
async def test_what_is_taken_back_before_a_boot_is_not_given_by_it(
    vault: Vault, command: c.CredentialCommand, away: str
) -> None:
    """While the session is stopped, or no broker there, or it has not heard yet of a session that was just created, it holds nothing that
    could be revoked, and would get it again."""
    session = Session(MemoryBus())
    await ensure_installation(session.bus)
    boot = 1
    if away == "news":
        behind = Behind(session.bus)
        async with broker_on(behind, vault):
            behind.reads.clear()
            await session.begin(grants=("github", "app"))
            outcome = await Client(session.bus).send("acme", "one", command)
            behind.reads.set()
    else:
        await session.begin(grants=("github", "app"))
    if away == "session":
        async with broker_on(session.bus, vault):
            await said(session, c.Granted, slug="app")
            await session.stop()
            await said(session, c.Revoked, slug="app", reason="stopped")
            outcome = await Client(session.bus).send("acme", "one", command)
            boot = 2
            await session.resume(boot)
    elif away == "broker":
        sent = asyncio.create_task(Client(session.bus).send("acme", "one", command))
        async with asyncio.timeout(10):
            while await session.bus.next(CMD, "cmd.broker.acme.one.*") is None:
                await asyncio.sleep(0.01)
    async with broker_on(session.bus, vault):
        if away == "broker":
            outcome = await sent
        async with asyncio.timeout(10):  # the one that comes behind it
            while sum(event.data.slug == "app" for event in await granted(session)) < boot:
                await asyncio.sleep(0.01)
        with pytest.raises(Refused, match="NOT_GRANTED"):
            await session.ask(boot_id=f"1-{boot}")
        assert session.open(await session.ask("app", boot_id=f"1-{boot}"))
    assert isinstance(outcome.data, c.Revoked)
    assert outcome.data.incarnation == 1
    await session.bus.close()


async def test_git_gets_what_is_granted_for_the_place_and_nothing_else(session: Session, vault: Vault) -> None:
    async with broker_on(session.bus, vault):
        git = AskGit(protocol="https", host="github.com", path="acme/tool.git")
        with pytest.raises(NotFound):
            await session.ask(None, git=git)
        await grant(session)
        assert session.open(await session.ask(None, git=git)) == VALUE
        assert (await said(session, c.Leased)).purpose == "git https://github.com/acme/tool.git"
        for protocol, host in (("http", "github.com"), ("https", "github.com.evil"), ("https", "ghe")):
            with pytest.raises(NotFound):
                await session.ask(None, git=AskGit(protocol=protocol, host=host))
        for fields in ({"git": git, "slug": "github"}, {"slug": None}):
            with pytest.raises(Malformed):
                await session.ask(**fields)
        assert "refused" not in await types(session)


async def test_git_gets_what_another_broker_has_just_granted_or_put(session: Session, vault: Vault) -> None:
    """The table of the broker that is asked is behind: a grant that it has not read, one that was taken back in favour of
    another, a host that was changed."""
    git = AskGit(protocol="https", host="github.com", path="acme/tool.git")
    behind = Behind(session.bus)
    async with broker_on(behind, vault):
        await grant(session, "app")
        behind.reads.clear()
        await session.say(c.Granted(slug="github"))
        assert session.open(await session.ask(None, git=git)) == VALUE
        await vault.put(Name("acme", "another"), b"another value", recipe="github", options={}, by="ann")
        await session.say(c.Revoked(slug="github", reason="asked"))
        await session.say(c.Granted(slug="another"))
        # Chosen on what was, and then refused on what is; whoever asks again is chosen for on that.
        with pytest.raises(Refused, match="NOT_GRANTED"):
            await session.ask(None, git=git)
        assert session.open(await session.ask(None, git=git)) == b"another value"
        await vault.put(Name("acme", "another"), b"another value", recipe="github", options={"host": "ghe2"}, by="ann")
        with pytest.raises(NotFound):
            await session.ask(None, git=git)
        assert session.open(await session.ask(None, git=AskGit(protocol="https", host="ghe2"))) == b"another value"


async def test_a_credential_is_of_one_org_alone(session: Session, vault: Vault) -> None:
    """A session of the same name in another org is another session, and the slug another credential."""
    other = Key("umbra", "one")
    await session.begin(other)
    async with broker_on(session.bus, vault):
        await grant(session)
        with pytest.raises(Refused, match="CREDENTIAL_NOT_FOUND"):
            await Client(session.bus).send("umbra", "one", c.Grant(slug="github"))
        with pytest.raises(Refused, match="NOT_GRANTED"):
            await session.ask(key=other)
        # Even where its log says that it was granted, there is nothing that it could be given.
        await session.say(c.Granted(slug="github"), other)
        with pytest.raises(Refused, match="CREDENTIAL_NOT_FOUND"):
            await session.ask(key=other)
    assert [note.reader.session for note in await vault.notes(None, "github") if note.action == "read"] == []


async def test_a_minted_token_is_for_one_repository_and_ends_with_its_lease(session: Session, vault: Vault) -> None:
    issuer = FakeIssuer()
    async with broker_on(session.bus, vault, issuer):
        await grant(session, "app")
        lease = await session.ask(None, git=AskGit(protocol="https", host="ghe", path="acme/tool.git"))
        assert session.open(lease) == b"minted-0-acme/tool"
        leased = await said(session, c.Leased)
        assert (leased.minted, leased.resource, leased.slug) == (True, "acme/tool", "app")
        await revoke(session, "app")
        async with asyncio.timeout(10):
            while issuer.ended != ["minted-0-acme/tool"]:
                await asyncio.sleep(0.01)


async def test_a_turn_s_grant_ends_with_the_turn(session: Session, vault: Vault) -> None:
    async with broker_on(session.bus, vault):
        await grant(session, turn="t1")
        assert session.open(await session.ask(exec="t1-1")) == VALUE
        with pytest.raises(Refused, match="NOT_GRANTED"):
            await session.ask(exec="e1")
        finished = next(each for each in samples.EVENTS if isinstance(each, t.TurnFinished))
        await session.say(finished, id="t1")
        with pytest.raises(Refused, match=r"EXPIRED|NOT_GRANTED"):
            await session.ask(exec="t1-1")
        revoked = await said(session, c.Revoked)
        assert (revoked.reason, revoked.turn, len(revoked.lease_ids)) == ("turn_ended", "t1", 1)


async def test_grants_and_leases_expire(session: Session, vault: Vault) -> None:
    async with broker_on(session.bus, vault, lease_s=0.2):
        await grant(session)
        lease = await session.ask()
        ended = await said(session, c.Revoked, ends="none")
        assert (ended.reason, ended.lease_ids) == ("expired", [lease.lease_id])
        await grant(session, expires_at=soon(0.3))
        over = await said(session, c.Revoked, ends="one")
        assert over.reason == "expired"
        with pytest.raises(Refused, match="NOT_GRANTED"):
            await session.ask()


async def test_the_session_s_runnerd_is_told_to_forget(session: Session, vault: Vault) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()

    async def forget(subject: str, body: bytes) -> bytes:
        told.put_nowait(msgspec.json.decode(body, type=Forget).slug)
        return msgspec.json.encode(Done())

    async with session.bus.serve(session.subjects().request("runnerd", "forget"), forget):
        async with broker_on(session.bus, vault):
            await grant(session)
            await revoke(session)
            async with asyncio.timeout(10):
                assert await told.get() == "github"
