"""Secrets that are looked for, in every form that somebody may have written one, wherever it might have come to.

The forms are worked out here anew, and not by what masks them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import tempfile
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from sandreel_core.contract.boot import EXEC_MARKER
from sandreel_core.embedded.stack import Stack
from tests.support.system_users import bus_of

_MAX_FILE_BYTES = 64 << 20
# Prints what it was given (TOKEN, KEY, PEM) in every way that programs do by accident.
TELL = """
import base64, json, os, sys, time, urllib.parse
for name in ("TOKEN", "KEY", "PEM"):
    if name not in os.environ: continue
    value = os.environ[name]; raw = value.encode()
    print(value, json.dumps({"a": value}), json.dumps(json.dumps(value)), urllib.parse.quote(value, safe=""), flush=True)
    for before in range(3): print(base64.b64encode(bytes(before) + raw).decode(), base64.urlsafe_b64encode(bytes(before) + raw + b"?"))
    for at in range(0, len(raw), 9): os.write(2, raw[at:at+9]); time.sleep(0.01)
    print(f"https://user:{urllib.parse.quote(value)}@host/", file=sys.stderr)
print(dict(os.environ), os.environ.get("PLANTED", ""))
sys.stdout.flush()
"""
# How a secret may have been written; `planted` writes one of each.
KINDS: Mapping[str, Callable[[str], str]] = {
    "plain": lambda value: value,
    "base64 at 0": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 at 1": lambda value: base64.b64encode(b"x" + value.encode()).decode(),
    "base64 at 2": lambda value: base64.b64encode(b"xy" + value.encode()).decode(),
    "URL-encoded": lambda value: urllib.parse.quote(value, safe=""),
    "JSON-escaped": lambda value: json.dumps(value)[1:-1],
}


def leased() -> dict[str, str]:
    """What a session is given, by lease; the first has in its middle what every encoding changes."""
    return {
        "token": f'tok"{os.urandom(12).hex()}/ä+&{os.urandom(8).hex()}',
        "key": f"sk-{os.urandom(20).hex()}",
        "pem": "-----BEGIN KEY-----\n" + "\n".join(os.urandom(32).hex() for _ in range(4)) + "\n-----END KEY-----",
    }


@dataclass(frozen=True)
class Planted:
    """Canaries that are no secret, one of each kind, and a text with each as its kind writes it: to be put into every place that is
    looked at. A look that does not find them there would not have found a secret either."""

    values: dict[str, str]
    text: str

    def missing(self, seen: Iterable[str], places: Iterable[str]) -> list[str]:
        """The kinds that were not found in places whose names begin so."""
        found = set(seen)
        return [
            f"{name} in {place}"
            for place in places
            for name in self.values
            if not any(each.startswith(f"{name} in {place}") for each in found)
        ]

    def others(self, seen: Iterable[str]) -> list[str]:
        """What was seen beside them."""
        return [each for each in seen if not each.startswith(tuple(f"{name} in " for name in self.values))]


def planted() -> Planted:
    values = {f"planted {kind}": f'pl"{os.urandom(10).hex()}/+&{os.urandom(8).hex()}' for kind in KINDS}
    return Planted(values, " ".join(KINDS[name.removeprefix("planted ")](value) for name, value in values.items()))


@dataclass
class Canaries:
    """`values`: by name. `seen`: what `look` has found, as `name in place (form)`; empty is what one hopes for."""

    values: Mapping[str, str]
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._forms = [(name, how, form) for name, value in self.values.items() for how, form in _forms(value.encode())]

    def found(self, data: bytes) -> list[tuple[str, str]]:
        """(name, form) of every one in it."""
        return [(name, how) for name, how, form in self._forms if form in data]

    def look(self, place: str, data: bytes, but: frozenset[str] = frozenset()) -> None:
        """`but`: which may be there."""
        self.seen += [f"{name} in {place} ({how})" for name, how in self.found(data) if name not in but]

    def look_at_json(self, place: str, data: bytes) -> None:
        """The text itself, and every string in it, as whoever reads it has it."""
        self.look(place, data)
        strings: list[str] = []

        def walk(value: object) -> None:
            if isinstance(value, str):
                strings.append(value)
            elif isinstance(value, Mapping):
                for each in (*value.keys(), *value.values()):
                    walk(each)
            elif isinstance(value, list):
                for each in value:
                    walk(each)

        walk(json.loads(data))
        self.look(place, "\0".join(strings).encode("utf-8", "surrogateescape"))

    def look_at_much(self, place: str, data: bytes) -> None:
        """As `look`, for many megabytes: by grep, which looks for everything at once."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"\n".join(max(form.split(b"\n"), key=len) for _, _, form in self._forms))
            file.flush()
            grep = ["grep", "--quiet", "--text", "--fixed-strings", "--file", file.name]
            done = subprocess.run(grep, input=data, env={"PATH": os.environ["PATH"], "LC_ALL": "C"})
        assert done.returncode in (0, 1)
        if done.returncode == 0:
            self.look(place, data)

    def look_at_files(self, root: Path, at_home: Mapping[str, frozenset[str]]) -> int:
        """Every file below a directory; `at_home`: what belongs there, by the path's first parts. How many there were."""
        count = 0
        for path in sorted(root.rglob("*")):
            inside = path.relative_to(root)
            homes = [names for home, names in at_home.items() if inside.is_relative_to(home)]
            with contextlib.suppress(OSError):  # gone meanwhile, or no file
                if path.is_file() and not path.is_symlink() and path.stat().st_size <= _MAX_FILE_BYTES:
                    self.look(str(inside), path.read_bytes(), frozenset().union(*homes))
                    count += 1
        return count

    def look_at_processes(self, given: Mapping[str, frozenset[str]], own: Mapping[int, frozenset[str]]) -> None:
        """Every process's words and variables. `given`: what an exec was given is in its own variables, and only there;
        `own`: what others have in theirs, by their pid."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                self.look(f"words of process {process.name}", (process / "cmdline").read_bytes())
                environ = (process / "environ").read_bytes()
                of = re.search(rb"(?:^|\0)%s=([^\0]*)" % EXEC_MARKER.encode(), environ)
                names = given.get(of[1].decode(), frozenset()) if of else frozenset()
                self.look(
                    f"variables of process {process.name}", environ, names | own.get(int(process.name), frozenset())
                )

    async def look_at_postgres(self, dsn: str) -> int:
        """Every row of every table, as text; and what statements it knows. How many rows there were."""
        count = 0
        connection = await asyncpg.connect(dsn, timeout=20)
        try:
            tables = await connection.fetch(
                "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) AS name FROM pg_tables "
                "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            )
            for table in [each["name"] for each in tables] + ["pg_stat_activity"]:
                for row in await connection.fetch(f"SELECT t.* FROM {table} AS t"):
                    for value in row.values():
                        data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
                        self.look(f"a row of {table}", data)
                    count += 1
        finally:
            await connection.close()
        return count


async def messages_of(stack: Stack, stream: str, subjects: str) -> list[tuple[str, bytes]]:
    """Everything that a stream holds: subject and body."""
    async with bus_of(stack) as bus, aclosing(bus.follow(stream, [subjects], live=False)) as items:
        return [(each.subject, each.body) async for item in items if isinstance(item, list) for each in item]


def of_stack(stack: Stack) -> dict[str, str]:
    """What a stack keeps secret itself: its keys, and its database's password."""
    place = stack.place
    found = {"installation key": (place.state / "installation.key").read_text().strip()}
    found["postgres password"] = (place.postgres / "password").read_text().strip()
    found["vault key"] = place.vault_key.read_text().split()[0]
    seeds = json.loads((place.identity / "authority.json").read_text())
    found["operator seed"] = seeds["operator"]
    for kind in ("accounts", "signing", "users"):
        found |= {f"{kind} seed {name}": seed for name, seed in seeds[kind].items()}
    return found


