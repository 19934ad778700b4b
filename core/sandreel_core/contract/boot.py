"""What a backend hands to the runnerd that it starts: by a pipe on standard input, or by `SANDREEL_*`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from sandreel_core.contract.message import Id, Org

# In the environment of runnerd and of everything that it starts: `<installation>/<org>/<session>/<boot_id>`.
BOOT_MARKER = "SANDREEL_BOOT"
# In the environment of everything that belongs to one exec.
EXEC_MARKER = "SANDREEL_EXEC_ID"
# Likewise: the socket at which its programs ask for leases, where those that ask are, and the Python that runs them.
LEASES_SOCKET = "SANDREEL_LEASES"
PROGRAMS = "SANDREEL_PROGRAMS"
PROGRAMS_PYTHON = "SANDREEL_PYTHON"

# How a runnerd ends that cannot begin in its workspace (sysexits.h: EX_CANTCREAT, EX_IOERR), for whoever started it.
UNWRITABLE = 73
NO_ROOM = 74
# And one whose standard input ended without a word: nobody has told it who it is (EX_TEMPFAIL).
UNTOLD = 75

SPOOL_BYTES = 64 * 1024 * 1024


class BootSettings(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`token` lets runnerd ask for its bootstrap, in the name that `nats_creds` (the text of a .creds file) gives it:
    without them it stays the user with the password. No child ever sees any of this."""

    nats_urls: Annotated[list[str], Meta(min_length=1)]
    org: Org
    session: Id
    boot_id: Id
    token: str
    installation: str
    partitions: Annotated[int, Meta(ge=1, le=4096)] = 1
    nats_creds: str | None = None
    nats_user: str | None = None
    nats_password: str | None = None
    workspace: str = "/workspace"
    spool_bytes: Annotated[int, Meta(ge=1024 * 1024)] = SPOOL_BYTES
    max_live_execs: Annotated[int, Meta(ge=1, le=10_000)] = 4
    heartbeat_s: Annotated[float, Meta(gt=0)] = 5.0
    # How long CMD keeps a command; an hour before that runnerd refuses it as STALE (design §3).
    command_max_age_s: Annotated[float, Meta(ge=7200)] = 7 * 86_400
    log_level: str = "INFO"
