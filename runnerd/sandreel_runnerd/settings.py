"""Where runnerd's settings come from, and how what is secret in them leaves the environment again.

A backend hands them over as JSON on standard input; a container may set `SANDREEL_*` variables instead.
Either way no exec ever sees the token or the password.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import BinaryIO

import msgspec

from sandreel_core.contract.boot import BOOT_MARKER, BootSettings
from sandreel_core.errors import Misconfigured

_PREFIX = "SANDREEL_"
# A settings document is some hundred bytes; whoever writes more than this has hold of the wrong pipe.
_MAX_BYTES = 64 * 1024


class Untold(Misconfigured):
    """No settings came at all: a spare that nobody has taken, when whoever held it is gone."""


def from_stdin(stream: BinaryIO) -> BootSettings:
    """One JSON object, read until EOF. Raises Untold; Misconfigured, naming the field and never its value."""
    body = stream.read(_MAX_BYTES + 1)
    if not body:
        raise Untold("standard input ended, and nobody has said whose session this is")
    if len(body) > _MAX_BYTES:
        raise Misconfigured(f"the settings on standard input are longer than {_MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=BootSettings)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # `from None`, and the bare message: the document holds the token and the password.
        raise Misconfigured(f"the settings on standard input are not in order: {error}") from None


def from_environment(environ: MutableMapping[str, str]) -> BootSettings:
    """From `SANDREEL_<FIELD>`; lists are separated by commas, blank means unset. Raises Misconfigured."""
    given: dict[str, object] = {}
    for field in msgspec.structs.fields(BootSettings):
        value = environ.get(_PREFIX + field.name.upper(), "").strip()
        if value:
            given[field.name] = value.split(",") if field.name == "nats_urls" else value
        elif field.required:
            raise Misconfigured(f"{_PREFIX}{field.name.upper()} is not set, and no settings came on standard input")
    try:
        return msgspec.convert(given, BootSettings, strict=False)
    except msgspec.ValidationError as error:
        raise Misconfigured(f"the SANDREEL_ variables are not in order: {error}") from None


def scrub(environ: MutableMapping[str, str]) -> None:
    """Take every `SANDREEL_*` variable away but the boot's marker, by which its processes are found again."""
    for name in list(environ):
        if name.startswith(_PREFIX) and name != BOOT_MARKER:
            del environ[name]


def marker(settings: BootSettings) -> str:
    """The value of the boot's marker."""
    return f"{settings.installation}/{settings.org}/{settings.session}/{settings.boot_id}"
