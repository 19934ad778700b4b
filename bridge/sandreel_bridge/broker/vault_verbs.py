"""The verbs of `sandreel credential` that open the vault themselves: with the broker's settings, and its keys."""

# ruff: noqa: T201 - printing is what it is for

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from sandreel_bridge.broker import recipe
from sandreel_bridge.broker.postgres import PostgresVault, open_vault
from sandreel_bridge.broker.rewrap import rewrap as rewrap_all
from sandreel_bridge.broker.settings import Settings
from sandreel_bridge.broker.vault import MAX_OPTION_CHARS, MAX_OPTIONS, MAX_VALUE_BYTES, Name
from sandreel_core.cli.connection import login, section, settings
from sandreel_core.contract.session import Slug
from sandreel_core.errors import Malformed, Misconfigured, TooLarge
from sandreel_core.ids import check_org
from sandreel_core.json_line import json_text
from sandreel_projections.table import lines

_MAX_LINES = 10_000


async def put(args: argparse.Namespace) -> int:
    """Raises Malformed, TooLarge, Misconfigured, Unavailable."""
    name = Name(_org(args), check_slug(args.slug))
    kind = args.recipe or recipe.default_recipe(name.slug)
    options = dict(args.set)
    if len(options) > MAX_OPTIONS or any(len(value) > MAX_OPTION_CHARS for value in options.values()):
        raise TooLarge(f"--set: at most {MAX_OPTIONS} options of {MAX_OPTION_CHARS} characters")
    recipe.check(kind, options)
    value = _value(args, keep_end=bool(recipe.use_of(kind, options, name.slug).file_name))
    async with _vault(args) as vault:
        made = await vault.put(name, value, recipe=kind, options=options, by=f"cli:{login()}")
    said = {
        "org": name.org,
        "slug": name.slug,
        "version": made.version,
        "recipe": kind,
        "fingerprint": made.fingerprint,
    }
    print(json_text(said) if args.json else f"{name} version {made.version} ({kind}), fingerprint {made.fingerprint}")
    return 0


async def show(args: argparse.Namespace) -> int:
    """Raises Misconfigured, Unavailable."""
    async with _vault(args) as vault:
        found = await vault.entries(_scope(args))
    _print(
        args,
        ("org", "slug", "version", "recipe", "options", "fingerprint", "created_at", "created_by"),
        [
            (
                *each.name,
                each.version,
                each.recipe,
                dict(each.options),
                each.fingerprint,
                each.created_at,
                each.created_by,
            )
            for each in found
        ],
    )
    return 0


async def delete(args: argparse.Namespace) -> int:
    """Raises NotFound, Malformed, Misconfigured, Unavailable."""
    name = Name(_org(args), check_slug(args.slug))
    async with _vault(args) as vault:
        count = await vault.delete(name, by=f"cli:{login()}")
    said = {"org": name.org, "slug": name.slug, "deleted_versions": count}
    print(json_text(said) if args.json else f"{name}: {count} versions are deleted; no lease of it is given any more")
    return 0


async def audit(args: argparse.Namespace) -> int:
    """Raises Malformed, Misconfigured, Unavailable."""
    if not 1 <= args.last <= _MAX_LINES:
        raise Malformed(f"--last {args.last}: 1 to {_MAX_LINES}")
    slug = None if args.slug is None else check_slug(args.slug)
    async with _vault(args) as vault:
        found = await vault.notes(_scope(args), slug, limit=args.last)
    _print(
        args,
        ("at", "org", "slug", "version", "action", "by", "session", "lease", "purpose"),
        [
            (
                *(each.at, *each.name, each.version, each.action, each.reader.by),
                *(each.reader.session, each.reader.lease, each.reader.purpose),
            )
            for each in found
        ],
    )
    return 0


async def rewrap(args: argparse.Namespace) -> int:
    """Exit code 1 when something stays as it was. Raises Misconfigured, Unavailable."""
    quiet = args.json or not sys.stderr.isatty()

    def progress(rows: int) -> None:
        if not quiet:
            print(f"\r{rows} values", end="", file=sys.stderr, flush=True)

    async with _vault(args) as vault:
        done = await rewrap_all(vault, by=f"cli:{login()}", new_key=args.new_key, progress=progress)
    if not quiet:
        print("\r", end="", file=sys.stderr)
    if args.json:
        print(json_text(done))
    else:
        print(f"{done.rows} values are sealed anew, all with the key {done.key_id}; {done.retired} old keys are gone")
        if done.stuck:
            print(
                f"sandreel: {done.stuck} values open with none of the keys: put the one that sealed them behind the first, or"
                " store them again",
                file=sys.stderr,
            )
    return 1 if done.stuck else 0


def check_slug(text: str) -> str:
    """Raises Malformed."""
    try:
        return msgspec.convert(text, Slug)
    except msgspec.ValidationError:
        raise Malformed(f"SLUG {text[:80]!r} is not 1 to 64 characters of a-z 0-9 _ -, the first no _ or -") from None


@asynccontextmanager
async def _vault(args: argparse.Namespace) -> AsyncIterator[PostgresVault]:
    found = section(args, Settings, operator=True)
    if found.key_file is None and not found.key_command:
        raise Misconfigured("what opens the vault? Give [broker] key_file: only who runs the broker has it")
    async with open_vault(found.vault_dsn(), found.keys()) as vault:
        yield vault


def _org(args: argparse.Namespace) -> str:
    return check_org(args.org or os.environ.get("SANDREEL_ORG", "").strip() or settings(args).org)


def _scope(args: argparse.Namespace) -> str | None:
    """None for all orgs."""
    if args.all and args.org is not None:
        raise Malformed("give --org or --all, not both")
    return None if args.all else _org(args)


def _value(args: argparse.Namespace, *, keep_end: bool) -> bytes:
    """Without the newline at the end, unless the value is a file's. Raises Malformed, TooLarge."""
    if args.file is not None:
        try:
            with args.file.open("rb") as file:
                value: bytes = file.read(MAX_VALUE_BYTES + 2)
        except OSError as error:
            raise Malformed(f"--file {args.file} cannot be read: {(error.strerror or 'error').lower()}") from None
    elif sys.stdin.isatty():
        value = getpass.getpass("value (it is not shown): ").encode()
    else:
        value = sys.stdin.buffer.read(MAX_VALUE_BYTES + 2)
    if not keep_end:
        value = value.removesuffix(b"\n").removesuffix(b"\r")
    if not value:
        raise Malformed("the value is empty: give it on standard input, or with --file")
    return value


def _print(args: argparse.Namespace, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if args.json:
        for row in rows:
            print(json_text(dict(zip(columns, row, strict=True))))
    else:
        print("\n".join(lines(columns, rows)))
