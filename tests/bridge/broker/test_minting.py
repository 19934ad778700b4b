"""Minted tokens end with their lease: whoever dies on the way, whoever is away, and however many brokers there are."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import asyncpg
import pytest

from sandreel_bridge.broker.minting import SAID_AFTER
from sandreel_bridge.broker.postgres import PostgresVault
from sandreel_bridge.broker.postgres_tokens import PostgresTokens
from sandreel_bridge.broker.rewrap import rewrap
from sandreel_bridge.broker.tokens import Kept
from sandreel_bridge.broker.vault import Name
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.client import Client
from sandreel_core.contract import credential as c
from sandreel_core.errors import SandreelError, Unavailable
from sandreel_core.health import Health
from tests.support.broker import FakeIssuer, Session, broker_on, vault_at

pytestmark = pytest.mark.timeout(60)
APP = Name("acme", "app")
# As in life, and quicker.
QUICK: dict[str, Any] = {"token_again_s": 0.02, "token_orphan_s": 0.2}


@pytest.fixture
async def vault(empty_database: str, tmp_path: Path) -> AsyncGenerator[PostgresVault, None]:
    async with vault_at(empty_database, tmp_path) as vault:
        await vault.put(APP, b"key", recipe="github-app", options={"host": "ghe"}, by="ann")
        yield vault


@pytest.fixture
async def session() -> AsyncGenerator[Session, None]:
    """One that is ready, on a bus of its own, and granted `app`."""
    bus = MemoryBus()
    await ensure_installation(bus)
    session = Session(bus)
    await session.begin(grants=("app",))
    yield session
    await bus.close()


async def events(session: Session, kind: type[Any]) -> list[Any]:
    return [each.data for each in await session.events(aggregate="credential") if isinstance(each.data, kind)]


async def rows(dsn: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch("SELECT * FROM vault.tokens")
    finally:
        await connection.close()


async def change(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


async def until(holds: Any, what: str) -> None:
    try:
        async with asyncio.timeout(20):
            while not (await found if inspect.isawaitable(found := holds()) else found):
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what) from None


async def gone(dsn: str) -> bool:
    return await rows(dsn) == []


class Life:
    """Of one broker. When it is over, nothing that the broker does has any effect, as of a process that was killed."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    def of(self, thing: Any, *, dies_before: str = "", dies_after: str = "") -> Any:
        """The thing, as that broker has it; it dies when it calls the one, or when the other has done its work."""
        life = self

        class Mortal:
            def __getattr__(self, name: str) -> Any:
                found = getattr(thing, name)
                if not inspect.iscoroutinefunction(found):
                    return found

                async def call(*given: Any, **named: Any) -> Any:
                    if name == dies_before:
                        life.over.set()
                    if life.over.is_set():
                        raise Unavailable("its process was killed")
                    answer = await found(*given, **named)
                    if name == dies_after:
                        life.over.set()
                        raise Unavailable("its process was killed")
                    return answer

                return call

        return Mortal()


Point = Literal["made", "kept", "handed out", "revoked", "ended"]


@asynccontextmanager
async def dying(session: Session, vault: PostgresVault, issuer: FakeIssuer, at: Point) -> AsyncIterator[Life]:
    """A broker that is killed at that point of a token's life."""
    life = Life()
    bus = life.of(MemoryBus(session.bus.server))  # type: ignore[attr-defined]
    mortal = life.of(
        issuer, dies_after={"made": "mint", "ended": "end"}.get(at, ""), dies_before="end" if at == "revoked" else ""
    )
    tokens = life.of(PostgresTokens(vault), dies_after="keep" if at == "kept" else "")
    async with broker_on(bus, vault, mortal, tokens=tokens, **QUICK):
        yield life


