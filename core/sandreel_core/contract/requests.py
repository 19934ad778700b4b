"""What travels over `req.` and `hb.`: asked and answered, stored nowhere.

To the spawner: bootstrap, renew, feed, log. To the broker and the bridge: secret. To the bridge: prompt. To runnerd: health, drain, lift, hold, keys, and the file verbs.
What is asked about leases is in lease.py.
An answer is either the reply type or `Failure`; the bus turns the latter into an exception.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from sandreel_core.contract.message import Count, Id, Instant, Sha256
from sandreel_core.contract.session import Limits, WorkspacePath

MAX_KEYS_BYTES = 64 * 1024
FILE_CHUNK_BYTES = 256 * 1024
MAX_SECRET_BYTES = 32 * 1024  # as a variable's value, design §5
MAX_SEALED_CHARS = (MAX_SECRET_BYTES + 48 + 2) // 3 * 4  # base64 of the box, which adds 48 bytes
MAX_LONG_PROMPT_BYTES = 4 * 1024 * 1024  # about as many tokens as a model reads
MAX_READ_BYTES = 20 * 1024 * 1024  # behaviour §1: file read
MAX_FETCH_BYTES = 100 * 1024 * 1024  # behaviour §1: URL fetch
# What is copied piece by piece: its digest, taken at the end, still answers within a request's time (see `client.files`).
MAX_COPY_BYTES = 4 * 1024 * 1024 * 1024

Path = Annotated[str, Meta(min_length=1, max_length=4096)]


class Request(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class Reply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class Done(Reply, frozen=True, kw_only=True):
    """Nothing more to say."""


class Failure(Reply, frozen=True, kw_only=True, tag_field="failure", tag=True):
    """`kind` is the name of the error class in `errors.py`, `code` that of a Refused."""

    kind: str
    message: str
    code: str = ""


# client → bridge


class StorePrompt(Request, frozen=True, kw_only=True):
    """A piece of a prompt that is too long for a command, for `turn.start`'s `prompt_object`: `FILE_CHUNK_BYTES` of its UTF-8, less only
    in the last one. Pieces may come again, and in any order.

    sha256, size  of the whole
    number        of the piece, from 0
    """

    sha256: Sha256
    size: Annotated[int, Meta(ge=1, le=MAX_LONG_PROMPT_BYTES)]
    number: Count
    base64: str


# runnerd → spawner


class Bootstrap(Request, frozen=True, kw_only=True):
    """runnerd presents itself. The token binds to the first key that comes with it. `workspace`: see `session.Ready`."""

    boot_id: str
    token: str
    runnerd_version: str
    contract_version: int
    public_keys: dict[str, str] = {}
    workspace: WorkspacePath | None = None


class Bootstrapped(Reply, frozen=True, kw_only=True):
    """`session.ready` is in the log. `env` is the folded environment; commands come from `feed`, which begins
    behind `commands_after`; `epoch` is that of the session's partition, `workspace_last` the last sequence of the
    session's subject `workspace` (0: nothing stands there), from which runnerd, which may not read the log, goes on.
    `user_jwt`: who it is from now on, where NATS knows its users by JWTs."""

    epoch: str
    partitions: int
    env: dict[str, str]
    limits: Limits
    commands_after: Count
    feed: str
    hold: bool = False
    workspace_last: Count | None = None
    user_jwt: str | None = None


class Renew(Request, frozen=True, kw_only=True):
    """The boot's NATS identity is about to end, or has ended. The token and the keys of the bootstrap."""

    boot_id: str
    token: str
    public_keys: dict[str, str]


class Renewed(Reply, frozen=True, kw_only=True):
    user_jwt: str


class AskSecret(Request, frozen=True, kw_only=True):
    """The value of a lease, for one exec that is about to start. It comes sealed to the session's key `seal`, which
    whoever answers takes from `session.ready`, and never from whoever asks. Of the broker's, `lease` is the credential's
    slug: every exec that gets it is a lease of its own. `boot_id`: whose exec it is."""

    lease: Id
    exec: Id
    boot_id: Id | None = None


class Secret(Reply, frozen=True, kw_only=True):
    """`sealed`: base64 of an anonymous box (`keys.seal`) of the value's UTF-8, at most 32 KiB."""

    sealed: Annotated[str, Meta(max_length=MAX_SEALED_CHARS)]


class MakeFeed(Request, frozen=True, kw_only=True):
    """Make the session's command feed again, behind this sequence of CMD. Denied for a boot that is over."""

    boot_id: str
    after: Count


class FeedMade(Reply, frozen=True, kw_only=True):
    feed: str


class AskLog(Request, frozen=True, kw_only=True):
    """What does the log hold of these execs? Asked on every reconnect, before anything is sent again."""

    boot_id: str
    execs: Annotated[list[Id], Meta(max_length=10_000)] = []


