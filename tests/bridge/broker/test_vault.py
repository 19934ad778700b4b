"""The vault in a real Postgres: what is in its rows, who read what, another key, and every way to be interrupted on the way."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from sandreel_bridge.broker import rewrap as rewrapping
from sandreel_bridge.broker.keyring import KeySource
from sandreel_bridge.broker.postgres import PostgresVault, open_vault
from sandreel_bridge.broker.rewrap import rewrap
from sandreel_bridge.broker.vault import KEPT_VERSIONS, MAX_VALUE_BYTES, Name, Reader, Unreadable
from sandreel_core.embedded.postgres import PostgresServer
from sandreel_core.errors import Malformed, Misconfigured, NotFound, TooLarge, Unavailable

GITHUB = Name("acme", "github")
VALUE = b"ghp_" + os.urandom(15).hex().encode()
READER = Reader(by="/broker/test", session="s1", lease="l-1", purpose="git")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return write(tmp_path / "vault.key", os.urandom(32))


def write(path: Path, *keys: bytes) -> Path:
    path.write_text("".join(f"{base64.b64encode(key).decode()}\n" for key in keys))
    return path


@asynccontextmanager
async def opened(dsn: str, key_file: Path) -> AsyncIterator[PostgresVault]:
    async with open_vault(dsn, KeySource(file=str(key_file))) as vault:
        yield vault


async def put(vault: PostgresVault, value: bytes = VALUE, name: Name = GITHUB) -> int:
    return (await vault.put(name, value, recipe="github", options={"host": "h"}, by="ann")).version


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


async def dump(dsn: str) -> bytes:
    """Everything that the schema's rows hold."""
    connection = await asyncpg.connect(dsn)
    rows = [row for table in ("installation", "credentials", "audit") for row in await connection.fetch(f"SELECT * FROM vault.{table}")]  # fmt: skip
    await connection.close()
    return b"\n".join(each if isinstance(each, bytes) else str(each).encode() for row in rows for each in row.values())


async def test_a_value_is_in_no_row_and_comes_back(empty_database: str, key_file: Path) -> None:
    async with opened(empty_database, key_file) as vault:
        assert await put(vault) == 1
        assert await put(vault, VALUE + b"2") == 2
        found = await vault.read(GITHUB, READER)
        assert (found.value, found.entry.version, found.entry.options) == (VALUE + b"2", 2, {"host": "h"})
        assert VALUE.decode() not in repr(found)
        (entry,) = await vault.entries("acme")
        assert entry == found.entry
        assert await vault.entries("other") == []
        assert await vault.entries(None, ["nothing"]) == []
    rows = await dump(empty_database)
    for form in (VALUE, base64.b64encode(VALUE), VALUE.hex().encode()):
        assert form not in rows


async def test_a_fingerprint_says_nothing_without_the_key(empty_database: str, key_file: Path, tmp_path: Path) -> None:
    async with opened(empty_database, key_file) as vault:
        first = await vault.put(GITHUB, b"1234", recipe="generic", options={}, by="ann")
        again = await vault.put(Name("acme", "pin"), b"1234", recipe="generic", options={}, by="ann")
        elsewhere = await vault.put(Name("other", "pin"), b"1234", recipe="generic", options={}, by="ann")
    assert first.fingerprint == again.fingerprint != elsewhere.fingerprint
    assert len(first.fingerprint) == 16
    await execute(empty_database, "DROP SCHEMA vault CASCADE")
    async with opened(empty_database, key_file) as vault:
        other = await vault.put(GITHUB, b"1234", recipe="generic", options={}, by="ann")
    assert other.fingerprint != first.fingerprint


