"""What goes along with a turn: its prompt, its files, its budget, judged before anything is sent."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sandreel_core.errors import Malformed, Misconfigured

if TYPE_CHECKING:
    from sandreel_core.client import Client
    from sandreel_core.contract.message import Owner
    from sandreel_core.contract.turn import Attachment

_MAX_UPLOADS = 64  # `contract.turn.StartTurn`
_PIECE_BYTES = 256 * 1024
_MAX_USD = Decimal(1_000_000_000)


def prompt_of(args: argparse.Namespace) -> str:
    """Raises Malformed, in one line, for none, too many and one that is too long."""
    from sandreel_core.contract.prompt import MAX_LONG_PROMPT_BYTES

    words = [*args.prompt, *(args.rest or [])]
    if len(words) > 1:
        raise Malformed(f"put the prompt in quotes: it came as {len(words)} words, {words[0][:40]!r} and what follows")
    if words and args.file is not None:
        raise Malformed("give the prompt or --file, not both")
    if args.file not in (None, "-"):
        where = f"--file {args.file!r}"
        text = _read(where, args.file)
    elif args.file == "-" or words == ["-"] or (not words and not _is_terminal()):
        where, text = "stdin", _decoded("stdin", sys.stdin.buffer)
    elif words:
        where, text = "the prompt", words[0]
    else:
        raise Malformed('say what to do: sandreel turn "Fix the failing test", or --file FILE, or - for stdin')
    if not text.strip():
        raise Malformed(f"{where}: there is nothing in it to work on")
    if (size := len(text.encode(errors="replace"))) > MAX_LONG_PROMPT_BYTES:
        raise Malformed(f"{where} has {size} bytes; the limit is {MAX_LONG_PROMPT_BYTES}: use --attach")
    return text


def budget(text: str) -> int:
    """US dollars as micro-USD; for argparse's `type`."""
    try:
        usd = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        usd = Decimal("NaN")
    if not usd.is_finite() or not 0 < usd <= _MAX_USD or (micro := int(usd * 1_000_000)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of US dollars like 5 or 0.25")
    return micro


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of this machine, or one that the bridge fetches: then `url`."""

    name: str
    path: Path | None = None
    url: str | None = None

    async def put(self, client: Client, args: argparse.Namespace, turn: str, owner: Owner) -> Attachment:
        """Where the turn finds it. Raises what `Client.attach` does, Misconfigured when it cannot be read."""
        from sandreel_core.contract.turn import Attachment

        name = f"{turn}/{self.name}"
        if self.path is None:
            return Attachment(path=f"uploads/{name}", url=self.url)
        return await client.attach(args.org, args.session, name, _pieces(self.path), owner=owner)


def uploads_of(given: list[str]) -> list[Upload]:
    """Raises Malformed and Misconfigured for what is no file."""
    if len(given) > _MAX_UPLOADS:
        raise Malformed(f"--attach: {len(given)} files are given; the limit is {_MAX_UPLOADS}")
    found: dict[str, Upload] = {}
    for text in given:
        if text.startswith(("https://", "http://")):
            name = text.split("?")[0].split("#")[0].partition("://")[2].rstrip("/").rpartition("/")[2]
            upload = Upload(name if name not in ("", ".", "..") else "file", url=text)
        else:
            path = _file(text)
            upload = Upload(path.name, path=path)
        if upload.name in found:
            raise Malformed(f"--attach: two files are called {upload.name!r}")
        found[upload.name] = upload
    return list(found.values())


def _file(text: str) -> Path:
    from sandreel_core.contract.turn import MAX_ATTACHMENT_BYTES

    path = Path(text)
    try:
        if not path.is_file():
            raise Misconfigured(f"--attach {text!r} is not a file")
        size = path.stat().st_size
        path.name.encode()
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise Misconfigured(f"--attach {text!r} cannot be read: {why}") from error
    if size > MAX_ATTACHMENT_BYTES:
        raise Malformed(f"--attach {text!r} has {size} bytes; the limit is {MAX_ATTACHMENT_BYTES}")
    return path


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                yield piece
    except OSError as error:
        raise Misconfigured(f"--attach {str(path)!r} cannot be read: {error.strerror}") from error


def _read(where: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return _decoded(where, file)
    except OSError as error:
        raise Misconfigured(f"{where} cannot be read: {error.strerror}") from error


def _decoded(where: str, file: BinaryIO) -> str:
    from sandreel_core.contract.prompt import MAX_LONG_PROMPT_BYTES

    data = file.read(MAX_LONG_PROMPT_BYTES + 1)
    if len(data) > MAX_LONG_PROMPT_BYTES:
        raise Malformed(f"{where} has more than {MAX_LONG_PROMPT_BYTES} bytes, which is the limit: use --attach")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"{where} is not UTF-8: byte {error.start}") from error


def _is_terminal() -> bool:
    """Also where stdin is closed: then there is nothing to read either."""
    try:
        return os.isatty(sys.stdin.fileno())
    except (OSError, ValueError, AttributeError):
        return True