class ExecHead(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`boot_id`: who accepted it (absent: nobody), `started_by`: for which command. `last_n`: the greatest ordinal with
    no hole before it."""

    boot_id: str | None = None
    started_by: str | None = None
    last_n: Count = 0
    ended: bool = False


class LogHead(Reply, frozen=True, kw_only=True):
    """`commands_restored_at`: where CMD ended when it came back from a backup, if that is what gave the session's partition
    its `epoch`: what a runnerd has handled behind it is gone, and new commands have those numbers."""

    epoch: str
    commands_last: Count
    commands_restored_at: Count | None = None
    execs: dict[str, ExecHead] = {}


# runnerd's heartbeat, on hb.<org>.<session>


class Heartbeat(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`idle_s` is the time since the last activity, by runnerd's monotonic clock (behaviour §1, lastActivity).

    `window_messages` and `spool_bytes` are what is not acknowledged yet, in memory and in the spool. The counts
    `sent_messages` (repeats included), `resends` (how often an exec's window was sent again) and `gaps` (how often an
    exec.gap took the place of what the server refused for good or has lost) are since the boot.
    """

    boot_id: str
    live_execs: Count
    idle_s: float
    spool_bytes: Count = 0
    held: bool = False
    commands_handled: Count = 0
    spool_capacity_bytes: Count = 0
    window_messages: Count = 0
    sent_messages: Count = 0
    resends: Count = 0
    gaps: Count = 0


# anybody with the right → runnerd


class Health(Reply, frozen=True, kw_only=True):
    boot_id: str
    booted_at: Instant
    runnerd_version: str
    live_execs: list[str]
    idle_s: float
    spool_bytes: Count
    spool_capacity_bytes: Count
    window_messages: Count
    held: bool
    draining: bool
    connected_s: float
    rss_bytes: Count
    pid1: bool


class Drain(Request, frozen=True, kw_only=True):
    """Read no commands behind `commands_until`; lapses after 30 s without a SIGTERM."""

    commands_until: Count


class Drained(Reply, frozen=True, kw_only=True):
    """`idle_s` as in the heartbeat, at the moment of the answer; absent from a runnerd that does not say it."""

    live_execs: list[str]
    idle_s: float | None = None


class Hold(Request, frozen=True, kw_only=True):
    """Stop (or go on) reading output, so that children wait: the stream is nearly full. Lapses after 60 s."""

    hold: bool


class Keys(Request, frozen=True, kw_only=True):
    """Typed input. `offset`: how many bytes were typed before; what was taken already is skipped.

    writer  one keyboard: its offsets count its own bytes, so that several may type at once and none skips what another
            typed. A hole before `offset` is then no refusal: nothing is taken, and the answer says from where on.
            Without it all bytes count, and a hole is BAD_REQUEST. Nothing is typed by no bytes: a way to ask.
    """

    exec: Id
    offset: Count
    writer: Id | None = None
    base64: Annotated[str, Meta(max_length=MAX_KEYS_BYTES * 4 // 3 + 4)]


class KeysTaken(Reply, frozen=True, kw_only=True):
    """`offset`: how many bytes have been taken in all, of this writer's if it named itself. `others`: how many other
    writers have typed within the last minute."""

    offset: Count
    others: Count = 0


class ListFiles(Request, frozen=True, kw_only=True):
    """`after`: what the page before called `next`."""

    path: Path = "."
    after: Annotated[str, Meta(max_length=512)] | None = None


class FileEntry(Struct, frozen=True, kw_only=True):
    name: str
    kind: Literal["file", "dir", "other"]
    size: Count
    modified_ms: int
    mode: int | None = None


class FileList(Reply, frozen=True, kw_only=True):
    """At most 10,000 entries, by name; `truncated` says that there are more, `next` where they begin."""

    entries: list[FileEntry]
    truncated: bool = False
    next: str | None = None


class ReadFile(Request, frozen=True, kw_only=True):
    """One chunk. Of a file over 20 MiB nothing is read (TOO_LARGE), or with `pin` of one over 4 GiB.

    pin  "" in the first request, then what its answer called `pin`: all chunks are of one state of the file, and
         CHANGED is raised when it has another (size, time of change, or file). The digest comes with a chunk that
         is the whole file, or when `sha256` asks for it.
    """

    path: Path
    offset: Count = 0
    length: Annotated[int, Meta(ge=1, le=FILE_CHUNK_BYTES)] = FILE_CHUNK_BYTES
    pin: Annotated[str, Meta(max_length=128)] | None = None
    sha256: bool = False


class FileChunk(Reply, frozen=True, kw_only=True):
    """`size`, `mode` and `sha256` are of the whole file (the digest comes with the last chunk, or see `ReadFile.pin`)."""

    base64: str
    size: Count
    eof: bool
    sha256: str | None = None
    pin: str | None = None
    mode: int | None = None


class WriteFile(Request, frozen=True, kw_only=True):
    """One chunk of an upload; the last one carries the digest, and only then the file appears under its name. `abort`
    gives the upload up, and what has arrived with it."""

    path: Path
    upload: Id
    offset: Count
    base64: str
    eof: bool = False
    abort: bool = False
    sha256: str | None = None
    mode: Annotated[int, Meta(ge=0, le=0o777)] = 0o644
    actor: str | None = None


class DeleteFile(Request, frozen=True, kw_only=True):
    path: Path
    actor: str | None = None


class FetchFile(Request, frozen=True, kw_only=True):
    """Download into the workspace: http or https, at most 100 MiB, no private address, within `timeout_s`."""

    url: Annotated[str, Meta(min_length=1, max_length=8192)]
    path: Path
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 60
    sha256: str | None = None
    actor: str | None = None


class FileStored(Reply, frozen=True, kw_only=True):
    """`n_bytes` so far; with the last chunk, `sha256` of the whole."""

    size: Count
    sha256: str | None = None