@pytest.mark.parametrize("at", ["kept", "handed out", "revoked", "ended"])
async def test_what_a_broker_that_was_killed_has_minted_the_next_one_ends(
    session: Session, vault: PostgresVault, empty_database: str, at: Point
) -> None:
    issuer = FakeIssuer()
    async with dying(session, vault, issuer, at) as life:
        with suppress(SandreelError):
            lease = await session.ask("app")
            assert at != "kept"
        if at in ("revoked", "ended"):
            await Client(session.bus).send("acme", "one", c.Revoke(slug="app"))
        if at != "handed out":
            await life.over.wait()
        life.over.set()
    assert len(issuer.made) == len(await rows(empty_database)) == 1
    assert len(issuer.ended) == (at == "ended")
    async with broker_on(session.bus, vault, issuer, **QUICK):
        if at == "handed out":
            assert session.open(lease).decode() == issuer.made[0]
            # It stands: the next broker leaves it alone, until it is taken back.
            await asyncio.sleep(3 * QUICK["token_orphan_s"])
            assert issuer.ended == []
            await Client(session.bus).send("acme", "one", c.Revoke(slug="app"))
        await until(lambda: gone(empty_database), "the token is forgotten")
    assert issuer.ended == issuer.made * (2 if at == "ended" else 1)
    assert len(await events(session, c.Leased)) == (at != "kept")


async def test_nobody_has_a_token_that_is_not_kept(session: Session, vault: PostgresVault, empty_database: str) -> None:
    """Killed between the issuer's answer and its row: there is no lease, and the token's bytes died with the broker."""
    issuer = FakeIssuer()
    async with dying(session, vault, issuer, "made"):
        with pytest.raises(SandreelError):
            await session.ask("app")
    assert (issuer.made != [], await rows(empty_database), await events(session, c.Leased)) == (True, [], [])


async def test_a_database_that_cannot_keep_a_token_gives_no_lease_and_no_token(
    session: Session, vault: PostgresVault
) -> None:
    class Full(PostgresTokens):
        async def keep(self, kept: Kept) -> None:
            raise Unavailable("Postgres: it is away")

    issuer = FakeIssuer()
    async with broker_on(session.bus, vault, issuer, tokens=Full(vault), **QUICK):
        with pytest.raises(Unavailable):
            await session.ask("app")
        assert issuer.ended == issuer.made != []
    assert await events(session, c.Leased) == []


async def test_whoever_stops_waiting_for_a_token_leaves_none(
    session: Session, vault: PostgresVault, empty_database: str
) -> None:
    class Slow(FakeIssuer):
        def __init__(self) -> None:
            super().__init__()
            self.asked, self.go = asyncio.Event(), asyncio.Event()

        async def mint(self, *given: Any) -> Any:
            self.asked.set()
            await self.go.wait()
            return await super().mint(*given)

    issuer = Slow()
    async with broker_on(session.bus, vault, issuer, give_s=0.2, **QUICK):
        with pytest.raises(Unavailable, match="took too long"):
            await session.ask("app")
        issuer.go.set()
        await until(lambda: issuer.made and issuer.ended == issuer.made, "the token was ended")
        await until(lambda: gone(empty_database), "the token is forgotten")


async def test_two_brokers_end_each_token_once(session: Session, vault: PostgresVault, empty_database: str) -> None:
    issuer = FakeIssuer()
    buses = [MemoryBus(session.bus.server) for _ in range(2)]  # type: ignore[attr-defined]
    plan = QUICK | {"token_again_s": 5.0}
    async with broker_on(buses[0], vault, issuer, **plan), broker_on(buses[1], vault, issuer, **plan):
        await asyncio.gather(*(session.ask("app", exec=f"e{n}") for n in range(20)))
        assert len(await rows(empty_database)) == 20
        await session.stop()
        await until(lambda: gone(empty_database), "all tokens are forgotten")
    assert sorted(issuer.ended) == sorted(issuer.made)


