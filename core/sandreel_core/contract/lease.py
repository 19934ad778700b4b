"""What travels over `req.` for credentials: asked by a session's runnerd, answered by the broker, stored nowhere.

To the broker: lease. To runnerd: forget. (A value for a whole exec is asked for as `secret.AskSecret`.)
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sandreel_core.contract.credential import Program, Purpose
from sandreel_core.contract.message import Id, Instant, Ordinal
from sandreel_core.contract.requests import Reply, Request
from sandreel_core.contract.secret import MAX_SEALED_CHARS
from sandreel_core.contract.session import Slug

Word = Annotated[str, Meta(max_length=256)]


class AskGit(Request, frozen=True, kw_only=True):
    """What git says when it asks a credential helper: `host` with a port where there is one, `path` without a slash in
    front. The broker finds the granted credential that is for that place."""

    protocol: Annotated[str, Meta(min_length=1, max_length=16)]
    host: Annotated[str, Meta(min_length=1, max_length=256)]
    path: Annotated[str, Meta(max_length=1024)] = ""


class AskLease(Request, frozen=True, kw_only=True):
    """One lease for one operation; exactly one of `slug` and `git`. `resource` limits a minted token (`owner/name`).
    `exec`, `pid` and `program` say who asks (see `credential.Leased`)."""

    boot_id: Id
    exec: Id
    slug: Slug | None = None
    git: AskGit | None = None
    resource: Annotated[str, Meta(max_length=256)] | None = None
    purpose: Purpose = ""
    pid: Ordinal | None = None
    program: Program | None = None


class Lease(Reply, frozen=True, kw_only=True):
    """`credential.leased` is in the log. `sealed` is as in `Secret`.

    username    what git has to be told beside it
    variables   the names under which programs look for the value
    minted      the value was made for this lease, and ends with it
    file        the variable that holds the path of a file with it, and the file's name; empty: none
    """

    lease_id: str
    slug: str
    expires_at: Instant
    sealed: Annotated[str, Meta(max_length=MAX_SEALED_CHARS)]
    username: Word = ""
    variables: list[Word] = []
    file_variable: Word = ""
    file_name: Word = ""
    minted: bool = False


class Forget(Request, frozen=True, kw_only=True):
    """To runnerd: keep no value of this credential any longer."""

    slug: Slug
