"""`sandreel backup`: a copy of the whole log and of the views, and the way back. The drill is in docs/backup.md."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.backup_text import Progress, fields_of, lines_of, missing_line
from sandreel_core.cli.connection import data_of, dsn_of, options, settings
from sandreel_core.errors import Denied, Malformed, Misconfigured, SandreelError

if TYPE_CHECKING:
    from sandreel_core.backup.manifest import Manifest
    from sandreel_core.bus.jetstream import JetStreamBus
    from sandreel_core.cli.stopped import Stopped

_CONNECT_S = 10.0


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("backup", help="copy the log and the views, and bring them back", allow_abbrev=False)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common = options(org=False)
    created = verbs.add_parser(
        "create",
        parents=[common],
        help="copy every stream and the views to a directory, while everything goes on",
        description="DIR is new or empty. It is a backup from the moment on at which it has its manifest.json, which is"
        " written last. Files of `sandreel archive` are listed and not copied: copy them beside it. Workspaces of"
        " sessions are not part of it.",
        allow_abbrev=False,
    )
    created.add_argument("--no-postgres", action="store_true", help="the log alone: views are folds of it")
    created.set_defaults(run=create)
    verified = verbs.add_parser("verify", parents=[common], help="whether a backup is whole", allow_abbrev=False)
    verified.set_defaults(run=verify)
    restored = verbs.add_parser(
        "restore",
        parents=[common],
        help="bring a backup back into an installation that is stopped",
        description="Without --only: the streams, under a new epoch; the views are emptied, and read again from the log"
        " at the next start, because those of the dump know only the old epoch. Stop every role first (`sandreel"
        " down`). What goes on in sessions (`sandreel up --keep-sessions`) explains in its own record what the log has lost.",
        allow_abbrev=False,
    )
    restored.add_argument("--only", choices=("streams", "postgres"), help="postgres: the views, as they were dumped")
    restored.add_argument("--replace", action="store_true", help="delete the streams that are there")
    restored.set_defaults(run=restore)
    for each in (created, verified, restored):
        each.add_argument("directory", metavar="DIR", type=Path)


async def create(args: argparse.Namespace) -> int:
    """Raises Misconfigured, Unavailable, Denied."""
    from sandreel_core import __version__, clock
    from sandreel_core.archive import manifests
    from sandreel_core.backup import postgres, streams
    from sandreel_core.backup.manifest import ArchiveFile, Manifest, begun, finish
    from sandreel_core.cli.stopped import programs

    directory, begun_at = args.directory.expanduser().absolute(), clock.now()
    bus, dsn = await _reader(args), None if args.no_postgres else dsn_of(args)
    try:
        with begun(directory):
            # The views first: so they are never ahead of the log that is copied.
            dump = None if dsn is None else await postgres.dump(dsn, directory, programs())
            copies = await streams.copy(bus, directory, Progress("copied"))
            archive = [
                ArchiveFile(stream=each.stream, file=each.file, bytes=each.bytes, sha256=each.sha256)
                for name in [copy.name for copy in copies]
                for each in manifests(data_of(args) / "archive", name)
            ]
            manifest = Manifest(
                sandreel=__version__,
                begun_at=begun_at,
                ended_at=clock.now(),
                streams=copies,
                archive=archive,
                dump=dump,
            )
            finish(directory, manifest)
    except OSError as error:
        raise Misconfigured(f"{directory} cannot be written to: {(error.strerror or 'error').lower()}") from error
    finally:
        await bus.close()
    _print(args, fields_of(manifest, directory), lines_of(manifest, f"{directory} is a backup"))
    return 0


async def verify(args: argparse.Namespace) -> int:
    """Raises Misconfigured when it is none, Malformed when it is damaged."""
    from sandreel_core.backup.manifest import missing_archive

    manifest = _whole(args.directory)
    missing = missing_archive(manifest, data_of(args) / "archive")
    lines = lines_of(manifest, f"{args.directory} is whole")
    if missing:
        lines.append(missing_line(missing, data_of(args)))
    _print(args, fields_of(manifest, args.directory) | {"archive_missing": missing}, lines)
    return 0


async def restore(args: argparse.Namespace) -> int:
    """Raises Misconfigured while roles run and without --replace, Malformed for a damaged backup, Unavailable, Denied."""
    from sandreel_core.backup.manifest import missing_archive
    from sandreel_core.cli.stopped import stopped

    directory, data = args.directory.expanduser().absolute(), data_of(args)
    manifest = _whole(directory)
    if args.only == "postgres" and manifest.dump is None:
        raise Misconfigured(
            f"{directory} has no dump of the views; they are folds of the log: empty ones read it again at the next start"
        )
    async with stopped(data) as found:
        if args.only == "postgres":
            return await _restore_views(args, manifest, directory, found)
        fields, lines = await _restore_streams(args, manifest, directory, found)
    missing = missing_archive(manifest, data / "archive")
    fields["archive_missing"] = missing
    if missing:
        lines.append(missing_line(missing, data_of(args)))
    lines.append(f"now: sandreel up{_data_option(args)}")
    if manifest.archive:
        lines.append(
            f"then, for what was archived: sandreel projections rebuild --accept-differences{_data_option(args)}"
        )
    _print(args, fields, lines)
    return 0


async def _restore_streams(
    args: argparse.Namespace, manifest: Manifest, directory: Path, found: Stopped
) -> tuple[dict[str, Any], list[str]]:
    import msgspec

    from sandreel_core import clock
    from sandreel_core.backup import postgres, streams
    from sandreel_core.backup.loss import loss
    from sandreel_core.contract.subjects import CMD, reel

    places = await postgres.places(found.dsn, found.programs) if found.dsn else []
    epoch, replace = clock.new_token(), args.replace
    if found.restoring is not None:
        replace = replace or found.restoring.exists()  # what is there then is half of a restore
        if not replace:
            await streams.check_free(found.bus)
        found.restoring.touch(mode=0o600)
    progress = Progress("restored")
    returned = await streams.put_back(
        found.bus, directory, manifest.streams, epoch=epoch, replace=replace, report=progress
    )
    if found.dsn:
        await postgres.empty(found.dsn, found.programs)
    if found.restoring is not None:
        found.restoring.unlink()
    losses = [loss(each, places) for each in returned if each.copy.name.startswith(reel(0)[:-1])]
    losses += [loss(each, []) for each in returned if each.copy.name == CMD]
    fields = {"restored": "streams", "epoch": epoch, "streams": [msgspec.to_builtins(each) for each in losses]}
    lines = [str(each) for each in losses]
    lines.append(f"every stream has epoch {epoch}: cursors of before are refused, with a sentence")
    if found.dsn:
        lines.append("the views are empty but for the history of commands, and read the log again at the next start")
    return fields, lines


async def _restore_views(args: argparse.Namespace, manifest: Manifest, directory: Path, found: Stopped) -> int:
    from sandreel_core.backup import postgres
    from sandreel_core.contract.subjects import reel

    if found.dsn is None or manifest.dump is None:
        raise Misconfigured("this installation has no Postgres: give [postgres] dsn")
    ends = {
        name: await found.bus.state(name) for name in await found.bus.stream_names() if name.startswith(reel(0)[:-1])
    }
    for copy in manifest.streams:
        if copy.name in ends and ends[copy.name].epoch != copy.epoch:
            raise Misconfigured(
                f"the views of the dump were made from epoch {copy.epoch} of {copy.name}, which has {ends[copy.name].epoch}"
                " now: it was restored since. Views that are empty read the log again at the next start"
            )
    await postgres.load(found.dsn, directory / manifest.dump.file.path, found.programs)
    fields: list[dict[str, Any]] = []
    lines: list[str] = []
    for place in await postgres.places(found.dsn, found.programs):
        end = ends[place.stream].last_sequence if place.stream in ends else None
        unread = None if end is None else end - place.sequence
        fields.append({"stream": place.stream, "read_to": place.sequence, "at": place.at, "unread": unread})
        rest = (
            "" if unread is None else f"; {unread:,} events of the log are read at the next start, and nothing is lost"
        )
        lines.append(f"views of {place.stream}: as of {place.sequence:,}{rest}")
    lines.append(f"now: sandreel up{_data_option(args)}")
    _print(args, {"restored": "postgres", "views": fields}, lines)
    return 0


async def _reader(args: argparse.Namespace) -> JetStreamBus:
    """The bus in the name of the user that may copy streams and nothing else; with servers of the operator's own, in the
    name that the settings give."""
    from sandreel_core.bus.credentials import Creds, identity_of
    from sandreel_core.bus.jetstream import JetStreamBus
    from sandreel_core.embedded.authority import Authority, read_creds
    from sandreel_core.embedded.place import Place, holder
    from sandreel_core.permissions import BACKUP

    bus = settings(args, operator=True).bus
    kept = Authority(Place(data_of(args)).identity).creds_file(BACKUP.name)
    # Where the settings name an administrator of ours, there is one who may do less.
    identity = Creds.parse(read_creds(kept)) if bus.creds and kept.exists() else identity_of(bus)
    try:
        return await JetStreamBus.connect(
            bus.nats_urls, name="sandreel backup", identity=identity, connect_timeout_s=_CONNECT_S
        )
    except SandreelError as error:
        if not isinstance(error, Denied) and kept.exists() and holder(data_of(args)) is None:
            raise Misconfigured(f"nothing runs on {data_of(args)}: start it with `sandreel up`") from error
        raise


def _whole(directory: Path) -> Manifest:
    from sandreel_core.backup.manifest import check, read

    manifest = read(directory)
    try:
        for file in [*(each.file for each in manifest.streams), *([manifest.dump.file] if manifest.dump else [])]:
            check(directory, file)
    except Malformed as error:
        raise Malformed(f"this backup cannot be used: {error}") from error
    return manifest


def _data_option(args: argparse.Namespace) -> str:
    return f" --data {args.data}" if args.data else ""


def _print(args: argparse.Namespace, fields: dict[str, Any], lines: list[str]) -> None:
    from sandreel_core.json_line import json_text

    print(json_text(fields) if args.json else "\n".join(lines), flush=True)