async def test_an_issuer_that_is_away_is_tried_again_and_said_once(
    session: Session, vault: PostgresVault, empty_database: str
) -> None:
    issuer = FakeIssuer(away=True)
    health = Health("broker", version="0", pid=1, monotonic=monotonic)
    async with broker_on(session.bus, vault, issuer, health=health, **QUICK):
        lease = await session.ask("app")
        await Client(session.bus).send("acme", "one", c.Revoke(slug="app"))
        await until(lambda: issuer.tries > SAID_AFTER + 1, "it is tried again after it was said")
        (said,) = await events(session, c.Outlived)
        (leased,) = await events(session, c.Leased)
        assert (said.slug, said.lease_id) == ("app", lease.lease_id) == ("app", leased.lease_id)
        assert said.expires_at >= leased.expires_at
        assert "tokens" in {reason.part for reason in health.report().reasons}
        issuer.away = False
        await until(lambda: gone(empty_database), "the token was ended")
        await until(lambda: "tokens" not in {reason.part for reason in health.report().reasons}, "nothing is wrong")
    assert issuer.ended == issuer.made
    assert len(await events(session, c.Outlived)) == 1
    actions = [note.action for note in await vault.notes("acme", "app") if note.reader.lease == lease.lease_id]
    assert (actions[-1], set(actions)) == ("ended", {"read", "ended"})


async def test_a_token_that_nobody_could_end_is_forgotten_when_it_has_ended_by_itself(
    session: Session, vault: PostgresVault, empty_database: str
) -> None:
    issuer = FakeIssuer(away=True)
    async with broker_on(session.bus, vault, issuer, **QUICK):
        await session.ask("app")
        await session.stop()
        await until(lambda: issuer.tries, "it was tried")
        await change(empty_database, "UPDATE vault.tokens SET expires_at = now() - interval '2 minutes'")
        await until(lambda: gone(empty_database), "the token is forgotten")
    assert (await vault.notes("acme", "app"))[-1].action == "outlived"


async def test_a_vault_that_is_away_delays_no_end_where_the_broker_lives_that_minted(
    session: Session, vault: PostgresVault, empty_database: str
) -> None:
    class Away(PostgresTokens):
        away = False

        async def end(self, leases: Collection[str]) -> int:
            if self.away:
                raise Unavailable("Postgres: it is away")
            return await super().end(leases)

    issuer, tokens = FakeIssuer(), Away(vault)
    async with broker_on(session.bus, vault, issuer, tokens=tokens, **QUICK):
        await session.ask("app")
        tokens.away = True
        await Client(session.bus).send("acme", "one", c.Revoke(slug="app"))
        await until(lambda: issuer.ended == issuer.made, "the token was ended")
        tokens.away = False
        await until(lambda: gone(empty_database), "the row is found, and the token ended once more")


@pytest.mark.parametrize(
    "changed", ["lease = 'l-other'", """options = '{"host": "ghe", "api": "https://evil"}', due_at = now()"""]
)
async def test_a_token_is_sealed_in_its_row_and_moves_with_the_keys(
    session: Session, vault: PostgresVault, empty_database: str, tmp_path: Path, changed: str
) -> None:
    issuer = FakeIssuer()
    async with broker_on(session.bus, vault, issuer, **QUICK):
        await session.ask("app")
    (row,) = await rows(empty_database)
    assert all(issuer.made[0].encode() not in str(value).encode() for value in row.values())
    async with vault_at(empty_database, tmp_path) as rotating:
        done = await rewrap(rotating, by="ann", new_key=True)
    assert (done.rows, done.stuck, done.retired) == (2, 0, 1)
    assert (await rows(empty_database))[0]["key_id"] == done.key_id != row["key_id"]
    # One that was put in another's place, or is to be ended at another place: it does not open, and is left to end by itself.
    await change(empty_database, "UPDATE vault.tokens SET " + changed)
    async with broker_on(session.bus, vault, issuer, **QUICK):
        await until(lambda: events(session, c.Outlived), "that is said")
        lease = await session.ask("app")
        await Client(session.bus).send("acme", "one", c.Revoke(slug="app"))
        await until(lambda: issuer.ended == [session.open(lease).decode()], "others are ended all the same")


async def test_a_vault_of_the_release_before_is_brought_up_to_date(
    vault: PostgresVault, empty_database: str, tmp_path: Path
) -> None:
    await change(empty_database, "DROP TABLE vault.tokens; UPDATE vault.installation SET schema = 2")
    async with vault_at(empty_database, tmp_path) as after:
        assert [entry.name for entry in await after.entries(None)] == [APP]
        assert (await PostgresTokens(after).late(0)).count == 0
    async with vault_at(empty_database, tmp_path):
        assert await gone(empty_database)