# Where a stack keeps them, below its data directory.
def homes(stack: Stack) -> dict[str, frozenset[str]]:
    everything = frozenset(of_stack(stack))
    password = frozenset({"postgres password"})
    seeds = frozenset(name for name in everything if "seed" in name)
    return {
        "identity": seeds,
        "identity/vault.key": frozenset({"vault key"}),
        "state/installation.key": frozenset({"installation key"}),
        "postgres/password": password,
        "client.toml": password,
        "roles.toml": password,
    }


def _forms(value: bytes) -> Iterator[tuple[str, bytes]]:
    yield "as it is", value
    yield "backwards", value[::-1]
    yield "hex", value.hex().encode()
    yield "HEX", value.hex().upper().encode()
    for before in range(3):
        text = base64.b64encode(os.urandom(before) + value)
        # Whole characters of the value alone.
        inner = text[(0, 2, 3)[before] : (before + len(value)) * 8 // 6]
        yield f"base64 at {before}", inner
        if b"+" in inner or b"/" in inner:
            yield f"URL-safe base64 at {before}", inner.replace(b"+", b"-").replace(b"/", b"_")
    for how, form in (
        ("URL-encoded", urllib.parse.quote(value, safe="").encode()),
        ("url-encoded", re.sub(rb"%..", lambda match: match[0].lower(), urllib.parse.quote(value, safe="").encode())),
        ("JSON", json.dumps(value.decode())[1:-1].encode()),
        ("JSON of UTF-8", json.dumps(value.decode(), ensure_ascii=False)[1:-1].encode()),
        ("JSON of Go", json.dumps(value.decode(), ensure_ascii=False)[1:-1].replace("&", "\\u0026").encode()),
        ("JSON in JSON", json.dumps(json.dumps(value.decode())[1:-1])[1:-1].encode()),
    ):
        if form != value:
            yield how, form