async def test_every_read_is_in_the_audit(empty_database: str, key_file: Path) -> None:
    async with opened(empty_database, key_file) as vault:
        await put(vault)
        await vault.read(GITHUB, READER)
        with pytest.raises(NotFound):
            await vault.read(Name("acme", "npm"), READER)
        await vault.delete(GITHUB, by="ann")
        notes = await vault.notes("acme")
        assert [(note.action, note.version, note.reader.by) for note in notes] == [
            ("put", 1, "ann"),
            ("read", 1, "/broker/test"),
            ("deleted", None, "ann"),
        ]
        assert notes[1].reader == READER
        assert await vault.notes("other") == []
        assert len(await vault.notes(None, "github", limit=2)) == 2
        assert await vault.forget_notes(1) == 0
        await execute(empty_database, "UPDATE vault.audit SET at = now() - interval '2 days' WHERE action = 'put'")
        assert await vault.forget_notes(1) == 1


async def test_what_is_deleted_is_gone_and_its_versions_go_on(empty_database: str, key_file: Path) -> None:
    async with opened(empty_database, key_file) as vault:
        for _ in range(KEPT_VERSIONS + 2):
            await put(vault)
        assert await vault.delete(GITHUB, by="ann") == KEPT_VERSIONS
        with pytest.raises(NotFound):
            await vault.delete(GITHUB, by="ann")
        with pytest.raises(NotFound):
            await vault.read(GITHUB, READER)
        assert await vault.entries("acme") == []
        assert await put(vault) == KEPT_VERSIONS + 3


async def test_a_value_has_bounds(empty_database: str, key_file: Path) -> None:
    async with opened(empty_database, key_file) as vault:
        with pytest.raises(TooLarge, match="longer than 32768 bytes"):
            await put(vault, b"x" * (MAX_VALUE_BYTES + 1))
        with pytest.raises(Malformed, match="is empty"):
            await put(vault, b"")
        await put(vault, bytes(range(256)) * 128)
        assert (await vault.read(GITHUB, READER)).value == bytes(range(256)) * 128


async def test_rows_that_are_exchanged_or_changed_do_not_open_and_the_rest_do(
    empty_database: str, key_file: Path
) -> None:
    async with opened(empty_database, key_file) as vault:
        await put(vault)
        await put(vault, b"the other", Name("acme", "npm"))
        await put(vault, b"intact", Name("acme", "pypi"))
        await execute(
            empty_database,
            "UPDATE vault.credentials a SET wrapped = b.wrapped, sealed = b.sealed FROM vault.credentials b"
            " WHERE a.slug <> b.slug AND a.slug IN ('github', 'npm') AND b.slug IN ('github', 'npm')",
        )
        for slug in ("github", "npm"):
            with pytest.raises(Unreadable, match=f"version 1 of acme/{slug} does not open"):
                await vault.read(Name("acme", slug), READER)
        assert (await vault.read(Name("acme", "pypi"), READER)).value == b"intact"
        assert [note.action for note in await vault.notes("acme", "npm")] == ["put", "read", "unreadable"]


@pytest.mark.parametrize("change", ['options = \'{"host": "evil.example"}\'', "options = '{}'", "recipe = 'generic'"])
async def test_what_a_value_is_for_cannot_be_changed_in_the_database(
    empty_database: str, key_file: Path, change: str
) -> None:
    """Else its own host would be told to git, and an app's private key be handed out as a value."""
    async with opened(empty_database, key_file) as vault:
        await put(vault)
        await execute(empty_database, f"UPDATE vault.credentials SET {change}")
        with pytest.raises(Unreadable):
            await vault.read(GITHUB, READER)
        assert (await rewrap(vault, by="ann", new_key=True)).rows == 1  # of its key alone
        await execute(empty_database, """UPDATE vault.credentials SET recipe = 'github', options = '{"host": "h"}'""")
        assert (await vault.read(GITHUB, READER)).value == VALUE


async def test_another_key_is_refused_at_the_start_and_named(
    empty_database: str, key_file: Path, tmp_path: Path
) -> None:
    async with opened(empty_database, key_file) as vault:
        right = vault.keys.current
    other = write(tmp_path / "other.key", os.urandom(32))
    with pytest.raises(Misconfigured, match=f"sealed with the key {right}, and {other} holds [0-9a-f]{{16}}"):
        async with opened(empty_database, other):
            raise AssertionError("it opened")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds 0 keys"),
        ("c2hvcnQ=\n", "line 1 of .* is no key"),
        ("# none\n!\n", "line 2"),
        ("x" * 5000, "longer than"),
    ],
)
def test_a_key_file_that_is_none_is_said_and_not_repeated(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "vault.key"
    path.write_text(text)
    with pytest.raises(Misconfigured, match=says) as error:
        KeySource(file=str(path)).load()
    assert "c2hvcnQ" not in str(error.value)


def test_keys_that_everybody_can_read_are_known_as_such(key_file: Path) -> None:
    source = KeySource(file=str(key_file))
    key_file.chmod(0o644)
    assert source.is_open_to_others
    key_file.chmod(0o640)
    assert not source.is_open_to_others
    assert not KeySource(command=("true",)).is_open_to_others


def test_keys_may_come_from_a_command(tmp_path: Path, key_file: Path) -> None:
    from_file, from_command = KeySource(file=str(key_file)), KeySource(command=["cat", str(key_file)])
    assert from_command.load().ids == from_file.load().ids
    for command, says in ((["false"], "ended with 1"), (["/nowhere/keys"], "no such file"), (["echo"], "holds 0 keys")):
        with pytest.raises(Misconfigured, match=says):
            KeySource(command=command).load()
    with pytest.raises(Misconfigured, match="a new key has to come first"):
        from_command.renew()
    for wrong in ({}, {"file": "a", "command": ["b"]}):
        with pytest.raises(Misconfigured, match="give one of"):
            KeySource(**wrong)  # type: ignore[arg-type]


async def test_a_rotation_seals_everything_anew_under_living_readers(empty_database: str, key_file: Path) -> None:
    async with opened(empty_database, key_file) as old, opened(empty_database, key_file) as writer:
        for number in range(5):
            await put(old, b"value %d" % number, Name("acme", f"c{number}"))
        prints = {entry.name: entry.fingerprint for entry in await old.entries(None)}
        async with opened(empty_database, key_file) as vault:
            done = await rewrap(vault, by="ann", new_key=True)
        assert (done.rows, done.stuck, done.retired) == (5, 0, 1)
        assert len(key_file.read_text().splitlines()) == 1
        assert key_file.stat().st_mode & 0o777 == 0o600
        # Both were open before, and learn of the new key when they need it.
        assert (await old.read(Name("acme", "c3"), READER)).value == b"value 3"
        await put(writer, b"new", Name("acme", "c9"))
        assert (await old.read(Name("acme", "c9"), READER)).value == b"new"
        after = {entry.name: entry.fingerprint for entry in await old.entries(None)}
        assert {name: after[name] for name in prints} == prints
        async with opened(empty_database, key_file) as vault:
            assert (await rewrap(vault, by="ann")).rows == 0


@pytest.mark.parametrize("dies_after", range(6))
async def test_a_rotation_that_was_killed_loses_nothing_and_goes_on(
    empty_database: str, key_file: Path, monkeypatch: pytest.MonkeyPatch, dies_after: int
) -> None:
    """Killed after the n-th of its steps: the key, the installation, a batch, another, the last, that of tokens, the old key's end."""
    monkeypatch.setattr(rewrapping, "BATCH", 2)
    async with opened(empty_database, key_file) as vault:
        for number in range(4):
            await put(vault, b"value %d" % number, Name("acme", f"c{number}"))
    steps = 0

    class Killed(Exception):
        pass

    def dying(step: object) -> object:
        async def run(*given: object) -> object:
            nonlocal steps
            if steps == dies_after:
                raise Killed
            steps += 1
            return await step(*given)  # type: ignore[operator]

        return run

    with monkeypatch.context() as patched:
        for name in ("_seal_installation", "_batch", "_retire"):
            patched.setattr(rewrapping, name, dying(getattr(rewrapping, name)))
        async with opened(empty_database, key_file) as vault:
            with pytest.raises(Killed):
                await rewrap(vault, by="ann", new_key=True)
    async with opened(empty_database, key_file) as vault:
        for number in range(4):
            assert (await vault.read(Name("acme", f"c{number}"), READER)).value == b"value %d" % number
        assert (await rewrap(vault, by="ann")).stuck == 0
    assert len(key_file.read_text().splitlines()) == 1
    async with opened(empty_database, key_file) as vault:
        for number in range(4):
            assert (await vault.read(Name("acme", f"c{number}"), READER)).value == b"value %d" % number


async def test_two_rotations_of_one_file_at_once_lose_no_key(
    empty_database: str, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second would put its own new key over the first's, with which rows are sealed already."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    seal = rewrapping._seal_installation

    async def slowly(vault: PostgresVault) -> None:
        begun.set()
        await go_on.wait()
        await seal(vault)

    monkeypatch.setattr(rewrapping, "_seal_installation", slowly)
    async with opened(empty_database, key_file) as one, opened(empty_database, key_file) as two:
        await put(one)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(rewrap(one, by="ann", new_key=True))
            await begun.wait()
            for new_key in (True, False):
                with pytest.raises(Misconfigured, match=r"another rotation of .* is under way"):
                    await rewrap(two, by="bob", new_key=new_key)
            go_on.set()
        assert (first.result().rows, first.result().retired) == (1, 1)
        assert (await two.read(GITHUB, READER)).value == VALUE
    async with opened(empty_database, key_file) as vault:
        assert (await vault.read(GITHUB, READER)).value == VALUE


async def test_keys_that_somebody_else_has_changed_meanwhile_are_left_alone(
    empty_database: str, key_file: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "other.key", *(base64.b64decode(line) for line in key_file.read_text().splitlines()))
    async with opened(empty_database, key_file) as one, opened(empty_database, other) as two:
        await put(one)
        await rewrap(one, by="ann", new_key=True)
        with pytest.raises(Misconfigured, match="somebody has rotated with another file"):
            await rewrap(two, by="bob", new_key=True)
    source = KeySource(file=str(key_file))
    text = key_file.read_text()
    with pytest.raises(Misconfigured, match="somebody has changed"):
        source.retire("0123456789abcdef")
    assert key_file.read_text() == text


async def test_what_no_key_opens_stays_and_keeps_the_old_keys(empty_database: str, key_file: Path) -> None:
    async with opened(empty_database, key_file) as vault:
        await put(vault)
        await put(vault, b"fine", Name("acme", "npm"))
        await execute(empty_database, "UPDATE vault.credentials SET wrapped = 'broken' WHERE slug = 'github'")
        done = await rewrap(vault, by="ann", new_key=True)
        assert (done.rows, done.stuck, done.retired) == (1, 1, 0)
    assert len(key_file.read_text().splitlines()) == 2


async def test_two_that_begin_and_put_at_once_are_one_after_the_other(empty_database: str, key_file: Path) -> None:
    async with opened(empty_database, key_file) as one:
        await execute(empty_database, "DROP SCHEMA vault CASCADE")
        async with opened(empty_database, key_file) as two, opened(empty_database, key_file):
            await asyncio.gather(one.begin(), two.begin())
            versions = await asyncio.gather(*(put(vault, b"v") for vault in (one, two) for _ in range(4)))
            assert sorted(versions) == list(range(1, 9))


async def test_a_database_that_is_away_is_said_and_comes_back(
    empty_database: str, postgres_server: PostgresServer, key_file: Path
) -> None:
    async with opened(empty_database, key_file) as vault:
        await put(vault)
        await asyncio.to_thread(postgres_server.stop_blocking)
        with pytest.raises(Unavailable):
            await vault.read(GITHUB, READER)
        await asyncio.to_thread(postgres_server.start_blocking)
        assert (await vault.read(GITHUB, READER)).value == VALUE
